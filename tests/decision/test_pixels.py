import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from morphad.base.errors import BadInputError
from morphad.decision.pixels import PixelScores, aupro, pixel_auroc


def _images(seed, count=4, levels=None):
    """Blobs as masks, noisy maps of differing sizes, every third image good."""
    rng = np.random.default_rng(seed)
    masks, maps = [], []
    for number in range(count):
        shape = tuple(rng.integers(9, 17, size=2))
        mask = ndimage.gaussian_filter(rng.normal(size=shape), 1.5) > 0.25
        heatmap = rng.normal(size=shape) + 0.8 * mask
        if levels:
            heatmap = np.round(heatmap * levels)
        masks.append(None if number % 3 == 2 else mask)
        maps.append(heatmap.astype(np.float32))
    return masks, maps


def _brute_force_aupro(masks, maps, max_fpr):
    """The curve threshold by threshold, cut at max_fpr by interpolation, by the trapezoid rule."""
    filled = [np.zeros(m.shape, bool) if mask is None else mask for mask, m in zip(masks, maps, strict=True)]
    regions = []
    for mask, heatmap in zip(filled, maps, strict=True):
        labels, found = ndimage.label(mask, np.ones((3, 3)))
        regions += [heatmap[labels == k] for k in range(1, found + 1)]
    normal = np.concatenate([heatmap[~mask] for mask, heatmap in zip(filled, maps, strict=True)])
    thresholds = np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]
    fpr = np.array([0.0, *[(normal >= t).mean() for t in thresholds]])
    pro = np.array([0.0, *[np.mean([(region >= t).mean() for region in regions]) for t in thresholds]])
    inside = fpr <= max_fpr
    if not inside.all():
        after = int(np.argmin(inside))
        share = (max_fpr - fpr[after - 1]) / (fpr[after] - fpr[after - 1])
        fpr = np.append(fpr[inside], max_fpr)
        pro = np.append(pro[inside], pro[after - 1] + share * (pro[after] - pro[after - 1]))
    return np.trapezoid(pro, fpr) / max_fpr


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([None, 1, 4]), max_fpr=st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_is_the_area_under_the_curve_drawn_threshold_by_threshold(seed, levels, max_fpr):
    masks, maps = _images(seed, levels=levels)
    found = aupro(masks, maps, max_fpr)
    if found is not None:
        assert found == pytest.approx(_brute_force_aupro(masks, maps, max_fpr), abs=1e-9)


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([None, 1, 4]))
def test_pixel_auroc_is_that_of_scikit_learn(seed, levels):
    masks, maps = _images(seed, levels=levels)
    truth = np.concatenate(
        [np.zeros(h.size, bool) if m is None else m.ravel() for m, h in zip(masks, maps, strict=True)]
    )
    found = pixel_auroc(masks, maps)
    if 0 < truth.sum() < truth.size:
        assert found == pytest.approx(roc_auc_score(truth, np.concatenate([h.ravel() for h in maps])), abs=1e-9)
    else:
        assert found is None


def test_a_small_region_counts_as_much_as_a_large_one():
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = True
    mask[15, 15] = True
    heatmap = np.zeros((20, 20), np.float32)
    heatmap[:10, :10] = 1  # the large one found, the single pixel tied with all normal pixels
    assert aupro([mask], [heatmap]) == pytest.approx(0.5 + 0.5 * 0.15)
    assert pixel_auroc([mask], [heatmap]) > 0.99


def test_regions_that_touch_at_a_corner_are_one():
    mask = np.eye(6, dtype=bool)
    heatmap = np.zeros((6, 6), np.float32)
    heatmap[0, 0] = 1
    assert aupro([mask], [heatmap], 1.0) == pytest.approx(1 / 6 + 5 / 6 * 0.5)


def test_nothing_to_find_gives_none():
    heatmap = np.zeros((4, 4), np.float32)
    assert aupro([None], [heatmap]) is None
    assert pixel_auroc([np.zeros((4, 4), bool)], [heatmap]) is None
    assert pixel_auroc([np.ones((4, 4), bool)], [heatmap]) is None
    assert aupro([], []) is None


def test_input_that_does_not_fit_is_refused():
    good = np.zeros((4, 4), np.float32)
    with pytest.raises(BadInputError, match="4 x 5 px but its heatmap is 4 x 4"):
        aupro([np.zeros((4, 5), bool)], [good])
    with pytest.raises(BadInputError, match="not finite"):
        aupro([None], [np.full((4, 4), np.nan, np.float32)])
    with pytest.raises(BadInputError, match="expected bool"):
        aupro([np.zeros((4, 4), np.uint8)], [good])
    with pytest.raises(BadInputError, match="expected \\[H, W\\]"):
        aupro([None], [good[None]])
    with pytest.raises(BadInputError, match="max_fpr"):
        aupro([None], [good], 0.0)


@pytest.mark.slow
def test_four_hundred_images_take_seconds_and_little_memory():
    rng = np.random.default_rng(0)
    maps = [rng.random((256, 256), dtype=np.float32) for _ in range(400)]
    mask = np.zeros((256, 256), bool)
    mask[50:114, 50:114] = True
    tracemalloc.start()
    started = time.perf_counter()
    assert aupro([None, mask] * 200, maps) == pytest.approx(0.15, abs=0.01)
    assert time.perf_counter() - started < 20
    assert tracemalloc.get_traced_memory()[1] < 1e9
    tracemalloc.stop()


def test_pixels_that_are_not_inspected_count_nowhere():
    rng = np.random.default_rng(0)
    inspected = np.zeros((12, 16), bool)
    inspected[2:10, 3:9] = True
    masks, maps = [], []
    for number in range(5):
        mask = ndimage.gaussian_filter(rng.normal(size=inspected.shape), 1.5) > 0.1
        maps.append((rng.normal(size=inspected.shape) + mask).astype(np.float32))
        masks.append(None if number == 4 else mask)
    masks[3] = np.zeros_like(inspected)
    masks[3][:2] = True  # wholly outside
    loud = [np.where(inspected, heatmap, 1e6 * rng.normal(size=heatmap.shape)).astype(np.float32) for heatmap in maps]
    found = PixelScores.gather(zip(masks, loud, strict=True), inspected)
    cut = (slice(2, 10), slice(3, 9))
    expected = PixelScores.gather(
        (mask if mask is None else mask[cut], heatmap[cut]) for mask, heatmap in zip(masks, maps, strict=True)
    )
    assert (found.auroc(), found.aupro()) == (expected.auroc(), expected.aupro())
    assert (found.regions, found.masked) == (expected.regions, 3)
