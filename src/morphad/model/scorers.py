"""The scorer that the settings name, and its parts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from morphad.model.backbone import Backbone
from morphad.model.device import Placement
from morphad.model.morphology import Case
from morphad.model.prepare import inspected
from morphad.model.scoring.base import Scorer
from morphad.model.scoring.closer import CloserScorer
from morphad.model.scoring.patches import DensityScorer
from morphad.model.scoring.tiles import TileScorer
from morphad.model.scoring.transformation import TransformationScorer
from morphad.settings import ScoreSettings, TrainSettings


def scorer_of(settings: TrainSettings, table: Sequence[Case], seed: int, placement: Placement) -> Scorer:
    """The scorer of a line's pictures, not yet fitted.

    It computes in the placement's precision: that of the fit, whatever machine this is.
    """
    whole, tiles = whole_scorer(settings, table, seed, placement), tile_scorer(settings, seed, placement)
    if tiles is None:
        return whole
    assert isinstance(whole, DensityScorer)  # noqa: S101 -- the settings allow tiles beside densities alone
    return CloserScorer(whole, tiles)


def whole_scorer(settings: TrainSettings, table: Sequence[Case], seed: int, placement: Placement) -> Scorer:
    """The part of `scorer_of` that sees whole pictures."""
    size = settings.image_size
    inside = None if size is None else inspected(settings, size)
    return make_scorer(settings.score, table, seed, _precision(placement), inside)


def tile_scorer(settings: TrainSettings, seed: int, placement: Placement) -> TileScorer | None:
    """The part of `scorer_of` that sees tiles; None where there is no tiled size."""
    size = settings.resolution.tiled_size
    if size is None:
        return None
    return TileScorer(settings.score, seed, _precision(placement), size, inspected(settings, size))


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


def with_layers(settings: TrainSettings, backbone: Backbone) -> TrainSettings:
    """The settings with the layers that are scored.

    Raises:
        BadInputError: The network does not have one of them.
    """
    if not settings.score.layers:
        score = settings.score.model_copy(update={"layers": backbone.scored_layers})
        settings = settings.model_copy(update={"score": score})
    if settings.score.kind == "density":
        backbone.check_layers(settings.score.layers)
    return settings


def _precision(placement: Placement) -> torch.dtype | None:
    if placement.dtype == torch.float16 and placement.device.type == "cpu":
        return None  # a CPU has no fast float16; float32 is the closest that it computes in
    return placement.dtype
