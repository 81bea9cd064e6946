"""Synthetic anomalies: good images with one small region changed, to judge scores without any label.

A region is either seen through a morphological operator of another place's size, as small cracks, pores and smears are,
or copied from elsewhere, as misplaced and foreign structure is (Li et al., CutPaste, CVPR 2021).
"""

import torch
from torch import Tensor

from morphad.model.morphology import Case, transform

_OPERATORS = tuple(
    Case(operator, *size)
    for operator in ("erosion", "dilation", "opening", "closing")
    for size in ((3, 3), (7, 7), (1, 9), (9, 1))
)


def with_anomalies(images: Tensor, seed: int) -> Tensor:
    """Copies of good images, each with one elliptic region changed.

    Args:
        images: [B, C, H, W] uint8, at least 32 px a side; B images to change and to copy from.
        seed: Of place, size and kind; the sides of a region are 1/28 to 1/7 of the image's.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    changed = images.clone()
    rows, columns = images.shape[-2:]
    for image in range(len(images)):
        height = draw(max(2, rows // 28), max(3, rows // 7))
        width = draw(max(2, columns // 28), max(3, columns // 7))
        top, left = draw(0, rows - height), draw(0, columns - width)
        if draw(0, 2):
            donor = transform(images[image : image + 1], _OPERATORS[draw(0, len(_OPERATORS))])[0]
            source = donor[:, top : top + height, left : left + width]
        else:
            y, x = draw(0, rows - height), draw(0, columns - width)
            source = images[draw(0, len(images)), :, y : y + height, x : x + width]
        region = changed[image, :, top : top + height, left : left + width]
        region.copy_(torch.where(_ellipse(height, width).to(images.device), source, region))
    return changed


def _ellipse(height: int, width: int) -> Tensor:
    """bool [height, width], true inside the inscribed ellipse."""
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    return y[:, None].square() + x[None, :].square() <= 1
