"""From a picture to what the network sees of it."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from morphad.base.errors import BadInputError
from morphad.model.region import region_of
from morphad.model.scoring.base import shrunk_mask
from morphad.settings import RegionSettings, TrainSettings

_STRIP = 32  # rows that are turned to grey at a time; larger blocks stay with the allocator


def prepare(image: NDArray[np.uint8], settings: TrainSettings, *sizes: tuple[int, int]) -> list[Tensor]:
    """An image [H, W] or [H, W, 3] as the network needs it, at each size: uint8 [C, h, w], C = 3 or, for grey, 1.

    What is not inspected goes first, at full resolution: neither resizing nor anything else sees it.

    Raises:
        BadInputError: It is no such image, or not of the size that the region was drawn on.
    """
    check_picture(image)
    if settings.region is not None:
        region = region_of(settings.region)
        if reason := region.refusal(*image.shape[:2]):
            raise BadInputError(f"an image {reason}")
        image = region.cut(image)
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    tensor = tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    if settings.colour == "grey" and tensor.shape[0] == 3:
        grey = tensor.new_empty((1, *tensor.shape[1:]))
        for top in range(0, tensor.shape[1], _STRIP):  # as the arithmetic is in float: four times the picture's bytes
            grey[:, top : top + _STRIP] = transforms.rgb_to_grayscale(tensor[:, top : top + _STRIP])
        tensor = grey
    channels = 1 if settings.colour == "grey" else 3
    return [
        transforms.resize(tensor, list(size), antialias=True).expand(channels, -1, -1).contiguous() for size in sizes
    ]


def check_picture(image: NDArray[np.uint8]) -> None:
    """Refuse what is no image uint8 [H, W] or [H, W, 3].

    Raises:
        BadInputError: It is none.
    """
    if image.dtype != np.uint8 or not image.size or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise BadInputError(f"expected an image uint8 [H, W] or [H, W, 3], got {image.dtype} {image.shape}")


def inspected(settings: TrainSettings, size: tuple[int, int]) -> Tensor | None:
    """bool [h, w] at a size, px: which places show something that is inspected; None: all."""
    return None if settings.region is None else _shrunk(settings.region, size)


def inspected_places(maps: Tensor, settings: TrainSettings) -> Tensor:
    """Values [..., P] of the inspected places of maps [..., H, W]."""
    values, inside = maps.flatten(-2), inspected(settings, (maps.shape[-2], maps.shape[-1]))
    return values if inside is None else values[..., inside.flatten().to(maps.device)]


@lru_cache(maxsize=4)
def _shrunk(settings: RegionSettings, size: tuple[int, int]) -> Tensor:
    region = region_of(settings)
    return shrunk_mask(torch.from_numpy(region.inside[region.box].copy()), *size)
