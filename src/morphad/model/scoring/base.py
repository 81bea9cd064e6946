"""From a trained network to a score and a map for each image: what both ways to do it have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from morphad.base.errors import BadInputError
from morphad.model.network import MorphologyNetwork

BATCH = 16  # images a forward pass
FOLDS = 5  # image i is in fold i % FOLDS
UNSEEN = 10  # images that set scales and weights, at least
Report = Callable[[int], object]  # gets how many more images are done


@dataclass(frozen=True)
class Scored:
    """A batch of scored images.

    Attributes:
        scores: [B] float64, higher for more abnormal.
        maps: [B, H, W] float32 at the network's input size, higher for more abnormal.
    """

    scores: Tensor
    maps: Tensor


@dataclass(frozen=True)
class Closer:
    """Good images at the size at which a scorer sees them closer: too large to be kept.

    Attributes:
        count: How many there are.
        read: Gives them anew each time, [C, H, W] uint8.
        report: As in `Scorer.fit`.
    """

    count: int
    read: Callable[[], Iterable[Tensor]]
    report: Report


class Scorer(ABC):
    """A way to score images with a trained network, all of them at the network's input size.

    Args:
        dtype: What the network's forward passes are computed in; None for float32. All else is float32.
        inside: bool [H, W] at the network's input size, true where the image is inspected: other places count
            nowhere. None: everywhere.

    Attributes:
        closer: Height and width, px, at which it sees each image once more; None: it does not.
    """

    MIN_IMAGES: ClassVar[int]
    closer: tuple[int, int] | None = None

    def __init__(self, dtype: torch.dtype | None, inside: Tensor | None = None) -> None:
        self._dtype = dtype
        self._inside = inside

    def check_count(self, count: int) -> None:
        """Refuse too few good training images.

        Raises:
            BadInputError: There are fewer than `MIN_IMAGES`.
        """
        if count < self.MIN_IMAGES:
            raise BadInputError(
                f"this score (train.score.kind) needs at least {self.MIN_IMAGES} good training images, got {count}; "
                "add images to the line"
            )

    @abstractmethod
    def fit(self, network: MorphologyNetwork, images: Tensor, report: Report, closer: Closer | None = None) -> Self:
        """Learn good images [N, C, H, W] uint8; `report` gets how many more are done.

        `closer` is there where the scorer has such a size.

        Raises:
            BadInputError: Too few images.
        """

    def rehearse(self, network: MorphologyNetwork, images: Tensor) -> None:
        """Learn images only so far that `score` does all its work: how long that takes can then be measured."""
        self.fit(network, images, lambda _: None)

    @abstractmethod
    def score(self, network: MorphologyNetwork, images: Tensor, closer: Sequence[Tensor] = ()) -> Scored:
        """Score images [B, C, H, W] uint8; `closer` are the same [C, H, W] at that size, where the scorer has one."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Tensors for `load_state`."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave."""

    def _counting(self, maps: Tensor) -> Tensor:
        """Values [..., P] of those places of maps [..., h, w], of any size, that count: P <= h * w, in rows."""
        values = maps.flatten(-2)
        inside = self._inside_grid(maps)
        return values if inside is None else values[..., inside.flatten()]

    def _inside_grid(self, maps: Tensor) -> Tensor | None:
        """`inside` on the grid of maps [..., h, w]; a place that shows anything inspected counts."""
        return None if self._inside is None else shrunk_mask(self._inside, *maps.shape[-2:]).to(maps.device)


def held_out_folds(count: int) -> range:
    """Which folds of so many images are held out in turn, to be judged by what was learned from the others.

    The last fold, where it has `UNSEEN` images; else several, the last one last.
    """
    return range(max(0, FOLDS - -(-UNSEEN // max(1, count // FOLDS))), FOLDS)


def unreported(count: int) -> None:
    """What is done again is not counted."""


def shrunk_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask bool [H, W] on a grid of another size: true wherever a place shares a pixel with it."""
    if mask.shape == (height, width):
        return mask
    return functional.adaptive_max_pool2d(mask[None].float(), (height, width))[0] > 0


def forward_pass(images: Tensor, dtype: torch.dtype | None) -> torch.autocast:
    """The context for a forward pass of images, in a precision; None: float32."""
    return torch.autocast(images.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
