"""Drawn parts that lie anywhere: angle plates with a hole, some with a bright spot on them."""

from math import cos, radians, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from morphad.model.alignment.warp import Warp

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 96, 128


def turned(
    degrees: float = 0.0, scale: float = 1.0, x: float = 0.0, y: float = 0.0, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> Warp:
    """About the middle of a picture, then shifted."""
    a, b = scale * cos(radians(degrees)), scale * sin(radians(degrees))
    cx, cy = (size[1] - 1) / 2, (size[0] - 1) / 2
    return Warp(a, b, cx - a * cx + b * cy + x, cy - b * cx - a * cy + y)


def part(seed: int, warp: Warp | None = None, *, defect: bool = False, absent: bool = False) -> Pixels:
    """An angle plate with a hole, seen where a warp puts it, with the noise of a camera."""
    times = 4
    drawn = Image.new("L", (WIDTH * times, HEIGHT * times), 60)
    pen = ImageDraw.Draw(drawn)
    to = (warp or Warp()).zoomed(times)
    shape = [(40, 30), (88, 30), (88, 44), (56, 44), (56, 70), (40, 70)]
    hole = [(76 + 4 * cos(t), 37 + 4 * sin(t)) for t in np.linspace(0, 6.28, 24)]
    for points, level in ((shape, 190), (hole, 60), (([(44, 52), (49, 52), (49, 57), (44, 57)]), 250)):
        if not absent and (level != 250 or defect):
            pen.polygon([to.at(times * px, times * py) for px, py in points], fill=level)
    small = np.asarray(drawn.resize((WIDTH, HEIGHT), Image.Resampling.BOX), np.float64)
    noise = np.random.default_rng(seed).normal(0, 3, small.shape)
    return np.asarray((small + noise).clip(0, 255), np.uint8)


def anywhere(count: int, seed: int, *, turns: bool = False, reach: float = 0.1) -> list[Warp]:
    rng = np.random.default_rng(seed)
    return [
        turned(
            rng.uniform(-25, 25) if turns else 0.0,
            rng.uniform(0.95, 1.05) if turns else 1.0,
            rng.uniform(-reach, reach) * WIDTH,
            rng.uniform(-reach, reach) * HEIGHT,
        )
        for _ in range(count)
    ]


def parts(count: int, seed: int, **moved: Any) -> list[Pixels]:
    return [part(1000 * seed + i, warp) for i, warp in enumerate(anywhere(count, seed, **moved))]
