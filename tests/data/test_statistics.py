"""Figures of an image are what their definitions say, for every size and content."""

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy import ndimage

from morphad.data.images import Image
from morphad.data.snapshot.statistics import perceptual_hash, sharpness, statistics

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
GREYS = SIZES.flatmap(lambda size: arrays(np.uint8, size))


def reduced(picture: Pillow.Image) -> Pillow.Image:
    """To the size that imagehash works on, so that it has nothing to reduce."""
    return picture.resize((64, 64), Pillow.Resampling.BILINEAR)


@given(GREYS)
def test_figures_are_as_defined(grey: NDArray[np.uint8]) -> None:
    figures = statistics(Image(grey, "L", 8))
    levels = np.bincount(grey.ravel(), minlength=256) / grey.size
    entropy = -(levels[levels > 0] * np.log2(levels[levels > 0])).sum()
    expected = {
        "brightness": grey.mean(),
        "contrast": grey.std(),
        "sharpness": ndimage.laplace(grey.astype(float)).var(),
        "entropy": entropy,
        "dark": (grey == 0).mean(),
        "saturated": (grey == 255).mean(),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("size", [(3, 70_000), (70_000, 3), (1030, 2100)])
def test_sharpness_of_sizes_that_are_worked_on_in_strips(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    grey = rng.choice(np.array([0, 255], np.uint8), size)  # the largest sums that there are
    assert sharpness(grey) == pytest.approx(ndimage.laplace(grey.astype(float)).var(), rel=1e-12)


@given(GREYS)
def test_the_hash_of_small_pictures_is_imagehashs_of_their_reduction(grey: NDArray[np.uint8]) -> None:
    picture = Pillow.fromarray(grey)
    ours, theirs = perceptual_hash(picture), str(imagehash.phash(reduced(picture), hash_size=16))
    # Coefficients that are equal but for rounding may fall on either side of the median.
    assert (int(ours, 16) ^ int(theirs, 16)).bit_count() <= 2 or len(np.unique(grey)) < 3


def test_the_hash_of_large_pictures_is_near_imagehashs() -> None:
    rng = np.random.default_rng(0)
    for side in (200, 340, 500, 900):
        coarse = Pillow.fromarray(rng.integers(0, 256, (20, 20), np.uint8))
        picture = coarse.resize((side, side + 40), Pillow.Resampling.BICUBIC)
        ours = perceptual_hash(picture)
        for other, most in ((reduced(picture), 0 if side < 344 else 6), (picture, 8)):  # imagehash's own filter: 8
            theirs = str(imagehash.phash(other, hash_size=16))
            assert (int(ours, 16) ^ int(theirs, 16)).bit_count() <= most
