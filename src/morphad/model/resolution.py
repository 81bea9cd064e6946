"""How large the network sees the pictures of a line."""

from collections.abc import Iterable
from math import exp, log
from statistics import median

from morphad.model.region import region_of
from morphad.settings import TrainSettings

SHORTER = 224  # px: what the packaged weights were trained on
LONGER = 1024  # px at most: longer pictures are squeezed
_STRIDE = 32  # px between two places of the coarsest layer of common networks


def input_size(settings: TrainSettings, sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Height and width, px, of what the network sees: `image_size`, or where that is null the pictures' own shape.

    Then the shorter side is 224 px, and the longer one follows from the pictures, a multiple of 32 px, 1,024 at most.

    Args:
        settings: Of the training.
        sizes: Height and width, px, of good pictures, one at least; where shapes differ, the median counts. Where there
            is a region, the shape is that of its box.

    Example:
        >>> from morphad.settings.presets import train_settings
        >>> input_size(train_settings({}), [(1260, 500), (1264, 500)])
        (576, 224)
        >>> input_size(train_settings({"image_size": [64, 96]}), [(1260, 500)])
        (64, 96)
    """
    if settings.image_size is not None:
        return settings.image_size
    if settings.region is not None:
        sizes = [region_of(settings.region).box_size]
    ratio = exp(median(log(height / width) for height, width in sizes))
    longer = min(LONGER, _STRIDE * round(SHORTER * max(ratio, 1 / ratio) / _STRIDE))
    return (longer, SHORTER) if ratio > 1 else (SHORTER, longer)
