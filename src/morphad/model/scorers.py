"""The scorers that the settings name."""

from collections.abc import Sequence

import torch
from torch import Tensor

from morphad.model.device import Placement
from morphad.model.morphology import Case
from morphad.model.prepare import inspected
from morphad.model.scoring.base import Scorer
from morphad.model.scoring.patches import DensityScorer
from morphad.model.scoring.tiles import TileScorer
from morphad.model.scoring.transformation import TransformationScorer
from morphad.settings import ScoreSettings, TrainSettings


def make_scorers(
    settings: TrainSettings, table: Sequence[Case], seed: int, placement: Placement
) -> tuple[Scorer, TileScorer | None]:
    """The scorer of whole pictures and, where there is a tiled size, that of tiles, not yet fitted.

    They compute in the placement's precision: that of the fit, whatever machine this is.
    """
    dtype = placement.dtype
    if dtype == torch.float16 and placement.device.type == "cpu":
        dtype = None  # a CPU has no fast float16; float32 is the closest that it computes in
    size, tiled = settings.image_size, settings.resolution.tiled_size
    inside = None if size is None else inspected(settings, size)
    scorer = make_scorer(settings.score, table, seed, dtype, inside)
    if tiled is None:
        return scorer, None
    return scorer, TileScorer(settings.score, seed, dtype, inspected(settings, tiled))


def make_scorer(
    settings: ScoreSettings,
    table: Sequence[Case],
    seed: int,
    dtype: torch.dtype | None,
    inside: Tensor | None = None,
) -> Scorer:
    """The scorer of whole pictures, not yet fitted; `dtype` and `inside` as in `Scorer`."""
    if settings.kind == "transformation":
        return TransformationScorer(settings, table, dtype, inside)
    return DensityScorer(settings, seed, dtype, inside)
