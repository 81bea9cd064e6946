"""The score by cases: how badly the network recognises which morphological case was applied to an image."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from morphad.model.morphology import Case, transform
from morphad.model.network import MorphologyNetwork
from morphad.model.scoring.base import BATCH, Closer, Report, Scored, Scorer, forward_pass
from morphad.settings import ScoreSettings


class TransformationScorer(Scorer):
    """How badly the network recognises which case was applied: one forward pass a case.

    For every case, 1 - cos(angle between the embedding and the true case's class centre), standardised with its mean
    and deviation over good training images, then averaged over the cases. The map is the same with the embedding of
    each place in place of the pooled one.
    """

    MIN_IMAGES = 2

    def __init__(
        self, settings: ScoreSettings, table: Sequence[Case], dtype: torch.dtype | None, inside: Tensor | None = None
    ) -> None:
        super().__init__(dtype, inside)
        count = min(settings.cases, len(table))
        self._indices = [round(i * (len(table) - 1) / max(1, count - 1)) for i in range(count)]
        self._cases = [table[index] for index in self._indices]
        self._image_mean = self._image_std = self._place_mean = self._place_std = torch.empty(0)

    def fit(self, network: MorphologyNetwork, images: Tensor, report: Report, closer: Closer | None = None) -> Self:
        """As in `Scorer`."""
        self.check_count(len(images))
        whole, places = [], []
        for batch in torch.split(images, BATCH):
            image_evidence, place_evidence = self._evidence(network, batch)
            whole.append(image_evidence)
            places.append(self._counting(place_evidence).mean(2))
            report(len(batch))
        evidence, place = torch.cat(whole), torch.cat(places)
        self._image_mean, self._image_std = evidence.mean(0), evidence.std(0).clamp_min(1e-4)
        self._place_mean, self._place_std = place.mean(0), place.std(0).clamp_min(1e-4)
        return self

    def score(self, network: MorphologyNetwork, images: Tensor, closer: Sequence[Tensor] = ()) -> Scored:
        """As in `Scorer`."""
        whole, places = self._evidence(network, images)
        scores = ((whole - self._image_mean) / self._image_std).mean(1)
        maps = ((places - self._place_mean[:, None, None]) / self._place_std[:, None, None]).mean(1)
        full = functional.interpolate(maps[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False)
        return Scored(scores.double(), full[:, 0])

    def state(self) -> dict[str, Tensor]:
        """As in `Scorer`."""
        return {
            "image_mean": self._image_mean,
            "image_std": self._image_std,
            "place_mean": self._place_mean,
            "place_std": self._place_std,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As in `Scorer`."""
        self._image_mean, self._image_std = state["image_mean"], state["image_std"]
        self._place_mean, self._place_std = state["place_mean"], state["place_std"]

    def _evidence(self, network: MorphologyNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
        """1 - cosine to the true case: [B, K] of whole images and [B, K, h, w] of places."""
        whole, places = [], []
        for index, case in zip(self._indices, self._cases, strict=True):
            with forward_pass(images, self._dtype):
                embedded = network.embed_places(transform(images, case))
            whole.append(1 - network.case_cosines(self._counting(embedded).mean(2))[:, index])
            place_cosines = network.case_cosines(embedded.movedim(1, -1).flatten(0, 2))[:, index]
            places.append(1 - place_cosines.reshape(len(images), *embedded.shape[2:]))
        return torch.stack(whole, 1), torch.stack(places, 1)
