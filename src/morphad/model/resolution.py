"""How large the network sees the pictures of a line: whole, and in tiles."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, exp, log
from statistics import median

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
    if settings.region is not None:
        sizes = [region_of(settings.region).box_size]
    sizes = list(sizes)
    ratio = exp(median(log(height / width) for height, width in sizes))
    whole = settings.image_size or _whole(ratio)
    tiled = resolution.tiled_size
    if tiled is None and resolution.smallest_defect is not None:
        pixels = resolution.smallest_defect / (resolution.mm_per_pixel or 1)
        scale = min(1.0, PLACE / pixels)
        tiled = (
            whole_strides(scale * median(height for height, _ in sizes)),
            whole_strides(scale * median(w for _, w in sizes)),
        )
        if tiled[0] < _CLOSER * whole[0] and tiled[1] < _CLOSER * whole[1]:
            tiled = None
    return settings.model_copy(
        update={"image_size": whole, "resolution": resolution.model_copy(update={"tiled_size": tiled})}
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
