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


def with_anomalies(images: Tensor, seed: int, inside: Tensor | None = None) -> Tensor:
    """Copies of good images, each with one elliptic region changed.

    Args:
        images: [B, C, H, W] uint8, at least 32 px a side; B images to change and to copy from.
        seed: Of place, size and kind; the sides of a region are 1/28 to 1/7 of the image's.
        inside: bool [H, W], where images are inspected: a region lies around one of these places and changes no other.
            None: everywhere.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    changed = images.clone()
    rows, columns = images.shape[-2:]
    inspected = None if inside is None else inside.cpu().nonzero()

    def draw_place(height: int, width: int) -> tuple[int, int]:
        """Top and left of a rectangle."""
        if inspected is None:
            return draw(0, rows - height), draw(0, columns - width)
        y, x = inspected[draw(0, len(inspected))].tolist()
        return min(max(0, y - height // 2), rows - height), min(max(0, x - width // 2), columns - width)

    for image in range(len(images)):
        height = draw(max(2, rows // 28), max(3, rows // 7))
        width = draw(max(2, columns // 28), max(3, columns // 7))
        top, left = draw_place(height, width)
        if draw(0, 2):
            donor = transform(images[image : image + 1], _OPERATORS[draw(0, len(_OPERATORS))])[0]
            source = donor[:, top : top + height, left : left + width]
        else:
            y, x = draw_place(height, width)
            source = images[draw(0, len(images)), :, y : y + height, x : x + width]
        region = changed[image, :, top : top + height, left : left + width]
        touched = _ellipse(height, width)
        if inside is not None:
            touched &= inside[top : top + height, left : left + width].cpu()
        region.copy_(torch.where(touched.to(images.device), source, region))
    return changed


def _ellipse(height: int, width: int) -> Tensor:
    """bool [height, width], true inside the inscribed ellipse."""
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    return y[:, None].square() + x[None, :].square() <= 1
