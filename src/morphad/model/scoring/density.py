"""What every density of patch features has in common: a distance from good patches, fitted in one pass.

`update` is called with the features of good images, batch by batch; `finish` then fixes the density. Memory does not
grow with the number of images.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

SHRINKAGE = 0.01  # added to the variance of every channel, so that one that never varies does not decide alone


class Density(ABC):
    """A distance from good patches, larger for more abnormal.

    Attributes:
        neighbourhoods: Whether layers coarser than the grid are to be averaged over neighbouring places beforehand.
    """

    neighbourhoods = False

    @abstractmethod
    def update(self, features: Tensor, inside: Tensor | None = None) -> None:
        """Add features [B, C, h, w] of good images.

        Args:
            features: Of the images.
            inside: bool [h, w], the places that count; None: all. What lies elsewhere is painted over and alike in
                every image: only a density that pools all places has to leave it out.
        """

    @abstractmethod
    def finish(self) -> "Density":
        """Fix the density from all that was added so far; more may be added afterwards and `finish` called again.

        Raises:
            BadInputError: Too little was added.
        """

    @abstractmethod
    def distances(self, features: Tensor) -> Tensor:
        """Distances [B, h, w] >= 0 of features [B, C, h, w], float32."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What `load_state` needs to give the same distances."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave."""


class UniformSample:
    """A uniform sample of all rows [N, D] that were added, `size` at most, in one pass.

    Args:
        size: Rows kept.
        seed: Of the random keys: a row stays if its key is among the smallest.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._generator = torch.Generator().manual_seed(seed)
        self._parts: list[tuple[Tensor, Tensor]] = []  # rows [n, D] and keys [n]
        self._count = 0

    def add(self, rows: Tensor) -> None:
        """Add rows."""
        self._parts.append((rows.clone(), torch.rand(len(rows), generator=self._generator).to(rows.device)))
        self._count += len(rows)
        if self._count > 2 * self._size:  # not every time: moving the rows is slow
            self._thin()

    def rows(self) -> Tensor:
        """The sample of what was added so far; more may be added afterwards."""
        self._thin()
        return self._parts[0][0] if self._parts else torch.empty(0)

    def _thin(self) -> None:
        if not self._parts:
            return
        rows, keys = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        if len(keys) > self._size:
            keys, kept = keys.topk(self._size, largest=False)
            rows = rows[kept]
        self._parts, self._count = [(rows, keys)], len(keys)
