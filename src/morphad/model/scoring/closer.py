"""A picture scored whole and closer: the more abnormal of what its whole and its tiles show."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from morphad.model.network import MorphologyNetwork
from morphad.model.scoring.base import Closer, Report, Scored, Scorer
from morphad.model.scoring.patches import DensityScorer
from morphad.model.scoring.tiles import TileScorer

_TILES = "tiles."  # what the names of the tiles' tensors start with


class CloserScorer(Scorer):
    """The more abnormal of two scores, each in deviations of good images' scores from their mean.

    Args:
        whole: Scorer of whole pictures.
        tiles: Scorer of their tiles.
    """

    MIN_IMAGES = DensityScorer.MIN_IMAGES

    def __init__(self, whole: DensityScorer, tiles: TileScorer) -> None:
        self._whole = whole
        self._tiles = tiles
        self.closer = tiles.size

    def fit(self, network: MorphologyNetwork, images: Tensor, report: Report, closer: Closer | None = None) -> Self:
        """As in `Scorer`."""
        assert closer is not None  # noqa: S101 -- as it has such a size
        self._whole.fit(network, images, report)
        self._tiles.fit(network, closer)
        return self

    def score(self, network: MorphologyNetwork, images: Tensor, closer: Sequence[Tensor] = ()) -> Scored:
        """As in `Scorer`; maps [B, H / 8, W / 8] of the closer size."""
        whole = self._whole.relative(self._whole.score(network, images))
        scores, maps = (
            torch.stack(list(items)) for items in zip(*(self._tiles.score(network, i) for i in closer), strict=True)
        )
        resized = functional.interpolate(
            whole.maps[:, None], size=maps.shape[1:], mode="bilinear", align_corners=False, antialias=True
        )[:, 0]
        return Scored(whole.scores.maximum(scores.double()), resized.maximum(maps))

    def state(self) -> dict[str, Tensor]:
        """As in `Scorer`."""
        return self._whole.state() | {_TILES + name: tensor for name, tensor in self._tiles.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As in `Scorer`."""
        self._whole.load_state({name: tensor for name, tensor in state.items() if not name.startswith(_TILES)})
        self._tiles.load_state(
            {name.removeprefix(_TILES): tensor for name, tensor in state.items() if name.startswith(_TILES)}
        )
