"""How far patch features lie from those of good images: three densities with one face, all fitted in one pass.

`update` is called with the features of good images, batch by batch; `finish` then fixes the density. Memory does not
grow with the number of images.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from morphad.base.errors import BadInputError

SHRINKAGE = 0.01  # added to the variance of every channel, so that one that never varies does not decide alone


class Density(ABC):
    """A distance from good patches, larger for more abnormal.

    Attributes:
        neighbourhoods: Whether layers coarser than the grid are to be averaged over neighbouring places beforehand.
    """

    neighbourhoods = False

    @abstractmethod
    def update(self, features: Tensor) -> None:
        """Take in features [B, C, h, w] of good images."""

    @abstractmethod
    def finish(self) -> "Density":
        """Fix the density from all that was taken in so far; more may be taken in afterwards and `finish` called again.

        Raises:
            BadInputError: Too little was taken in.
        """

    @abstractmethod
    def distances(self, features: Tensor) -> Tensor:
        """Distances [B, h, w] >= 0 of features [B, C, h, w], float32."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What `load_state` needs to give the same distances."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""


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

    def update(self, features: Tensor) -> None:
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
        self._products += rows.transpose(1, 2) @ rows

    def finish(self) -> "GaussianDensity":
        """As in `Density`."""
        if self._count < 2:
            raise BadInputError(f"a Gaussian needs at least 2 good images, got {self._count}; add images")
        mean = self._sum / self._count
        covariance = self._products / self._count - mean[:, :, None] * mean[:, None, :]
        covariance *= self._count / (self._count - 1)
        identity = torch.eye(mean.shape[1], dtype=mean.dtype, device=mean.device)
        factor = torch.linalg.cholesky(covariance + SHRINKAGE * identity)
        # Substitution, because the batched inverse is wrong or raises in some builds of MKL.
        whitening = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
        self._mean, self._whitening = (self._origin + mean).float(), whitening.float()
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


class MemoryDensity(Density):
    """Distance to the nearest of a memory of good patches from anywhere in the image, chosen by coverage.

    Strong where parts are not aligned. After PatchCore (Roth et al., 2022): the memory is a greedy k-centre choice
    (Gonzalez, 1985), here from a uniform sample of bounded size. Distances are taken after whitening with the patches'
    own covariance, so that a change counts by how unusual it is and not by how loud its channel is.

    Args:
        size: Patches kept.
        neighbours: Nearest patches whose distances are averaged.
        seed: Of the sample and the projection.
        neighbourhoods: As in `Density`.
    """

    CANDIDATES_PER_PATCH = 60  # fewer, and rare good patches are missing from the choice
    PROJECTED = 64

    def __init__(self, size: int, neighbours: int, seed: int, *, neighbourhoods: bool = False) -> None:
        self.neighbourhoods = neighbourhoods
        self._size = size
        self._neighbours = neighbours
        self._seed = seed
        self._candidates = _UniformSample(size * self.CANDIDATES_PER_PATCH, seed)
        self._memory = self._mean = self._whitening = torch.empty(0)

    def update(self, features: Tensor) -> None:
        """As in `Density`."""
        self._candidates.add(_places(features).flatten(0, 1))

    def finish(self) -> "MemoryDensity":
        """As in `Density`."""
        pool = self._candidates.rows()
        if min(len(pool), self._size) < self._neighbours or len(pool) < 2:
            raise BadInputError(
                f"a memory of {self._size} patches for {self._neighbours} neighbours needs as many and at least 2, got "
                f"{len(pool)}; add images or lower train.score.neighbours"
            )
        rows = pool.double()
        covariance = torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])
        values, vectors = torch.linalg.eigh(covariance)
        self._mean = rows.mean(0).float()
        self._whitening = (vectors * (values.clamp_min(0) + SHRINKAGE).rsqrt()).float()
        whitened = self._whitened(pool)
        self._memory = whitened[_greedy_centres(self._projected(whitened), self._size)].clone()
        return self

    def distances(self, features: Tensor) -> Tensor:
        """As in `Density`."""
        norms = self._memory.square().sum(1)
        nearest = []
        for image in self._whitened(_places(features)):  # one at a time: its [h * w, size] distances are the peak
            squared = image.square().sum(1, keepdim=True) + norms - 2 * image @ self._memory.T
            smallest = (
                squared.amin(1, keepdim=True)
                if self._neighbours == 1
                else squared.topk(self._neighbours, dim=1, largest=False).values
            )
            nearest.append(smallest.clamp_min(0).sqrt().mean(1))
        maps: Tensor = torch.stack(nearest).reshape(features.shape[0], *features.shape[2:])
        return maps

    def state(self) -> dict[str, Tensor]:
        """As in `Density`."""
        return {"memory": self._memory, "mean": self._mean, "whitening": self._whitening}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As in `Density`."""
        self._memory, self._mean, self._whitening = state["memory"], state["mean"], state["whitening"]

    def _whitened(self, rows: Tensor) -> Tensor:
        return (rows - self._mean) @ self._whitening

    def _projected(self, rows: Tensor) -> Tensor:
        """Rows in fewer dimensions, distances kept nearly (Johnson and Lindenstrauss): only the choice uses them."""
        if rows.shape[1] <= self.PROJECTED:
            return rows
        generator = torch.Generator().manual_seed(self._seed)
        projection = torch.randn(rows.shape[1], self.PROJECTED, generator=generator) / self.PROJECTED**0.5
        projected: Tensor = rows @ projection.to(rows.device)
        return projected


class SubspaceDensity(Density):
    """What the principal components of whole good images leave over, cell by cell.

    An image is its features averaged over CELLS x CELLS cells, all in one long row: the components know what goes with
    what over the whole picture, such as light that falls from one side, and what they cannot rebuild is a defect. After
    DFM (Ahuja et al., 2019). Strong where parts are aligned and defects are wide or change many places together.

    Args:
        seed: Of the sample of images that the components are from.
    """

    CELLS = 7
    VARIANCE = 0.97  # that the components explain, as in DFM
    SAMPLE = 2000  # good images at most

    def __init__(self, seed: int) -> None:
        self._images = _UniformSample(self.SAMPLE, seed)
        self._mean = self._components = torch.empty(0)

    def update(self, features: Tensor) -> None:
        """As in `Density`."""
        self._images.add(_cells(features, self.CELLS).flatten(1))

    def finish(self) -> "SubspaceDensity":
        """As in `Density`."""
        rows = self._images.rows()
        if len(rows) < 2:
            raise BadInputError(f"a subspace needs at least 2 good images, got {len(rows)}; add images")
        self._mean = rows.mean(0)
        centred = (rows - self._mean).double()
        # There are fewer images than values, so the components come from the images' products with each other.
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        total = float(values.sum())
        count = int((values.cumsum(0) < self.VARIANCE * total).sum()) + 1 if total > 0 else 0
        self._components = ((centred.T @ vectors[:, :count]) / values[:count].sqrt()).T.float().contiguous()
        return self

    def distances(self, features: Tensor) -> Tensor:
        """As in `Density`."""
        cells = _cells(features, self.CELLS)
        centred = cells.flatten(1) - self._mean
        left = centred - (centred @ self._components.T) @ self._components
        norms = left.reshape(cells.shape).norm(dim=1, keepdim=True)
        maps: Tensor = functional.interpolate(norms, features.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        return maps

    def state(self) -> dict[str, Tensor]:
        """As in `Density`."""
        return {"mean": self._mean, "components": self._components}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As in `Density`."""
        self._mean, self._components = state["mean"], state["components"]


