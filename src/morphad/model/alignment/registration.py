"""Where a part lies: the shift, or the similarity, by which a picture agrees best with a reference of its size.

A search over all shifts (and turns) by Fourier transforms gives the start, and the enhanced correlation coefficient of
Evangelidis and Psarakis (Parametric image alignment using enhanced correlation coefficient maximization, IEEE TPAMI
30(10), 2008) is brought to its highest from there, from coarse to fine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import ceil, cos, pi, radians, sin
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from morphad.model.alignment.warp import Warp

Kind = Literal["shift", "similarity"]

_TURN = 5  # degrees between two turns that the search tries: half of it is within what the refinement finds back from
_TRIED = 3  # turns that are refined
_ALIKE = 0.02  # correlations that differ by less say nothing about the turn
LEAST_SIDE = 8  # px of the shorter side: less says too little of where a part lies
_COARSE = 64  # px, the longer side at which the search is made
_STEPS = {0: 30, 1: 8}  # of the refinement at the coarsest level and at the others, at most
_NOTHING = 1e-6  # correlation: a step that changes it by less is the last of its level
_LEAST_SEEN = 0.2  # of the reference: less is no match
_STILL = 0.02  # px: a step that moves nothing further than this is the last of its level


@dataclass(frozen=True)
class Match:
    """How a picture agrees with a reference.

    Attributes:
        warp: From places of the reference to those of the picture, px.
        correlation: Of the two where they overlap, -1 to 1.
        overlap: Share of the reference's own contrast that lies within the picture, 0 to 1.
    """

    warp: Warp
    correlation: float
    overlap: float


class Reference:
    """What pictures are compared with.

    Args:
        pixels: Grey [h, w] float32.
        kind: What may differ: shift, or turn and scale too.
    """

    def __init__(self, pixels: Tensor, kind: Kind) -> None:
        self.pixels = pixels
        self.kind = kind
        self._levels = _pyramid(contours(pixels))

    def match(self, picture: Tensor) -> Match:
        """The best agreement with a picture, grey [h, w] float32 of the same size.

        One thread does it: pictures are so small that threads would wait for each other, most of all on a busy machine,
        and sums come out the same whatever the number of cores.
        """
        with _one_thread():
            return self._match(picture)

    def _match(self, picture: Tensor) -> Match:
        levels = _pyramid(contours(picture))
        coarse = levels[0]
        found = [self._refined(0, coarse, start) for start in self._starts(coarse)]
        match = max(found, key=lambda match: match.correlation * match.overlap)
        if found[0].correlation * found[0].overlap > match.correlation * match.overlap - _ALIKE:
            match = found[0]  # which is not turned: a round part agrees with itself in any turn
        for number in range(1, len(levels)):
            match = self._refined(number, levels[number], match.warp.zoomed(2))
        return match

    @cached_property
    def _turned(self) -> tuple[list[float], Tensor]:
        """Turns in radians and the transforms of the coarse reference turned by them: [T, h, w]."""
        coarse = self._levels[0]
        turns = [0.0] if self.kind == "shift" else [radians(degrees) for degrees in range(-180, 180, _TURN)]
        height, width = coarse.shape
        back = [_turn(turn, coarse).inverse() for turn in turns]
        turned = torch.cat([seen_through(coarse[None], warp, height, width)[0] for warp in back])
        norms = turned.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-6)
        return turns, torch.fft.rfft2(turned / norms, s=_padded(coarse))

    def _starts(self, coarse: Tensor) -> list[Warp]:
        """The shifts and turns by which the coarse pictures agree best."""
        turns, transforms = self._turned
        height, width = coarse.shape
        size = _padded(coarse)
        product = torch.fft.irfft2(torch.fft.rfft2(coarse, s=size) * transforms.conj(), s=size)
        rows = torch.cat([torch.arange(height // 2 + 1), torch.arange(-(height // 2), 0)]) % size[0]
        columns = torch.cat([torch.arange(width // 2 + 1), torch.arange(-(width // 2), 0)]) % size[1]
        peaks, places = product[:, rows][:, :, columns].flatten(1).max(1)
        chosen: list[int] = []
        unturned = min(range(len(turns)), key=lambda index: abs(turns[index]))
        for index in [unturned, *peaks.argsort(descending=True).tolist()]:
            if any(abs((turns[index] - turns[i] + pi) % (2 * pi) - pi) < radians(1.5 * _TURN) for i in chosen):
                continue
            chosen.append(index)
            if len(chosen) == _TRIED:
                break
        made = []
        for index in chosen:
            y, x = divmod(int(places[index]), len(columns))
            dy, dx = int(rows[y]), int(columns[x])
            dy, dx = (dy - size[0] if dy > height else dy), (dx - size[1] if dx > width else dx)
            made.append(Warp(1, 0, dx, dy).after(_turn(turns[index], coarse)))
        return made

    def _refined(self, number: int, picture: Tensor, warp: Warp) -> Match:
        """The warp near a given one at which the correlation is highest, at one level."""
        reference = self._levels[number]
        height, width = reference.shape
        down, across = torch.gradient(picture)
        stack = torch.stack([picture, across, down])
        y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
        middle = (width - 1) / 2, (height - 1) / 2
        radius = max(height, width) / 2
        u, v = (x - middle[0]) / radius, (y - middle[1]) / radius
        match, before = Match(warp, -1.0, 0.0), -1.0
        for _ in range(_STEPS[min(number, 1)]):
            (seen, gx, gy), inside = seen_through(stack, warp, height, width)
            count = inside.sum().clamp_min(1)
            t, i = ((values - (values * inside).sum() / count) * inside for values in (reference, seen))
            norms = t.norm() * i.norm()
            correlation = float((t * i).sum() / norms.clamp_min(1e-6))
            overlap = float((reference * inside).square().sum() / reference.square().sum().clamp_min(1e-6))
            if correlation > match.correlation:
                match = Match(warp, correlation, overlap)
            if abs(correlation - before) < _NOTHING or overlap < _LEAST_SEEN:
                break
            before = correlation
            directions = [gx, gy] if self.kind == "shift" else [gx, gy, gx * u + gy * v, gy * u - gx * v]
            g = torch.stack([(d * inside).flatten() for d in directions], 1)
            g = g - (g.sum(0) / count) * inside.flatten()[:, None]
            step = _step(t, i, g)
            dx, dy, da, db = step if len(step) == 4 else (*step, 0.0, 0.0)
            at = warp.at(*middle)
            a, b = warp.a + da / radius, warp.b + db / radius
            warp = Warp(a, b, at[0] + dx - a * middle[0] + b * middle[1], at[1] + dy - b * middle[0] - a * middle[1])
            if max(abs(dx), abs(dy), abs(da), abs(db)) < _STILL or not 0.5 < warp.scale < 2:
                break
        return match


def _step(t: Tensor, i: Tensor, g: Tensor) -> list[float]:
    """The change of parameters that raises the correlation most, to first order.

    Args:
        t: The reference [h, w], its mean 0.
        i: The picture as it is seen now [h, w], its mean 0.
        g: What a change of each parameter does to that [h * w, parameters], its means 0.
    """
    hessian = g.T @ g
    hessian = hessian + 1e-6 * hessian.diagonal().mean().clamp_min(1e-12) * torch.eye(len(hessian))
    of_t, of_i = g.T @ t.flatten(), g.T @ i.flatten()
    solved = torch.linalg.solve(hessian, torch.stack([of_t, of_i], 1))
    top = (i * i).sum() - of_i @ solved[:, 1]
    bottom = (t * i).sum() - of_t @ solved[:, 1]
    factor = top / bottom if float(bottom) > 0 else i.norm() / t.norm().clamp_min(1e-6)
    step: list[float] = (factor * solved[:, 0] - solved[:, 1]).tolist()
    return step


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def contours(pixels: Tensor) -> Tensor:
    """Grey [h, w] without slow changes of light and without noise of single pixels."""
    wide = max(pixels.shape) / 12
    return _blurred(pixels, 1.0) - _blurred(pixels, wide)


def _blurred(pixels: Tensor, sigma: float) -> Tensor:
    radius = ceil(3 * sigma)
    steps = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(pixels[None, None], [radius] * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])[0, 0]


def _pyramid(pixels: Tensor) -> list[Tensor]:
    """Pixels at falling scales, the coarsest first; each the half of the next."""
    levels = [pixels]
    while max(levels[0].shape) > _COARSE and min(levels[0].shape) >= 2 * LEAST_SIDE:
        levels.insert(0, functional.avg_pool2d(levels[0][None], 2)[0])
    return levels


def _turn(angle: float, like: Tensor) -> Warp:
    """A turn about the middle."""
    y, x = ((side - 1) / 2 for side in like.shape)
    a, b = cos(angle), sin(angle)
    return Warp(a, b, x - a * x + b * y, y - b * x - a * y)


def _padded(coarse: Tensor) -> list[int]:
    return [2 * side for side in coarse.shape]


def seen_through(stack: Tensor, warp: Warp, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Values [C, height, width] of pictures [C, h, w] where a warp puts each place, and which places lie inside."""
    h, w = stack.shape[-2:]
    # From places -1..1 of the result to places -1..1 of the pictures, as `affine_grid` counts them: middles of pixels.
    sx, sy, rx, ry = width / 2, height / 2, w / 2, h / 2
    cx, cy = (width - 1) / 2, (height - 1) / 2
    x, y = warp.at(cx, cy)
    theta = torch.tensor(
        [
            [warp.a * sx / rx, -warp.b * sy / rx, (x - (w - 1) / 2) / rx],
            [warp.b * sx / ry, warp.a * sy / ry, (y - (h - 1) / 2) / ry],
        ]
    )
    grid = functional.affine_grid(theta[None], [1, 1, height, width], align_corners=False)
    inside = (grid[0].abs() <= 1).all(-1)
    values = functional.grid_sample(stack[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values[0], inside
