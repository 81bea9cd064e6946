import base64
import io

import numpy as np
import pytest
from PIL import Image

from morphad.report.pairs import pairs
from morphad.report.pictures import Example, colour_bar, overlay, picture


def _example(height=300, width=600, heat=0.0, mask=None, inspected=None):
    image = np.full((height, width, 3), 90, np.uint8)
    heatmap = np.full((height, width), heat, np.float32)
    return Example(image, heatmap, mask, "a.png", "good", "", 0.0, None, None, inspected=inspected)


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


def _cracked(row, column, height=1250, width=500):
    """A picture with a dark crack 3 px wide, 20 px long, and its heat."""
    example = _example(height, width)
    example.image[row - 1 : row + 2, column - 10 : column + 10] = 0
    example.heatmap[row, column] = 9.0
    return example


def test_of_a_large_picture_a_crack_of_3_px_is_seen_at_true_size_beside_the_whole():
    whole, close = pairs(_cracked(700, 200), (0, 2))
    assert (whole.says, whole.width) == ("a.png", None)
    assert "the most abnormal 144 x 144 px of a.png at true size, around row 700, column 200" in close.says
    assert close.width == 144
    seen = _pixels(close.picture)[..., 0]
    assert seen.shape == _pixels(close.overlay).shape[:2] == (144, 144)
    dark = seen < 45
    assert dark.sum() == pytest.approx(3 * 20, abs=12)  # all of the crack, pixel by pixel
    assert dark[70:75, 58:86].sum() == dark.sum()
    assert (_pixels(whole.picture)[..., 0] < 45).sum() < 8  # all that is left of it in the whole


@pytest.mark.parametrize(("row", "column"), [(1, 10), (1248, 490), (20, 300)])
def test_the_part_at_true_size_lies_in_the_picture(row, column):
    rows, columns = _cracked(row, column).window
    assert rows.start <= row < rows.stop
    assert columns.start <= column < columns.stop
    assert rows.start >= 0 and columns.start >= 0 and rows.stop <= 1250 and columns.stop <= 500
    assert (rows.stop - rows.start, columns.stop - columns.start) == (144, 144)


def test_a_box_in_the_whole_shows_where_the_part_is():
    boxed = _pixels(pairs(_cracked(700, 200), (0, 20))[0].overlay)
    white = np.argwhere(boxed.min(axis=2) > 200)
    factor = 256 / 1250
    np.testing.assert_allclose(white.min(axis=0), [factor * 628, factor * 128], atol=2)
    np.testing.assert_allclose(white.max(axis=0), [factor * 772, factor * 272], atol=2)


def test_a_picture_that_is_shown_nearly_as_large_as_it_is_has_no_part():
    assert len(pairs(_example(500, 511), (0, 1))) == 1
    assert len(pairs(_example(512, 40), (0, 1))) == 2
    assert _pixels(pairs(_example(512, 40), (0, 1))[1].picture).shape[:2] == (144, 40)


def test_what_is_not_inspected_is_dark_beyond_an_outline():
    inspected = np.zeros((300, 600), bool)
    inspected[100:200, 200:400] = True
    shown = _pixels(overlay(_example(inspected=inspected), (0, 1)))
    assert shown[64, 128].mean() == pytest.approx(_pixels(overlay(_example(), (0, 1)))[64, 128].mean(), abs=3)
    assert shown[10, 10].mean() < 45
    green = shown[..., 1] - shown[..., 0] > 60
    rows, columns = np.nonzero(green)
    assert (rows.min(), rows.max()) == (pytest.approx(42, abs=2), pytest.approx(86, abs=2))
    assert (columns.min(), columns.max()) == (pytest.approx(85, abs=2), pytest.approx(171, abs=2))
    everywhere = np.ones((300, 600), bool)
    np.testing.assert_array_equal(
        _pixels(overlay(_example(inspected=everywhere), (0, 1))), _pixels(overlay(_example(), (0, 1)))
    )
