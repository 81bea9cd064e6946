"""`morphad region`: what of a line's pictures is inspected, drawn over the mean of them, and a template to paint on."""

import json
from collections.abc import Iterable, Iterator
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
from morphad.data.loading import Repeatable, read_pixels
from morphad.data.manifest import read_manifest
from morphad.jobs.tracing import trace
from morphad.model.alignment.alignment import Alignment, most_alike
from morphad.model.alignment.warp import fetched
from morphad.model.region import Region
from morphad.settings import LineSettings, RegionSettings
from morphad.steps.anchor import anchor_row
from morphad.steps.paths import LinePaths

PICTURE, TEMPLATE = "region.png", "region-template.png"
Pixels = NDArray[np.uint8]

_MOST = 64  # pictures behind the mean
_DIGITS = 12  # of a SHA-256 that settings have
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
        anchor: SHA-256 of the picture whose part lies where the mean has it, 12 digits; "" where parts are not put in
            place.
    """

    size: tuple[int, int]
    averaged: int
    region: RegionSettings | None
    share: float
    differs: float | None
    picture: Path
    template: Path
    kept: bool
    anchor: str


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
    pictures = Repeatable(lambda: read_pixels(chosen, paths.pictures, decoding, f"reading {paths.line}"))
    anchor = ""
    if settings.train.align != "none":
        pictures, anchor = _aligned(pictures, settings, paths, chosen, rows)
    mean = _mean(pictures, size)
    template = folder / (TEMPLATE if not anchor else TEMPLATE.replace(".png", f"-{anchor}.png"))
    if not (kept := template.exists()):
        _save(template, mean)
    drawn = None if region is None else Region(region)
    if drawn is not None and (reason := drawn.refusal(*size)):
        raise BadInputError(f"{paths.line}: a picture of the line {reason}; {template} is a template to paint on")
    inside = np.ones(size, bool) if drawn is None else drawn.inside
    _save(folder / PICTURE, _bordered(mean, inside))
    differs = None if wanted is None else float((wanted != inside).mean())
    if region is not None and anchor:
        region = region.model_copy(update={"anchor": anchor})
    share = float(inside.mean())
    return Drawn(size, len(chosen), region, share, differs, folder / PICTURE, template, kept, anchor)


def as_yaml(region: RegionSettings) -> str:
    """The block for params.yaml."""
    lines = ["region:", f"  size: {json.dumps(region.size)}"]
    for key, shapes in (("inspect", region.inspect), ("ignore", region.ignore)):
        if shapes:
            lines += [f"  {key}:", *(f"  - {json.dumps(shape)}" for shape in shapes)]
    if region.anchor:
        lines.append(f"  anchor: {json.dumps(region.anchor)}")
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


def _aligned(
    pictures: Repeatable[Pixels], settings: LineSettings, paths: LinePaths, chosen: pd.DataFrame, rows: pd.DataFrame
) -> tuple[Repeatable[Pixels], str]:
    """The pictures whose part is found, in its place, and whose place that is."""
    kind = settings.train.align
    assert kind != "none"  # noqa: S101 -- as the caller has seen
    region = settings.train.region
    if region is not None and region.anchor:
        row = anchor_row(paths.line, region.anchor, rows)
    else:
        row = chosen.iloc[[most_alike(pictures, kind)]]
    [pixels] = read_pixels(row, paths.pictures, settings.ingest.decoding, f"reading {paths.line}")
    alignment = Alignment.learned(pictures, kind, pixels)

    def found() -> Iterator[Pixels]:
        for image in pictures:
            warp = alignment.find(image)
            if not isinstance(warp, str):
                yield fetched(image, warp)

    return Repeatable(found), str(row["sha256"].iloc[0])[:_DIGITS]


def _mean(pictures: Iterable[Pixels], size: tuple[int, int]) -> Pixels:
    """uint8 [H, W], the mean in grey."""
    total, count = np.zeros(size, np.float32), 0
    for pixels in pictures:
        total += np.asarray(Image.fromarray(pixels).convert("L"))
        count += 1
    return np.asarray(np.rint(total / max(1, count)).astype(np.uint8))


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
