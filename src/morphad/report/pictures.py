"""Holdout images as data URIs: the picture, and its heatmap on the line's fixed scale with the mask's outline."""

import base64
import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

_SIDE = 256  # px of the longer side: 36 pictures make a page of about a megabyte
_OUTLINE = (0, 229, 255)  # cyan: occurs neither in the colour map nor in most parts
_OPACITY = 0.85


@dataclass(frozen=True)
class Example:
    """One holdout image with what the model saw in it.

    Attributes:
        image: uint8 [H, W] or [H, W, 3].
        heatmap: float32 [H, W].
        mask: bool [H, W], True where the defect is, or None where it is not known.
        name: Of the file, as people know it.
        label: "good" or "defect".
        defect: Its kind, "" for good.
        score: Higher is more abnormal.
        p_value: None without calibration.
        rejected: None without a threshold.
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


def picture(example: Example) -> str:
    """The image, at most 256 px, as a data URI."""
    return _uri(Image.fromarray(example.image).convert("RGB").resize(_size(example), Image.Resampling.LANCZOS))


def overlay(example: Example, scale: tuple[float, float]) -> str:
    """The heatmap over the image in grey, with the mask's outline, as a data URI.

    Args:
        example: Image, heatmap and mask of one size.
        scale: Values shown as coldest and hottest; the same for all images of a line, so pictures can be compared.
    """
    size = _size(example)
    grey = np.asarray(Image.fromarray(example.image).convert("L").resize(size, Image.Resampling.LANCZOS), np.float32)
    heat = Image.fromarray(example.heatmap.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    pixels = _blend(grey, _relative(np.asarray(heat), scale))
    if example.mask is not None and example.mask.any():
        share = Image.fromarray(example.mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
        inside = np.asarray(share) > 0  # a defect thinner than a pixel is still outlined
        pixels[ndimage.binary_dilation(inside) & ~inside] = _OUTLINE
    return _uri(Image.fromarray(pixels))


@cache
def colour_bar() -> str:
    """The colour scale, coldest on the left, blended as in `overlay` over mid grey, as a data URI."""
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (8, 1))
    return _uri(Image.fromarray(_blend(np.full_like(ramp, 128), ramp)), lossless=True)


def _size(example: Example) -> tuple[int, int]:
    """Width and height in px of the small picture; images are never enlarged."""
    height, width = example.image.shape[:2]
    factor = min(1.0, _SIDE / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _relative(heat: NDArray[np.float32], scale: tuple[float, float]) -> NDArray[np.float32]:
    low, high = scale
    return np.asarray(np.clip((heat - low) / max(high - low, 1e-12), 0, 1), dtype=np.float32)


def _blend(grey: NDArray[np.float32], value: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Inferno (perceptually even, colour-blind safe), the more opaque the hotter, so that cold parts stay visible."""
    colour = colormaps["inferno"](0.2 + 0.8 * value)[..., :3] * 255
    opacity = (_OPACITY * value)[..., None]
    return np.asarray(np.round(grey[..., None] * (1 - opacity) + colour * opacity), dtype=np.uint8)


def _uri(image: Image.Image, lossless: bool = False) -> str:
    stream = io.BytesIO()
    if lossless:
        image.save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=85, optimize=True)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
