"""Principal components of whole images: DFM's density."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from morphad.base.errors import BadInputError
from morphad.model.scoring.density import Density, UniformSample


class SubspaceDensity(Density):
    """What is left of an image without the principal components of whole good images, cell by cell.

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
        self._images = UniformSample(self.SAMPLE, seed)
        self._mean = self._components = torch.empty(0)

    def update(self, features: Tensor, inside: Tensor | None = None) -> None:
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


def _cells(features: Tensor, count: int) -> Tensor:
    """[B, C, h, w] averaged over at most count x count cells, float32."""
    return functional.adaptive_avg_pool2d(
        features.float(), (min(count, features.shape[2]), min(count, features.shape[3]))
    )
