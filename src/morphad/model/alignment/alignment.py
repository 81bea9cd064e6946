"""What is learned of where the part lies: a reference that pictures are brought into line with, or refused."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from morphad.base.errors import BadInputError
from morphad.model.alignment.registration import LEAST_SIDE, Kind, Match, Reference, seen_through
from morphad.model.alignment.warp import Warp

_SIDE = 256  # px, the longer side at which pictures are compared
_KEPT = 64  # pictures that it is learned from, of all those there are
_CANDIDATES, _JURY = 5, 8  # pictures that may be the first reference, and those that they are held against
_HELD_OUT = 5  # one picture in so many says how well good ones agree with a reference that they are no part of
_SHARE = 0.7  # of the median agreement of good pictures that a part must reach, and
_LEAST = 0.3  # the agreement below which nothing is a part
_SEEN = 0.5  # share of the reference's contrast that must lie within the picture
_SCALES = 0.75, 1.33
MOST_LOST = 0.1  # share of good training pictures without the part above which there is no training


class Alignment:
    """Brings the parts of pictures into line.

    Args:
        kind: What is made good: shifts, by whole pixels, or turns and scales, too.
        size: Height and width of the pictures, px.
        reference: Grey [h, w] float32, the mean of good pictures in line, its longer side at most 256 px.
        bound: The correlation with the reference from which on a part is found.
    """

    STATE = ("reference", "size", "bound")  # the names of its tensors

    def __init__(self, kind: Kind, size: tuple[int, int], reference: Tensor, bound: float) -> None:
        self.kind = kind
        self.size = size
        self.bound = bound
        self._reference = Reference(reference, kind)

    @staticmethod
    def learned(
        images: Iterable[NDArray[np.uint8]], kind: Kind, anchor: NDArray[np.uint8] | None = None
    ) -> "Alignment":
        """Learn from good pictures, without labels.

        The one that agrees best with others is the first reference; then all are brought into line with it, and their
        mean is the next. Those held out set the bound: 70 % of their median correlation, and 0.3 at least.

        Args:
            images: Good pictures of one size; a sample of at most 64 counts.
            kind: As above.
            anchor: The picture whose part is in its place; None: the place is the middle one of all.

        Raises:
            BadInputError: Pictures are of several sizes, or too small.
        """
        sample, size = _sample(images)
        if min(sample[0].shape) < LEAST_SIDE:
            raise BadInputError(
                f"train.align = {kind}: pictures of {size[0]} x {size[1]} px (height x width) are too small or too "
                "long to say where their part lies; set it to none"
            )
        if anchor is not None and anchor.shape[:2] != size:
            raise BadInputError(f"the picture that the region was drawn over {other_size(anchor.shape[:2], size)}")
        held_out = [image for i, image in enumerate(sample) if i % _HELD_OUT == _HELD_OUT - 1] or sample
        shown = [image for i, image in enumerate(sample) if i % _HELD_OUT != _HELD_OUT - 1]
        mean = shown[_most_alike(shown, kind)] if anchor is None else _small(anchor)
        for number in range(2):
            reference = Reference(mean, kind)
            matches = [reference.match(image) for image in shown]
            good = [(image, match) for image, match in zip(shown, matches, strict=True) if _possible(match, _LEAST)]
            if len(good) < 2:
                break
            middle = _middle([match.warp for _, match in good], mean) if anchor is None and number == 0 else Warp()
            mean = _mean([(image, match.warp.after(middle)) for image, match in good])
        reference = Reference(mean, kind)
        agreement = median(match.correlation for match in map(reference.match, held_out))
        return Alignment(kind, size, mean, max(_LEAST, _SHARE * agreement))

    def refusal(self, height: int, width: int) -> str:
        """Why a picture of this size is refused, without its name; "" for one that fits."""
        return other_size((height, width), self.size)

    def find(self, image: NDArray[np.uint8]) -> Warp | str:
        """From the places of the reference to those of a picture, px, or why its part is not found."""
        match = self._reference.match(_small(image))
        if not _possible(match, self.bound):
            return (
                f"part not found: agrees with the good ones by {max(0.0, match.correlation):.2f}, "
                f"{self.bound:.2f} are needed"
                if match.correlation < self.bound
                else "part not found: it lies too far out of its place"
            )
        warp = match.warp.zoomed(_factor(self.size))
        if self.kind == "shift":
            warp = Warp(1, 0, round(warp.x), round(warp.y))
        height, width = self.size
        x, y = warp.at((width - 1) / 2, (height - 1) / 2)
        if abs(x - (width - 1) / 2) > width / 2 or abs(y - (height - 1) / 2) > height / 2:
            return "part not found: it lies too far out of its place"
        return warp

    def state(self) -> dict[str, Tensor]:
        """Tensors for `restored`."""
        return {
            "reference": self._reference.pixels,
            "size": torch.tensor(self.size),
            "bound": torch.tensor(self.bound, dtype=torch.float64),
        }

    @staticmethod
    def restored(kind: Kind, state: Mapping[str, Tensor]) -> "Alignment":
        """What `state` gave."""
        height, width = state["size"].tolist()
        return Alignment(kind, (height, width), state["reference"].cpu(), float(state["bound"]))


def most_alike(images: Iterable[NDArray[np.uint8]], kind: Kind) -> int:
    """Which of some pictures, 64 at most, agrees best with others."""
    return _most_alike([_small(image) for image in images], kind)


def _possible(match: Match, bound: float) -> bool:
    return match.correlation >= bound and match.overlap >= _SEEN and _SCALES[0] <= match.warp.scale <= _SCALES[1]


def _sample(images: Iterable[NDArray[np.uint8]]) -> tuple[list[Tensor], tuple[int, int]]:
    """Small pictures spread over all, and the size of all."""
    kept: list[Tensor] = []
    size, every = (0, 0), 1
    for number, image in enumerate(images):
        if not number:
            size = image.shape[:2]
        if image.shape[:2] != size:
            raise BadInputError(f"good picture {number + 1} of the training {other_size(image.shape[:2], size)}")
        if number % every == 0:
            kept.append(_small(image))
        if len(kept) == 2 * _KEPT:
            kept, every = kept[::2], 2 * every
    return kept[:: -(-len(kept) // _KEPT) or 1], size


def other_size(found: tuple[int, ...], size: tuple[int, int]) -> str:
    """Why a picture of a size is refused where those of the training have another, without its name; "" for theirs."""
    return (
        ""
        if found == size
        else (
            f"is {found[0]} x {found[1]} px, but train.align was learned on pictures of {size[0]} x {size[1]} px "
            "(height x width); leave such pictures out, or make a line of their own for them"
        )
    )


def _most_alike(images: Sequence[Tensor], kind: Kind) -> int:
    if len(images) == 1:
        return 0
    everyone = range(len(images))
    candidates, jury = everyone[:: -(-len(images) // _CANDIDATES)], everyone[:: -(-len(images) // _JURY)]

    def agreement(candidate: int) -> float:
        reference = Reference(images[candidate], kind)
        return median(reference.match(images[other]).correlation for other in jury if other != candidate)

    return max(candidates, key=agreement)


def _middle(warps: Sequence[Warp], like: Tensor) -> Warp:
    """The shift to where parts lie mostly."""
    y, x = ((side - 1) / 2 for side in like.shape)
    moved = [warp.at(x, y) for warp in warps]
    return Warp(1, 0, median(at[0] for at in moved) - x, median(at[1] for at in moved) - y)


def _mean(images: Sequence[tuple[Tensor, Warp]]) -> Tensor:
    """The mean of pictures seen through their warps, of what each shows."""
    total = count = torch.zeros_like(images[0][0])
    for image, warp in images:
        (seen,), inside = seen_through(image[None], warp, *image.shape)
        total, count = total + seen * inside, count + inside
    everywhere = total.sum() / count.sum()
    return torch.where(count > 0, total / count.clamp_min(1), everywhere)


def _factor(size: tuple[int, int]) -> float:
    return max(1.0, max(size) / _SIDE)


def _small(image: NDArray[np.uint8]) -> Tensor:
    """Grey [h, w] float32, shrunk in both directions by one factor; what is left over of a pixel is cut off."""
    height, width = image.shape[:2]
    factor = _factor((height, width))
    size = max(1, int(width / factor)), max(1, int(height / factor))
    box = (0, 0, min(width, size[0] * factor), min(height, size[1] * factor))
    grey = Image.fromarray(image).convert("L").resize(size, Image.Resampling.BOX, box)
    return torch.from_numpy(np.array(grey, np.float32))
