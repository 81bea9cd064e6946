"""One Gaussian a position: PaDiM's density."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from morphad.base.errors import BadInputError
from morphad.model.scoring.density import SHRINKAGE, Density

_AT_ONCE = 256  # places whose matrices are in memory a second and third time


class GaussianDensity(Density):
    """One Gaussian a position over a fixed random choice of channels; the distance is Mahalanobis.

    Strong where parts are aligned. After PaDiM (Defard et al., 2021), of features averaged over 3 x 3 positions: parts
    never lie quite the same way.

    Args:
        channels: How many channels are kept.
        seed: Of the choice of channels.
    """

    def __init__(self, channels: int, seed: int) -> None:
        self._channels = channels
        self._seed = seed
        self._count = 0
        self._origin = self._sum = self._products = torch.empty(0)
        self._chosen = self._mean = self._whitening = torch.empty(0)

    def update(self, features: Tensor, inside: Tensor | None = None) -> None:
        """As in `Density`."""
        if self._count == 0:
            total = features.shape[1]
            generator = torch.Generator().manual_seed(self._seed)
            self._chosen = (
                torch.randperm(total, generator=generator)[: self._channels].sort().values.to(features.device)
            )
            kept, places = len(self._chosen), features.shape[2] * features.shape[3]
            self._sum = torch.zeros(places, kept, dtype=torch.float64, device=features.device)
            self._products = torch.zeros(places, kept, kept, dtype=torch.float64, device=features.device)
            self._origin = self._rows(features).mean(1)
        # About the first batch's mean: the variance of large values would drown in the rounding of their squares.
        rows = self._rows(features) - self._origin[:, None, :]
        self._count += rows.shape[1]
        self._sum += rows.sum(1)
        for part in _parts(len(rows)):
            self._products[part] += rows[part].transpose(1, 2) @ rows[part]

    def finish(self) -> "GaussianDensity":
        """As in `Density`."""
        if self._count < 2:
            raise BadInputError(f"a Gaussian needs at least 2 good images, got {self._count}; add images")
        mean = self._sum / self._count
        self._mean = (self._origin + mean).float()
        self._whitening = torch.empty(self._products.shape, device=mean.device)
        identity = torch.eye(mean.shape[1], dtype=mean.dtype, device=mean.device)
        for part in _parts(len(mean)):
            covariance = self._products[part] / self._count - mean[part, :, None] * mean[part, None, :]
            covariance *= self._count / (self._count - 1)
            factor = torch.linalg.cholesky(covariance + SHRINKAGE * identity)
            # Substitution, because the batched inverse is wrong or raises in some builds of MKL.
            self._whitening[part] = torch.linalg.solve_triangular(
                factor, identity.expand_as(factor), upper=False
            ).float()
        return self

    def distances(self, features: Tensor) -> Tensor:
        """As in `Density`."""
        centred = self._rows(features) - self._mean[:, None, :]
        distances = (centred @ self._whitening.transpose(1, 2)).norm(dim=2)
        maps: Tensor = distances.T.reshape(features.shape[0], *features.shape[2:])
        return maps

    def state(self) -> dict[str, Tensor]:
        """As in `Density`."""
        return {"chosen": self._chosen, "mean": self._mean, "whitening": self._whitening}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As in `Density`."""
        self._chosen, self._mean, self._whitening = state["chosen"], state["mean"], state["whitening"]

    def _rows(self, features: Tensor) -> Tensor:
        """[h * w, B, kept] float32."""
        averaged = functional.avg_pool2d(features[:, self._chosen].float(), 3, 1, 1, count_include_pad=False)
        return averaged.flatten(2).permute(2, 0, 1)


def _parts(places: int) -> Iterator[slice]:
    for start in range(0, places, _AT_ONCE):
        yield slice(start, start + _AT_ONCE)
