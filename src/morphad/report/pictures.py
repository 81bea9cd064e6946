"""Images as data URIs: thumbnails, and pictures with heatmaps on the line's fixed scale, masks and regions outlined."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from morphad.base.files import atomic_file
from morphad.model.records import Prediction

_SIDE = 256  # px of the longer side: 36 pictures make a page of about a megabyte
_CLOSE = 144  # px: as wide as a picture of a pair is shown at least
_THUMBNAIL = 160  # px
_OUTLINE = (0, 229, 255)  # cyan: occurs neither in the colour map nor in most parts
_BORDER = (0, 230, 118)  # green: of the region
_BOX = (255, 255, 255)  # of what is shown at true size, too
_DARKENED = 0.35  # what is not inspected
_OPACITY = 0.85
_STRIP = 256  # rows


@dataclass(frozen=True)
class Example:
    """One holdout image with what the model saw in it.

    Attributes:
        image: uint8 [H, W] or [H, W, 3].
        heatmap: float32 [H, W].
        mask: bool [H, W], True where the defect is, or None where it is not known.
        inspected: bool [H, W], what of it counts, or None where all does.
        name: Of the file, as people know it.
        label: "good" or "defect".
        defect: Its kind, "" for good.
        score: Higher is more abnormal.
        p_value: None without calibration.
        rejected: None without a threshold.
        reason: Why it was rejected unseen; "" for others.
    """

    image: NDArray[np.uint8]
    heatmap: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    name: str
    label: str
    defect: str
    score: float
    p_value: float | None
    rejected: bool | None
    reason: str = ""
    inspected: NDArray[np.bool_] | None = None

    @staticmethod
    def of(
        image: NDArray[np.uint8],
        prediction: Prediction,
        *,
        name: str,
        label: str,
        defect: str,
        mask: NDArray[np.bool_] | None = None,
    ) -> "Example":
        """An image with what a detector says of it."""
        return Example(
            image=image,
            heatmap=prediction.heatmap,
            mask=mask,
            name=name,
            label=label,
            defect=defect,
            score=prediction.score,
            p_value=prediction.p_value,
            rejected=prediction.rejected,
            reason=prediction.reason,
            inspected=prediction.inspected,
        )

    @property
    def window(self) -> tuple[slice, slice] | None:
        """Rows and columns around the most abnormal place, for a picture that is shown at half its size or smaller.

        None: what is there is seen in the whole picture, or it was rejected unseen.
        """
        height, width = self.heatmap.shape
        if self.reason or max(height, width) < 2 * _SIDE:
            return None
        row, column = np.unravel_index(int(self.heatmap.argmax()), self.heatmap.shape)
        return _around(int(row), height), _around(int(column), width)


def _around(place: int, length: int) -> slice:
    start = max(0, min(place - _CLOSE // 2, length - _CLOSE))
    return slice(start, min(start + _CLOSE, length))


def picture(example: Example) -> str:
    """The image, at most 256 px, as a data URI."""
    return _uri(_small(example))


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """uint8 [H, W] or [H, W, 3] as a picture of at most 160 px, as a data URI."""
    return _uri(_shrunk(pixels, _THUMBNAIL))


def average(images: Iterable[NDArray[np.uint8]]) -> str:
    """The mean of images, each brought to the size of the first, at most 160 px, as a data URI; "" of none."""
    total: NDArray[np.float64] | None = None
    count = 0
    for pixels in images:
        small = _shrunk(pixels, _THUMBNAIL)
        if total is None:
            total = np.zeros((small.height, small.width, 3))
        height, width = total.shape[:2]
        total += np.asarray(small.resize((width, height)), np.float64)
        count += 1
    return "" if total is None else _uri(Image.fromarray(np.round(total / count).astype(np.uint8)))


def overlay(example: Example, scale: tuple[float, float]) -> str:
    """The heatmap over the image in grey, at most 256 px, as a data URI.

    The mask has an outline. So has what is inspected; the rest is darkened. A box is around `Example.window`.

    Args:
        example: Image, heatmap and mask of one size.
        scale: Values shown as coldest and hottest; the same for all images of a line, so pictures can be compared.
    """
    return _uri(_overlaid(example, scale))


def write_heatmap(
    path: Path, image: NDArray[np.uint8], heatmap: NDArray[np.float32], scale: tuple[float, float]
) -> None:
    """Write the heatmap over the image in grey as a PNG of the image's size.

    Raises:
        BadInputError: The file cannot be written.
    """
    drawn = Image.new("RGB", (image.shape[1], image.shape[0]))
    for top in range(0, len(image), _STRIP):  # a picture of 81 megapixels is written with a few megabytes beside it
        rows = slice(top, top + _STRIP)
        grey = np.asarray(Image.fromarray(image[rows]).convert("L"))
        drawn.paste(Image.fromarray(_blend(grey, _relative(heatmap[rows], scale))), (0, top))
    with atomic_file(path) as temporary:
        drawn.save(temporary, "PNG", compress_level=1)  # three times as fast as 6, and hardly larger


def write_contact_sheet(path: Path, examples: Sequence[Example], scale: tuple[float, float], columns: int = 3) -> None:
    """Write examples as one PNG, each image beside its heatmap with label, score and verdict above.

    Raises:
        BadInputError: The file cannot be written.
    """
    cell, caption = (2 * _SIDE + 8, _SIDE + 28), 18
    sheet = Image.new("RGB", (columns * cell[0], max(1, -(-len(examples) // columns)) * cell[1]), "white")
    pen = ImageDraw.Draw(sheet)
    for i, example in enumerate(examples):
        left, top = i % columns * cell[0], i // columns * cell[1]
        verdict = {True: "rejected", False: "accepted", None: "no threshold"}[example.rejected]
        score = "part not found" if example.reason else f"{example.score:.2f}"
        pen.text((left + 2, top + 3), f"{example.defect or example.label}  {score}  {verdict}", fill="black")
        sheet.paste(_small(example), (left, top + caption))
        sheet.paste(_overlaid(example, scale), (left + _SIDE, top + caption))
    with atomic_file(path) as temporary:
        sheet.save(temporary, "PNG")


@cache
def colour_bar() -> str:
    """The colour scale, coldest on the left, blended as in `overlay` over mid grey, as a data URI."""
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (8, 1))
    return _uri(Image.fromarray(_blend(np.full(ramp.shape, 128, np.uint8), ramp)), lossless=True)


def _small(example: Example) -> Image.Image:
    return _shrunk(example.image, _SIDE)


def _shrunk(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    return Image.fromarray(pixels).convert("RGB").resize(_size(pixels, side), Image.Resampling.LANCZOS)


def _overlaid(example: Example, scale: tuple[float, float]) -> Image.Image:
    size = _size(example.image, _SIDE)
    grey = np.asarray(Image.fromarray(example.image).convert("L").resize(size, Image.Resampling.LANCZOS))
    heat = Image.fromarray(example.heatmap.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    pixels = _blend(grey, _relative(np.asarray(heat), scale))
    if example.inspected is not None and not example.inspected.all():
        inside = _any(example.inspected, size)
        pixels[~inside] = np.rint(pixels[~inside] * _DARKENED)
        pixels[ndimage.binary_dilation(inside) & ~inside] = _BORDER
    if example.mask is not None and example.mask.any():
        inside = _any(example.mask, size)  # a defect thinner than a pixel is still outlined
        pixels[ndimage.binary_dilation(inside) & ~inside] = _OUTLINE
    if (window := example.window) is not None:
        factor = size[1] / len(example.heatmap)
        box = np.zeros(grey.shape, bool)
        box[tuple(slice(round(factor * side.start), round(factor * side.stop)) for side in window)] = True
        inner = ndimage.binary_erosion(box)
        pixels[box & ~inner] = _BOX
        pixels[inner & ~ndimage.binary_erosion(inner)] = 0
    return Image.fromarray(pixels)


def _any(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """bool [h, w] at a width and height, px: where some of the mask is."""
    share = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return np.asarray(np.asarray(share) > 0)


def _size(pixels: NDArray[np.uint8], side: int) -> tuple[int, int]:
    """Width and height in px of the small picture, at most `side`; images are never enlarged."""
    height, width = pixels.shape[:2]
    factor = min(1.0, side / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _relative(heat: NDArray[np.float32], scale: tuple[float, float]) -> NDArray[np.float32]:
    low, high = scale
    return np.asarray(np.clip((heat - low) / max(high - low, 1e-12), 0, 1), dtype=np.float32)


def _blend(grey: NDArray[np.uint8], value: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Inferno (perceptually even, colour-blind safe), the more opaque the hotter, so that cold parts stay visible."""
    return _colours()[np.rint(value * 255).astype(np.uint8), grey]


@cache
def _colours() -> NDArray[np.uint8]:
    """uint8 [256, 256, 3]: the colour for a heat from 0 to 255 over a grey level."""
    value = np.linspace(0, 1, 256)[:, None]
    colour = _inferno()[np.round(255 * (0.2 + 0.8 * value[:, 0])).astype(np.uint8)].astype(np.float64)[:, None]
    opacity = (_OPACITY * value)[..., None]
    grey = np.arange(256)[None, :, None]
    return np.asarray(np.round(grey * (1 - opacity) + colour * opacity), dtype=np.uint8)


@cache
def _inferno() -> NDArray[np.uint8]:
    """The colour map's 256 colours, [256, 3]; of matplotlib (CC0), by Nathaniel Smith and Stefan van der Walt."""
    return np.frombuffer(Path(__file__).with_name("inferno.rgb").read_bytes(), np.uint8).reshape(256, 3)


def _uri(image: Image.Image, lossless: bool = False) -> str:
    stream = io.BytesIO()
    if lossless:
        image.save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=85, optimize=True)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
