"""What an image looks like in a few figures: light, sharpness, and a hash that near copies share.

Every image of a line passes here, so the arithmetic is on whole numbers, in strips that stay in a core's cache: exact,
the same on every machine, and cheaper than decoding.
"""

import math

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from morphad.data.images import Image

VERSION = 1  # raise it when a figure changes its meaning: what was remembered of images is then worked out anew

_LEVELS = np.arange(256)
_STRIP = 64  # rows


def statistics(image: Image) -> dict[str, float | str]:
    """What an image looks like, as the manifest's columns brightness to perceptual_hash (without `masked`)."""
    grey = image.grey
    picture = Pillow.fromarray(grey)
    count = grey.size
    levels = np.asarray(picture.histogram(), np.int64)
    total, squares = int(levels @ _LEVELS), int(levels @ _LEVELS**2)
    shares = levels[levels > 0] / count
    return {
        "brightness": total / count,
        "contrast": math.sqrt(count * squares - total**2) / count,
        "sharpness": sharpness(grey),
        "entropy": round(abs(float((shares * np.log2(shares)).sum())), 9),
        "dark": int(levels[0]) / count,
        "saturated": int(levels[255]) / count,
        "perceptual_hash": perceptual_hash(picture),
    }


def sharpness(grey: NDArray[np.uint8]) -> float:
    """The variance of the Laplacian (4 neighbours, edges repeated) of grey levels [H, W], exact.

    With repeated edges the Laplacian sums to zero, so its variance is its mean square: a sum of integers.
    """
    height, width = grey.shape
    rows = min(_STRIP, height)
    padded = np.empty((rows + 2, width + 2), np.int16)
    laplacian, fourfold = np.empty((2, rows, width), np.int16)
    squares = np.empty((rows, width), np.float64)
    total = 0.0
    for top in range(0, height, rows):
        count = min(rows, height - top)
        strip = padded[: count + 2]
        above, below = max(top - 1, 0), min(top + count + 1, height)
        strip[above - top + 1 : below - top + 1, 1:-1] = grey[above:below]
        if top == 0:
            strip[0, 1:-1] = grey[0]
        if top + count == height:
            strip[-1, 1:-1] = grey[-1]
        strip[:, 0], strip[:, -1] = strip[:, 1], strip[:, -2]
        out = laplacian[:count]
        np.add(strip[:-2, 1:-1], strip[2:, 1:-1], out=out)
        out += strip[1:-1, :-2]
        out += strip[1:-1, 2:]
        out -= np.left_shift(strip[1:-1, 1:-1], 2, out=fourfold[:count])
        values = squares[:count]
        values[:] = out
        values = values.ravel()
        total += float(values @ values)  # whole numbers below 2 ** 53: exact in any order
    return total / grey.size


def perceptual_hash(picture: Pillow.Image) -> str:
    """256 bits of the low frequencies of a grey picture, hexadecimal; near copies differ in few of them.

    It is `imagehash.phash` with a hash size of 16, but sides of 384 px and more are first shrunk by whole factors.
    """
    small = picture.resize((64, 64), Pillow.Resampling.LANCZOS, reducing_gap=3.0)
    return str(imagehash.phash(small, hash_size=16))
