"""From a picture to what the network sees of it, and from a map of that back to the picture.

First the part is put in its place, then the region is cut out, and only then the picture is resized.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from morphad.base.errors import BadInputError
from morphad.base.wording import exact_percent
from morphad.model.alignment.alignment import MOST_LOST, Alignment
from morphad.model.alignment.warp import Warp, fetched, put_back
from morphad.model.prepare import check_picture, prepare
from morphad.model.region import Region, region_of
from morphad.settings import TrainSettings

_ALIGN = "align."  # what the names of the alignment's tensors start with
_NAMED = 5  # pictures in a message


@dataclass(frozen=True)
class Framed:
    """A picture as the network needs it.

    Attributes:
        shown: uint8 [C, h, w] at each size.
        size: Height and width of the picture, px.
        lost: Why its part was not found, and it is rejected; "" where it was, or nobody looked for it.
    """

    shown: list[Tensor]
    size: tuple[int, int]
    lost: str
    _region: Region | None
    _warp: Warp | None

    def heatmap(self, values: Tensor, foot: float) -> NDArray[np.float32]:
        """A map [h, w] of what was shown as one [H, W] of the picture.

        What is not inspected gets the lowest value: `foot`, or that of an inspected place below it. So does all of a
        picture whose part was not found.
        """
        if self.lost:
            return np.full(self.size, foot if isfinite(foot) else 0.0, np.float32)
        size = self.size if self._region is None else self._region.box_size
        full = functional.interpolate(values[None, None].float(), size=size, mode="bilinear", align_corners=False)
        heatmap: NDArray[np.float32] = full[0, 0].cpu().numpy()
        if self._region is not None:
            heatmap = self._region.put_back(heatmap, foot)
        return heatmap if self._warp is None else put_back(heatmap, self._warp, min(foot, float(heatmap.min())))

    @property
    def inspected(self) -> NDArray[np.bool_] | None:
        """bool [H, W], which pixels of the picture are inspected; None: all."""
        if self._warp is None or self.lost:
            return None if self._region is None else self._region.inside
        inside = np.ones(self.size, bool) if self._region is None else self._region.inside
        return put_back(inside.astype(np.float32), self._warp, 0.0) > 0.5


class Framing:
    """What of a picture is shown to the network.

    Args:
        settings: Of the training.
        alignment: Where parts belong; None: pictures stay as they are.
    """

    def __init__(self, settings: TrainSettings, alignment: Alignment | None) -> None:
        self.settings = settings
        self.alignment = alignment
        self.region = None if settings.region is None else region_of(settings.region)

    @staticmethod
    def learned(
        settings: TrainSettings, images: Iterable[NDArray[np.uint8]], anchor: NDArray[np.uint8] | None = None
    ) -> "Framing":
        """Learn from good images what the settings ask for; see `Alignment.learned`."""
        kind = settings.align
        return Framing(settings, None if kind == "none" else Alignment.learned(images, kind, anchor))

    @staticmethod
    def restored(settings: TrainSettings, tensors: dict[str, Tensor]) -> "Framing":
        """What `state` gave; its tensors are removed from the others."""
        if settings.align == "none":
            return Framing(settings, None)
        state = {name: tensors.pop(_ALIGN + name) for name in Alignment.STATE}
        return Framing(settings, Alignment.restored(settings.align, state))

    def state(self) -> dict[str, Tensor]:
        """Tensors for `restored`, under names of their own."""
        state = {} if self.alignment is None else self.alignment.state()
        return {_ALIGN + name: tensor for name, tensor in state.items()}

    def refusal(self, height: int, width: int) -> str:
        """Why a picture of this size is not for it, without its name; "" for one that is."""
        refusals = (of.refusal(height, width) for of in (self.region, self.alignment) if of is not None)
        return next(filter(None, refusals), "")

    def framed(self, image: NDArray[np.uint8], *sizes: tuple[int, int]) -> Framed:
        """A picture uint8 [H, W] or [H, W, 3] at some sizes, px; see `prepare`.

        Raises:
            BadInputError: It is no such picture, or not of the size that region and alignment are for.
        """
        check_picture(image)
        size = image.shape[0], image.shape[1]
        if self.alignment is None:
            return Framed(prepare(image, self.settings, *sizes), size, "", self.region, None)
        if reason := self.refusal(*size):
            raise BadInputError(f"an image {reason}")
        warp = self.alignment.find(image)
        if isinstance(warp, str):
            return Framed(prepare(image, self.settings, *sizes), size, warp, self.region, None)
        return Framed(prepare(fetched(image, warp), self.settings, *sizes), size, "", self.region, warp)


def lost_among(framed: Sequence[Framed], names: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the training pictures whose part was not found; none: their numbers, from 1.

    Raises:
        BadInputError: They are more than a tenth of all.
    """
    lost = [(names[i] if names else f"image {i + 1}", one.lost) for i, one in enumerate(framed) if one.lost]
    if len(lost) > MOST_LOST * len(framed):
        some = "; ".join(f"{name}: {reason}" for name, reason in lost[:_NAMED])
        raise BadInputError(
            f"train.align: no part in {len(lost)} of {len(framed)} good training images, at most "
            f"{exact_percent(MOST_LOST)} may be so; {some}{'; ...' if len(lost) > _NAMED else ''}; take such images "
            "out, or set train.align to none or to another value"
        )
    return tuple(name for name, _ in lost)
