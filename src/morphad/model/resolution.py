"""How large the network sees the pictures of a line: whole, and in tiles."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, exp, log
from statistics import median

from morphad.base.errors import BadInputError
from morphad.model.region import region_of
from morphad.settings import TrainSettings

SHORTER = 224  # px: what the packaged weights were trained on
LONGER = 1024  # px at most: longer pictures are squeezed
PLACE = 8  # px between two places of a map
TILE = 512  # px at most, the side of a tile
MARGIN = 32  # px at the side of a tile that a neighbour shows better: there the padding is felt
_STRIDE = 32  # px between two places of the coarsest layer of common networks
_CLOSER = 1.25  # tiles that show less than this more than the whole picture does are not worth their time


def resolved(settings: TrainSettings, sizes: Iterable[tuple[int, int]]) -> TrainSettings:
    """The settings with what follows from the pictures: `image_size` and, where there are tiles, their `tiled_size`.

    Whole, the shorter side is 224 px, and the longer one follows from the pictures, a multiple of 32 px, 1,024 at most.
    In tiles, the smallest defect covers a place of 8 px of the map, as far as the pictures have such detail.

    Args:
        settings: Of the training; sizes that they give stay.
        sizes: Height and width, px, of good pictures, one at least; where they differ, the median counts. Where there
            is a region, its box counts instead.

    Raises:
        BadInputError: The smallest defect is larger than the pictures.

    Example:
        >>> from morphad.settings.presets import train_settings
        >>> resolved(train_settings({}), [(1260, 500), (1264, 500)]).image_size
        (576, 224)
        >>> resolved(train_settings({"image_size": [64, 96]}), [(1260, 500)]).image_size
        (64, 96)
        >>> resolved(train_settings({"resolution": {"smallest_defect": 16}}), [(2000, 3000)]).resolution.tiled_size
        (992, 1504)
    """
    resolution = settings.resolution
    if settings.image_size is not None and (resolution.tiled_size or resolution.smallest_defect is None):
        return settings
    sizes = looked_at(settings, sizes)
    ratio = exp(median(log(height / width) for height, width in sizes))
    whole = settings.image_size or _whole(ratio)
    tiled = resolution.tiled_size
    defect = defect_px(settings)
    if tiled is None and defect is not None:
        height, width = median(height for height, _ in sizes), median(width for _, width in sizes)
        _check_defect(settings, defect, height, width)
        scale = min(1.0, PLACE / defect)
        tiled = whole_strides(scale * height), whole_strides(scale * width)
        if tiled[0] < _CLOSER * whole[0] and tiled[1] < _CLOSER * whole[1]:
            tiled = None
    return settings.model_copy(
        update={"image_size": whole, "resolution": resolution.model_copy(update={"tiled_size": tiled})}
    )


def looked_at(settings: TrainSettings, sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Heights and widths, px, of what is seen of pictures: of the box around the region where there is one."""
    return list(sizes) if settings.region is None else [region_of(settings.region).box_size]


def defect_px(settings: TrainSettings) -> float | None:
    """Side of the smallest defect, px of the pictures."""
    side, scale = settings.resolution.smallest_defect, settings.resolution.mm_per_pixel
    return None if side is None else side / (scale or 1)


def _check_defect(settings: TrainSettings, defect: float, height: float, width: float) -> None:
    if defect <= min(height, width):
        return
    side, scale = settings.resolution.smallest_defect, settings.resolution.mm_per_pixel
    given = f"{side:g}" if scale is None else f"{side:g} mm, with mm_per_pixel = {scale:g},"
    remedy = (
        "in px of the pictures; where it is in mm, mm_per_pixel is needed" if scale is None else "or check the scale"
    )
    what = "the box around their region is" if settings.region is not None else "they are"
    raise BadInputError(
        f"train.resolution.smallest_defect = {given} is a defect of {defect:.4g} px, larger than the pictures: {what} "
        f"{height:,.0f} x {width:,.0f} px; give the side of the smallest defect that is to be found, {remedy}"
    )


def _whole(ratio: float) -> tuple[int, int]:
    longer = min(LONGER, whole_strides(SHORTER * max(ratio, 1 / ratio)))
    return (longer, SHORTER) if ratio > 1 else (SHORTER, longer)


def whole_strides(side: float) -> int:
    """The nearest multiple of 32 px to a side, 32 at least."""
    return _STRIDE * max(1, round(side / _STRIDE))


@dataclass(frozen=True)
class Span:
    """A tile along one side of a picture, px.

    Attributes:
        shown: What the tile shows.
        kept: What it is asked about, a multiple of `PLACE` at either end: all but its margins, where others follow.
    """

    shown: slice
    kept: slice


def spans(length: int) -> list[Span]:
    """The tiles along a side of `length` px, a multiple of 32: all of one size, their kept parts side by side.

    Example:
        >>> [(span.shown.start, span.shown.stop, span.kept.start, span.kept.stop) for span in spans(960)]
        [(0, 512, 0, 480), (448, 960, 480, 960)]
    """
    if length <= TILE:
        return [Span(slice(0, length), slice(0, length))]
    count = ceil((length - 2 * MARGIN) / (TILE - 2 * MARGIN))
    starts = [_STRIDE * round(i * (length - TILE) / (count - 1) / _STRIDE) for i in range(count)]
    # Halfway between where one tile begins and the one before it ends.
    cuts = [0, *(PLACE * round((b + a + TILE) / 2 / PLACE) for a, b in pairwise(starts)), length]
    return [Span(slice(start, start + TILE), slice(*kept)) for start, kept in zip(starts, pairwise(cuts), strict=True)]


def tile_count(size: tuple[int, int]) -> int:
    """How many tiles there are at a height and width, px.

    Example:
        >>> tile_count((1376, 1632))
        12
    """
    return len(spans(size[0])) * len(spans(size[1]))
