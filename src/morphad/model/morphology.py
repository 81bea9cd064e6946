"""Flat morphological operators on image batches, and the table of cases that the network learns to distinguish.

The structuring element of height h and width w is a flat rectangle. Erosion takes the minimum over rows
i - h // 2 .. i + (h - 1) // 2 (columns alike), dilation the maximum over the reflected rectangle: scipy.ndimage's
convention, with which opening and closing are idempotent for even sizes too. Beyond the border lies the neutral
element, so the border never shows the size of the element.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

import torch
from torch import Tensor

from morphad.base.errors import BadInputError
from morphad.settings import CaseSettings

IDENTITY = "identity"


def erode(x: Tensor, height: int, width: int) -> Tensor:
    """Minimum over a flat rectangle of height x width px; shapes and errors as in `transform`."""
    _check(x, height, width)
    return _extreme(
        _extreme(x, -2, height // 2, (height - 1) // 2, torch.minimum), -1, width // 2, (width - 1) // 2, torch.minimum
    )


def dilate(x: Tensor, height: int, width: int) -> Tensor:
    """Maximum over the reflected flat rectangle of height x width px; shapes and errors as in `transform`."""
    _check(x, height, width)
    return _extreme(
        _extreme(x, -2, (height - 1) // 2, height // 2, torch.maximum), -1, (width - 1) // 2, width // 2, torch.maximum
    )


def gradient(x: Tensor, height: int, width: int) -> Tensor:
    """Dilation minus erosion, never below 0; shapes and errors as in `transform`."""
    return dilate(x, height, width) - erode(x, height, width)


def opening(x: Tensor, height: int, width: int) -> Tensor:
    """Erosion, then dilation: removes what is bright and smaller; shapes and errors as in `transform`."""
    return dilate(erode(x, height, width), height, width)


def closing(x: Tensor, height: int, width: int) -> Tensor:
    """Dilation, then erosion: fills what is dark and smaller; shapes and errors as in `transform`."""
    return erode(dilate(x, height, width), height, width)


def white_tophat(x: Tensor, height: int, width: int) -> Tensor:
    """Image minus opening: what is bright and smaller, never below 0; shapes and errors as in `transform`."""
    return x - opening(x, height, width)


def black_tophat(x: Tensor, height: int, width: int) -> Tensor:
    """Closing minus image: what is dark and smaller, never below 0; shapes and errors as in `transform`."""
    return closing(x, height, width) - x


OPERATORS: MappingProxyType[str, Callable[[Tensor, int, int], Tensor]] = MappingProxyType(
    {
        "erosion": erode,
        "dilation": dilate,
        "gradient": gradient,
        "opening": opening,
        "closing": closing,
        "white_tophat": white_tophat,
        "black_tophat": black_tophat,
    }
)
# With an element of one pixel these give a black image, the others the image itself.
_DIFFERENCES = frozenset({"gradient", "white_tophat", "black_tophat"})
_NAME = re.compile(r"([a-z_]+)_([1-9][0-9]*)x([1-9][0-9]*)", re.ASCII)


@dataclass(frozen=True)
class Case:
    """An operator with its structuring-element size; "identity" leaves an image as it is.

    Attributes:
        operator: A key of OPERATORS, or "identity".
        height: Of the structuring element, px.
        width: Of the structuring element, px.
    """

    operator: str
    height: int = 1
    width: int = 1

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS and self.operator != IDENTITY:
            raise BadInputError(f"unknown operator {self.operator!r}; allowed: {IDENTITY}, {', '.join(OPERATORS)}")
        if self.height < 1 or self.width < 1 or (self.operator == IDENTITY and (self.height, self.width) != (1, 1)):
            raise BadInputError(
                f"{self.operator} of {self.height} x {self.width} px: expected sizes >= 1, identity 1 x 1"
            )

    @property
    def name(self) -> str:
        """Such as "erosion_3x5" or "identity"; `parse_case` gives the case back."""
        return IDENTITY if self.operator == IDENTITY else f"{self.operator}_{self.height}x{self.width}"


def parse_case(name: str) -> Case:
    """The case of a name.

    Raises:
        BadInputError: The name is not one of a case.
    """
    if name == IDENTITY:
        return Case(IDENTITY)
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in OPERATORS:
        raise BadInputError(
            f"{name!r} is not a case; expected {IDENTITY} or OPERATOR_HEIGHTxWIDTH in px, such as erosion_3x5, "
            f"with one of the operators {', '.join(OPERATORS)}"
        )
    return Case(match[1], int(match[2]), int(match[3]))


def case_table(settings: CaseSettings) -> tuple[Case, ...]:
    """Every case once: operator by operator, height by height, width by width.

    An element of one pixel gives the image itself (kept once, as "identity") or a black image (left out).

    Raises:
        BadInputError: The settings leave no case.
    """
    sizes = [(h, w) for h, w in product(settings.heights, settings.widths) if h == w or not settings.square]
    cases: dict[Case, None] = {}
    for operator, (height, width) in product(settings.operators, sizes):
        if (height, width) != (1, 1):
            cases[Case(operator, height, width)] = None
        elif operator not in _DIFFERENCES:
            cases[Case(IDENTITY)] = None
    if not cases:
        raise BadInputError(
            f"train.cases: operators {settings.operators}, heights {settings.heights}, widths {settings.widths}, "
            f"square {settings.square} leave no case; give sizes above 1 px (equal ones where square)"
        )
    return tuple(cases)


def transform(x: Tensor, case: Case) -> Tensor:
    """Apply one case to a batch.

    Args:
        x: [B, C, H, W], uint8 or floating point, on any device. The rectangle may be larger than the image.
        case: What to apply.

    Returns:
        A batch of the same shape and type.

    Raises:
        ValueError: `x` has not four dimensions or is empty, or a size is below 1.
        TypeError: `x` is neither uint8 nor floating point, or a size is not a whole number.
    """
    if case.operator == IDENTITY:
        _check(x, 1, 1)
        return x
    return OPERATORS[case.operator](x, case.height, case.width)


def apply_cases(x: Tensor, case_indices: Tensor, table: Sequence[Case]) -> Tensor:
    """Apply to each image of a batch its own case.

    Args:
        x: [B, C, H, W], uint8 or floating point.
        case_indices: [B], whole numbers in 0 .. len(table) - 1.
        table: The cases that are meant.

    Returns:
        A new batch of the same shape and type.

    Raises:
        ValueError: There is not one index per image, or an index is outside the table.
    """
    if case_indices.shape != x.shape[:1]:
        raise ValueError(f"expected one case index per image, got {tuple(case_indices.shape)} for {tuple(x.shape)}")
    indices = case_indices.tolist()
    if indices and not 0 <= min(indices) <= max(indices) < len(table):
        raise ValueError(f"expected case indices in 0..{len(table) - 1}, got {min(indices)}..{max(indices)}")
    groups: dict[int, list[int]] = {}
    for position, index in enumerate(indices):
        groups.setdefault(index, []).append(position)
    result = torch.empty_like(x)
    for index, positions in groups.items():
        result[positions] = transform(x[positions], table[index])
    return result


def _check(x: Tensor, height: int, width: int) -> None:
    if x.ndim != 4 or x.shape[-1] == 0 or x.shape[-2] == 0:
        raise ValueError(f"expected a batch [B, C, H, W] of images with pixels, got shape {tuple(x.shape)}")
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise TypeError(f"expected uint8 or floating-point pixels, got {x.dtype}")
    for what, size in (("height", height), ("width", width)):
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"expected {what} of the structuring element as a whole number of px, got {size!r}")
        if size < 1:
            raise ValueError(f"expected {what} of the structuring element >= 1 px, got {size}")


def _extreme(x: Tensor, dim: int, before: int, after: int, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Minimum or maximum (`pick`) over positions i - before .. i + after along `dim`.

    Each round joins two windows of the size so far, so a window of k costs about log2(k) passes.
    """
    length = x.shape[dim]
    before, after = min(before, length - 1), min(after, length - 1)
    window = before + after + 1
    if window == 1:
        return x
    lowest, highest = (0, 255) if x.dtype == torch.uint8 else (-torch.inf, torch.inf)
    neutral = highest if pick is torch.minimum else lowest
    shape = list(x.shape)
    shape[dim] += before + after
    padded = x.new_empty(shape)  # several times faster than functional.pad, which is not vectorised for uint8
    padded.narrow(dim, 0, before).fill_(neutral)
    padded.narrow(dim, before + length, after).fill_(neutral)
    padded.narrow(dim, before, length).copy_(x)
    x = padded
    covered = 1
    while covered < window:
        step = min(covered, window - covered)
        x = pick(x.narrow(dim, 0, x.shape[dim] - step), x.narrow(dim, step, x.shape[dim] - step))
        covered += step
    return x
