"""`morphad region`: what of a line's pictures is inspected, drawn over the mean of them, and a template to paint on."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from morphad.base.errors import BadInputError
from morphad.base.files import atomic_file
from morphad.base.wording import counted
from morphad.data.loading import read_pixels
from morphad.data.manifest import read_manifest
from morphad.data.pictures import Pictures
from morphad.jobs.tracing import trace
from morphad.model.region import Region
from morphad.settings import Decoding, LineSettings, RegionSettings
from morphad.steps.paths import LinePaths

PICTURE, TEMPLATE = "region.png", "region-template.png"
_MOST = 64  # pictures behind the mean
_DARKENED = 0.35
_BORDER = (0, 229, 255)  # cyan, as masks on the line's page


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    Attributes:
        size: Height and width of the line's pictures, px.
        averaged: Pictures behind the mean.
        region: What is inspected; None: all of it.
        share: Of the picture that is inspected, in (0, 1].
        differs: Share of the picture in which the shapes are not as somebody painted them; None: nobody did.
        picture: The mean picture with the border, and what is not inspected darkened.
        template: The mean picture to paint on.
        kept: Whether a template was there already, and left as it is.
    """

    size: tuple[int, int]
    averaged: int
    region: RegionSettings | None
    share: float
    differs: float | None
    picture: Path
    template: Path
    kept: bool


def draw_region(settings: LineSettings, paths: LinePaths, folder: Path, painted: Path | None = None) -> Drawn:
    """Draw the region over the mean of the line's good pictures, and write a template unless there is one.

    Args:
        settings: The line's.
        paths: Where its files are.
        folder: Where the pictures go.
        painted: A template with paint on it, whose region is drawn in place of the settings'; None: the settings'.

    Raises:
        BadInputError: There is no good picture, they are of several sizes, or the region does not fit them.
    """
    rows = _good(paths)
    size = _one_size(rows, paths.line)
    decoding = settings.ingest.decoding
    region, wanted = settings.train.region, None
    if painted is not None:
        region, wanted = trace(painted, size, decoding)  # before pictures are read, which takes longer
    chosen = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST)).astype(int))]
    mean = _mean(chosen.reset_index(drop=True), paths.pictures, decoding, size, paths.line)
    template = folder / TEMPLATE
    if not (kept := template.exists()):
        _save(template, mean)
    drawn = None if region is None else Region(region)
    if drawn is not None and (reason := drawn.refusal(*size)):
        raise BadInputError(f"{paths.line}: a picture of the line {reason}; {template} is a template to paint on")
    inside = np.ones(size, bool) if drawn is None else drawn.inside
    _save(folder / PICTURE, _bordered(mean, inside))
    differs = None if wanted is None else float((wanted != inside).mean())
    return Drawn(size, len(chosen), region, float(inside.mean()), differs, folder / PICTURE, template, kept)


def as_yaml(region: RegionSettings) -> str:
    """The block for params.yaml."""
    lines = ["region:", f"  size: {json.dumps(region.size)}"]
    for key, shapes in (("inspect", region.inspect), ("ignore", region.ignore)):
        if shapes:
            lines += [f"  {key}:", *(f"  - {json.dumps(shape)}" for shape in shapes)]
    return "\n".join(lines)


def _good(paths: LinePaths) -> pd.DataFrame:
    rows = read_manifest(paths.manifest)
    good = rows[rows["label"] == "good"].sort_values("path")
    if good.empty:
        raise BadInputError(f"{paths.line}: has no good picture; add some at its source and run `morphad ingest` again")
    return good


def _one_size(rows: pd.DataFrame, line: str) -> tuple[int, int]:
    """Height and width of all pictures."""
    sizes = rows.groupby(["height", "width"])["path"].agg(["size", "first"]).sort_values("size", ascending=False)
    if len(sizes) > 1:
        named = "; ".join(
            f"{height} x {width} px: {counted(int(count), 'picture')}, such as {path}"
            for (height, width), (count, path) in zip(sizes.index[:4], sizes.to_numpy()[:4], strict=True)
        )
        raise BadInputError(
            f"{line}: its good pictures are of {len(sizes)} sizes (height x width), and a region is for one: {named}; "
            "leave out those of the others, or make a line for each size"
        )
    height, width = sizes.index[0]
    return int(height), int(width)


def _mean(
    rows: pd.DataFrame, pictures: Pictures, decoding: Decoding, size: tuple[int, int], line: str
) -> NDArray[np.uint8]:
    """uint8 [H, W], the mean in grey."""
    total = np.zeros(size, np.float32)
    for pixels in read_pixels(rows, pictures, decoding, f"reading {line}"):
        total += np.asarray(Image.fromarray(pixels).convert("L"))
    return np.asarray(np.rint(total / len(rows)).astype(np.uint8))


def _bordered(mean: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: outside the mean is darkened, and a border runs along it, outside, too."""
    shown = np.where(inside, mean, np.rint(mean * _DARKENED).astype(np.uint8))
    coloured = np.repeat(shown[..., None], 3, -1)
    width = max(1, round(max(mean.shape) / 500))
    coloured[ndimage.binary_dilation(inside, iterations=width) & ~inside] = _BORDER
    return coloured


def _save(file: Path, pixels: NDArray[np.uint8]) -> None:
    with atomic_file(file) as temporary:
        Image.fromarray(pixels).convert("RGB").save(temporary, "PNG")
