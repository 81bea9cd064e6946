"""Similarities of the plane, and pictures seen through them."""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Warp:
    """A similarity: (x, y) -> scale * rotation * (x, y) + shift. Points are the middles of pixels, from 0.

    Attributes:
        a: Scale times the cosine of the turn.
        b: Scale times its sine.
        x: Of the shift, px.
        y: Of the shift, px.

    Example:
        >>> Warp(0, 1, 5, 0).at(2, 0)
        (5, 2)
        >>> Warp(0, 1, 5, 0).inverse().at(5, 2)
        (2.0, 0.0)
    """

    a: float = 1.0
    b: float = 0.0
    x: float = 0.0
    y: float = 0.0

    @property
    def scale(self) -> float:
        """How much larger it makes."""
        return float((self.a**2 + self.b**2) ** 0.5)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where it puts a point."""
        return self.a * x - self.b * y + self.x, self.b * x + self.a * y + self.y

    def after(self, first: "Warp") -> "Warp":
        """What `first` and then this one does."""
        return Warp(
            self.a * first.a - self.b * first.b, self.b * first.a + self.a * first.b, *self.at(first.x, first.y)
        )

    def inverse(self) -> "Warp":
        """What takes it back."""
        square = self.a**2 + self.b**2
        a, b = self.a / square, -self.b / square
        return Warp(a, b, b * self.y - a * self.x, -b * self.x - a * self.y)

    def zoomed(self, factor: float) -> "Warp":
        """The same for pictures that are larger by a factor."""
        grow = Warp(factor, 0, (factor - 1) / 2, (factor - 1) / 2)
        return grow.after(self).after(grow.inverse())

    @property
    def whole(self) -> bool:
        """Whether it is a shift by whole pixels."""
        return (self.a, self.b) == (1, 0) and self.x == round(self.x) and self.y == round(self.y)


def fetched(image: NDArray[np.uint8], warp: Warp) -> NDArray[np.uint8]:
    """A picture [H, W] or [H, W, 3] of the same size: each pixel is what the warp finds for it in the given one.

    Beyond its border the picture's outermost pixels go on. A shift by whole pixels changes no value.
    """
    height, width = image.shape[:2]
    if warp.whole:
        rows = np.clip(np.arange(height) + round(warp.y), 0, height - 1)
        columns = np.clip(np.arange(width) + round(warp.x), 0, width - 1)
        return image[rows[:, None], columns]
    corners = [warp.at(x, y) for x in (0, width - 1) for y in (0, height - 1)]
    left, top = (max(0, ceil(-min(c)) + 2) for c in zip(*corners, strict=True))  # 2 px: what interpolation asks for
    right = max(0, ceil(max(x for x, _ in corners)) - width + 3)
    bottom = max(0, ceil(max(y for _, y in corners)) - height + 3)
    padded = np.pad(image, [(top, bottom), (left, right), *[(0, 0)] * (image.ndim - 2)], mode="edge")
    moved = Warp(1, 0, left, top).after(warp)
    return np.array(_transformed(Image.fromarray(padded), moved, (width, height), Image.Resampling.BICUBIC, 0))


def put_back(values: NDArray[np.float32], warp: Warp, lowest: float) -> NDArray[np.float32]:
    """Values [H, W] of a fetched picture in the places of the given one; `lowest` where none was fetched from."""
    height, width = values.shape
    back = warp.inverse()
    if warp.whole:
        dx, dy = round(back.x), round(back.y)
        whole = np.full(values.shape, lowest, np.float32)
        top, bottom, left, right = max(0, -dy), min(height, height - dy), max(0, -dx), min(width, width - dx)
        if top < bottom and left < right:
            whole[top:bottom, left:right] = values[top + dy : bottom + dy, left + dx : right + dx]
        return whole
    moved = _transformed(Image.fromarray(values), back, (width, height), Image.Resampling.BILINEAR, lowest)
    return np.array(moved, np.float32)


def _transformed(
    image: Image.Image, warp: Warp, size: tuple[int, int], how: Image.Resampling, fill: float
) -> Image.Image:
    """Pillow's affine transform, whose points are corners of pixels."""
    x, y = warp.at(0, 0)
    half = (1 - warp.a + warp.b) / 2, (1 - warp.a - warp.b) / 2
    data = (warp.a, -warp.b, x + half[0], warp.b, warp.a, y + half[1])
    return image.transform(size, Image.Transform.AFFINE, data, how, fillcolor=fill if image.mode == "F" else None)
