"""A memory bank of good patches: PatchCore's density, after whitening."""

from collections.abc import Mapping

import torch
from torch import Tensor

from morphad.base.errors import BadInputError
from morphad.model.scoring.density import SHRINKAGE, Density, UniformSample
from morphad.settings import ScoreSettings

_AT_ONCE = 512  # places whose distances from the whole memory are there at a time


class MemoryDensity(Density):
    """Distance to the nearest of a memory of good patches from anywhere in the image, chosen by coverage.

    Strong where parts are not aligned. After PatchCore (Roth et al., 2022): the memory is a greedy k-centre choice
    (Gonzalez, 1985), here from a uniform sample of bounded size. Distances are those after whitening with the patches'
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
        self._candidates = UniformSample(size * self.CANDIDATES_PER_PATCH, seed)
        self._memory = self._mean = self._whitening = torch.empty(0)

    def update(self, features: Tensor, inside: Tensor | None = None) -> None:
        """As in `Density`."""
        places = _places(features)
        self._candidates.add((places if inside is None else places[:, inside.flatten()]).flatten(0, 1))

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
        # Contiguous, as it is read from a file: else the last digit of its products is another one.
        self._whitening = (vectors * (values.clamp_min(0) + SHRINKAGE).rsqrt()).float().contiguous()
        whitened = self._whitened(pool)
        self._memory = whitened[_greedy_centres(self._projected(whitened), self._size)].clone()
        return self

    def distances(self, features: Tensor) -> Tensor:
        """As in `Density`."""
        norms, nearest = self._memory.square().sum(1), []
        for rows in torch.split(self._whitened(_places(features).flatten(0, 1)), _AT_ONCE):
            squared = torch.addmm(norms, rows, self._memory.T, alpha=-2)  # but for the rows' own norms
            smallest = (
                squared.amin(1, keepdim=True)
                if self._neighbours == 1
                else squared.topk(self._neighbours, dim=1, largest=False).values
            )
            nearest.append((smallest + rows.square().sum(1, keepdim=True)).clamp_min(0).sqrt().mean(1))
        maps: Tensor = torch.cat(nearest).reshape(features.shape[0], *features.shape[2:])
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


def sharp_and_steady(settings: ScoreSettings, seed: int) -> list[MemoryDensity]:
    """The two memories of a score: of features as they are, and averaged over neighbours."""
    return [
        MemoryDensity(settings.memory, settings.neighbours, seed, neighbourhoods=averaged) for averaged in (False, True)
    ]


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