class _UniformSample:
    """A uniform sample of all rows [N, D] that were added, `size` at most, in one pass.

    Args:
        size: Rows kept.
        seed: Of the random keys: a row stays if its key is among the smallest.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._generator = torch.Generator().manual_seed(seed)
        self._rows = self._keys = torch.empty(0)

    def add(self, rows: Tensor) -> None:
        """Take in rows."""
        keys = torch.rand(len(rows), generator=self._generator).to(rows.device)
        if self._rows.numel():
            rows, keys = torch.cat([self._rows, rows]), torch.cat([self._keys, keys])
        self._rows, self._keys = rows, keys
        if len(keys) > 2 * self._size:  # not every time: moving the rows takes long
            self._thin()

    def rows(self) -> Tensor:
        """The sample of what was added so far; more may be added afterwards."""
        self._thin()
        return self._rows

    def _thin(self) -> None:
        if len(self._keys) > self._size:
            self._keys, kept = self._keys.topk(self._size, largest=False)
            self._rows = self._rows[kept]


def _cells(features: Tensor, count: int) -> Tensor:
    """[B, C, h, w] averaged over at most count x count cells, float32."""
    return functional.adaptive_avg_pool2d(
        features.float(), (min(count, features.shape[2]), min(count, features.shape[3]))
    )


def _places(features: Tensor) -> Tensor:
    """[B, C, h, w] as rows [B, h * w, C] float32."""
    return features.float().flatten(2).transpose(1, 2)


def _greedy_centres(rows: Tensor, count: int) -> Tensor:
    """Indices of `count` rows, each the farthest from those chosen before; the first is the farthest from the mean."""
    count = min(count, len(rows))
    norms = rows.square().sum(1)
    chosen = torch.empty(count, dtype=torch.long, device=rows.device)
    chosen[0] = (rows - rows.mean(0)).square().sum(1).argmax()
    gaps = torch.full_like(norms, torch.inf)
    for i in range(count - 1):
        centre = chosen[i]
        gaps = torch.minimum(gaps, norms + norms[centre] - 2 * (rows @ rows[centre]))
        chosen[i + 1] = gaps.argmax()
    return chosen
