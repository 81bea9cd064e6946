import base64
import io

import numpy as np
import pytest
from PIL import Image

from morphad.report.pictures import Example, colour_bar, overlay, picture


def _example(height=300, width=600, heat=0.0, mask=None):
    image = np.full((height, width, 3), 90, np.uint8)
    heatmap = np.full((height, width), heat, np.float32)
    return Example(image, heatmap, mask, "a.png", "good", "", 0.0, None, None)


def _pixels(uri):
    assert uri.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("height", "width", "shape"), [(300, 600, (128, 256)), (10, 20, (10, 20)), (2000, 3, (256, 1))]
)
def test_pictures_are_at_most_256_px_and_never_enlarged(height, width, shape):
    assert _pixels(picture(_example(height, width))).shape[:2] == shape
    assert _pixels(overlay(_example(height, width), (0, 1))).shape[:2] == shape


def test_the_heatmap_scale_is_the_lines_and_not_the_images():
    cold, hot, hotter = (_pixels(overlay(_example(heat=h), (0.0, 2.0))).mean(axis=(0, 1)) for h in (-5.0, 2.0, 9.0))
    np.testing.assert_allclose(cold, 90, atol=2)
    np.testing.assert_array_equal(hot, hotter)
    assert hot[0] > 200  # yellow


def test_a_scale_without_width_is_no_error():
    _pixels(overlay(_example(), (1.0, 1.0)))


def test_the_mask_is_outlined_however_thin():
    mask = np.zeros((300, 600), bool)
    mask[150, 100:500] = True
    with_mask, without = (_pixels(overlay(_example(mask=m), (0, 1))) for m in (mask, None))
    outlined = (with_mask[..., 2] - with_mask[..., 0]) > 60
    assert outlined.sum() > 200
    assert not ((without[..., 2] - without[..., 0]) > 60).any()


def test_the_colour_bar_runs_from_grey_to_yellow():
    bar = _pixels(colour_bar())
    np.testing.assert_array_equal(bar[0, 0], [128, 128, 128])
    assert bar[0, -1, 0] > 200
