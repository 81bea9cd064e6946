"""A part that moved is put back in its place; a picture without it is rejected, with the reason."""

from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from morphad.base.errors import BadInputError
from morphad.decision.calibration import NOTHING_TO_SCORE
from morphad.inspection import DetectorModel
from morphad.model.alignment.alignment import Alignment
from morphad.model.alignment.warp import Warp, fetched, put_back
from morphad.model.detector import Detector
from morphad.settings import CalibrateSettings, TrainSettings
from morphad.settings.presets import train_settings
from plates import HEIGHT, WIDTH, anywhere, part, parts, turned
from tiny import TRAIN

Pixels = NDArray[np.uint8]
CORNERS = [(0, 0), (WIDTH - 1, 0), (0, HEIGHT - 1), (WIDTH - 1, HEIGHT - 1)]


def settings(**changed: Any) -> TrainSettings:
    return train_settings({**TRAIN, "align": "shift", "optimiser": {"steps": 0}, "image_size": [96, 128], **changed})


@pytest.fixture(scope="module")
def shifts() -> Alignment:
    return Alignment.learned(parts(20, 1), "shift", part(0))


@pytest.fixture(scope="module")
def similarities() -> Alignment:
    return Alignment.learned(parts(20, 2, turns=True), "similarity", part(0))


@pytest.fixture(scope="module")
def fitted() -> Detector:
    detector = Detector(settings()).fit(parts(20, 3))
    return detector.calibrate(parts(20, 4), CalibrateSettings(false_reject_rate=0.1))


def off(found: Warp | str, true: Warp) -> float:
    """How far a place lies from where it should, px, at most over the picture's corners."""
    assert isinstance(found, Warp), found
    return max(hypot(*np.subtract(found.at(*corner), true.at(*corner))) for corner in CORNERS)


@given(x=st.floats(-0.25, 0.25), y=st.floats(-0.2, 0.2), seed=st.integers(0, 2**20))
@hypothesis_settings(max_examples=25, deadline=None)
def test_a_shift_is_undone_to_the_pixel(shifts: Alignment, x: float, y: float, seed: int) -> None:
    true = Warp(1, 0, x * WIDTH, y * HEIGHT)
    assert off(shifts.find(part(seed, true)), true) <= 1


@given(degrees=st.floats(-180, 180), scale=st.floats(0.92, 1.08), x=st.floats(-0.08, 0.08), y=st.floats(-0.08, 0.08))
@hypothesis_settings(max_examples=25, deadline=None)
def test_a_similarity_is_undone_within_a_pixel_and_a_half(
    similarities: Alignment, degrees: float, scale: float, x: float, y: float
) -> None:
    true = turned(degrees, scale, x * WIDTH, y * HEIGHT)
    assert off(similarities.find(part(7, true)), true) <= 1.5  # at the corners, as far from the part as can be


@given(seed=st.integers(0, 2**20), gain=st.floats(0.6, 1.3), offset=st.floats(-30, 40), slope=st.floats(-30, 30))
@hypothesis_settings(max_examples=20, deadline=None)
def test_light_changes_no_place(shifts: Alignment, seed: int, gain: float, offset: float, slope: float) -> None:
    true = Warp(1, 0, 9, -6)
    across = slope * np.linspace(-1, 1, WIDTH)
    lit = (gain * part(seed, true) + offset + across).clip(0, 255).astype(np.uint8)
    assert off(shifts.find(lit), true) <= 1


@pytest.mark.parametrize("kind", ["shift", "similarity"])
def test_a_picture_without_the_part_is_refused_with_its_reason(kind: str, request: pytest.FixtureRequest) -> None:
    alignment = request.getfixturevalue({"shift": "shifts", "similarity": "similarities"}[kind])
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    others = [
        part(1, absent=True),
        np.zeros((HEIGHT, WIDTH), np.uint8),
        np.full((HEIGHT, WIDTH), 255, np.uint8),
        rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8),
        np.asarray(60 + x + y / 2, np.uint8),  # light from one side
        part(1, Warp(1, 0, 0.6 * WIDTH, 0)),  # nearly out of the picture
    ]
    for image in others:
        reason = alignment.find(image)
        assert isinstance(reason, str)
        assert reason.startswith("part not found: ")


def test_a_part_with_a_defect_is_found_all_the_same(shifts: Alignment) -> None:
    true = Warp(1, 0, -7, 5)
    assert off(shifts.find(part(3, true, defect=True)), true) <= 1


@given(x=st.integers(-60, 60), y=st.integers(-40, 40), channels=st.sampled_from([(), (3,)]))
def test_a_shift_changes_no_value_and_what_is_shown_goes_back_where_it_was(
    x: int, y: int, channels: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, *channels), dtype=np.uint8)
    moved = fetched(image, Warp(1, 0, x, y))
    assert moved.shape == image.shape
    rows, columns = slice(max(0, -y), HEIGHT - max(0, y)), slice(max(0, -x), WIDTH - max(0, x))
    shown = image[max(0, y) : HEIGHT + min(0, y), max(0, x) : WIDTH + min(0, x)]
    assert np.array_equal(moved[rows, columns], shown)
    values = moved.astype(np.float32) if not channels else moved[..., 0].astype(np.float32)
    back = put_back(values, Warp(1, 0, x, y), -1)
    assert np.array_equal(back[back >= 0], (image if not channels else image[..., 0])[back >= 0])
    assert (back >= 0).sum() == (HEIGHT - abs(y)) * (WIDTH - abs(x))


@pytest.mark.parametrize("warp", [turned(30), turned(-170, 1.1, 5, -3), turned(0, 0.9), turned(0, 1, 0.5, 0.25)])
def test_what_is_turned_goes_back_where_it_was(warp: Warp) -> None:
    image = part(0)
    back = put_back(fetched(image, warp).astype(np.float32), warp, -1)
    inside = back >= 0
    assert inside.mean() > 0.6
    assert np.abs(back - image)[inside].mean() < 6  # of the noise, which two interpolations smooth


def test_scores_and_heatmaps_follow_the_part(fitted: Detector) -> None:
    assert fitted.calibration_ is not None
    warps = anywhere(6, 9)
    good = fitted.score_samples([part(50 + i, warp) for i, warp in enumerate(warps)])
    spoilt = list(fitted.predict([part(50 + i, warp, defect=True) for i, warp in enumerate(warps)]))
    assert min(prediction.score for prediction in spoilt) > max(good)
    for warp, prediction in zip(warps, spoilt, strict=True):
        assert prediction.rejected
        assert prediction.reason == ""
        x, y = warp.at(46, 54)
        row, column = np.unravel_index(prediction.heatmap.argmax(), prediction.heatmap.shape)
        assert hypot(row - y, column - x) < 14  # of places every 8 px


def test_what_a_shift_leaves_empty_does_not_score(fitted: Detector) -> None:
    """At the edge there is ground that no camera saw: the score of a part does not depend on how much."""
    [at_rest] = fitted.score_samples([part(60)])
    [spoilt] = fitted.score_samples([part(60, defect=True)])
    far = [turned(x=x * WIDTH, y=y * HEIGHT) for x in (-0.2, 0.2) for y in (-0.15, 0.15)]
    for score in fitted.score_samples([part(60 + i, warp) for i, warp in enumerate(far)]):
        assert score < (at_rest + spoilt) / 2


def test_a_picture_without_the_part_is_rejected_among_others_that_keep_their_scores(fitted: Detector) -> None:
    images = [part(1), part(2, absent=True), part(3)]
    alone = [fitted.score_samples([image])[0] for image in images]
    first, absent, last = fitted.predict(images)
    np.testing.assert_allclose([first.score, last.score], [alone[0], alone[2]], rtol=1e-4)
    assert absent.score == alone[1] == NOTHING_TO_SCORE
    assert absent.rejected is True
    assert absent.p_value == 1 / 21
    assert "part not found" in absent.reason
    assert absent.heatmap.shape == (HEIGHT, WIDTH)
    assert np.isfinite(absent.heatmap).all()


def test_without_a_threshold_it_is_rejected_too() -> None:
    detector = Detector(settings()).fit(parts(20, 3))
    [before] = detector.predict([part(2, absent=True)])
    assert (before.rejected, before.p_value) == (True, None)
    detector.calibrate(parts(4, 4), CalibrateSettings(false_reject_rate=0.01))
    present, absent = detector.predict([part(1), part(2, absent=True)])
    assert (present.rejected, absent.rejected) == (None, True)


def test_one_in_the_calibration_counts_as_a_false_reject_and_too_many_are_refused() -> None:
    detector = Detector(settings()).fit(parts(20, 3))
    detector.calibrate([*parts(18, 4), part(1, absent=True)], CalibrateSettings(false_reject_rate=0.1))
    assert detector.calibration_ is not None
    assert detector.calibration_.scores[-1] == NOTHING_TO_SCORE
    assert detector.calibration_.threshold == detector.calibration_.scores[-2]
    assert detector.heatmap_scale_ is not None
    assert max(detector.heatmap_scale_) < 1e6
    with pytest.raises(BadInputError, match=r"2 of 19 good calibration images are rejected unseen, more than .* 10 %"):
        detector.calibrate(
            [*parts(17, 4), part(1, absent=True), part(2, absent=True)], CalibrateSettings(false_reject_rate=0.1)
        )
    assert detector.calibration_.n == 19


def test_training_pictures_without_the_part_are_named_and_too_many_are_refused() -> None:
    images, names = parts(20, 3), [f"{i}.png" for i in range(20)]
    images[7] = part(1, absent=True)
    detector = Detector(settings()).fit(images, names=names)
    assert detector.lost_ == ("7.png",)
    images[3] = images[12] = images[7]
    with pytest.raises(BadInputError, match=r"no part in 3 of 20 good training images.*3\.png: part not found"):
        Detector(settings()).fit(images, names=names)
    with pytest.raises(ValueError, match="give a list of them, not an iterator"):
        Detector(settings()).fit(iter(parts(20, 3)))


@pytest.mark.parametrize("kind", ["shift", "similarity"])
def test_it_travels_with_the_detector(kind: str, tmp_path: Path) -> None:
    detector = Detector(settings(align=kind)).fit(parts(12, 3)).calibrate(parts(9, 4), CalibrateSettings())
    detector.save(tmp_path / "detector")
    loaded = Detector.load(tmp_path / "detector")
    images = [*parts(3, 5), part(1, absent=True)]
    for one, other in zip(detector.predict(images), loaded.predict(images), strict=True):
        assert (one.score, one.rejected, one.reason) == (other.score, other.rejected, other.reason)
        assert np.array_equal(one.heatmap, other.heatmap)
    loaded.save(tmp_path / "again")
    for file in (tmp_path / "detector").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_the_region_stays_on_the_part() -> None:
    anchor = part(0)
    region = {"size": [HEIGHT, WIDTH], "inspect": [[[38, 46], [58, 72]]]}  # the leg of the angle
    detector = Detector(settings(region=region)).fit(parts(20, 3), anchor=anchor)
    detector.calibrate(parts(20, 4), CalibrateSettings(false_reject_rate=0.1))
    for warp in anywhere(4, 6):
        good, spoilt = part(9, warp), part(9, warp, defect=True)
        beside = good.copy()
        x, y = warp.at(104, 20)
        beside[round(y) - 4 : round(y) + 4, round(x) - 4 : round(x) + 4] = 250
        ordinary, inside, outside = detector.predict([good, spoilt, beside])
        assert inside.score > ordinary.score
        assert outside.score == ordinary.score
        assert ordinary.inspected is not None
        rows, columns = np.nonzero(ordinary.inspected)
        x, y = warp.at(48, 59)
        assert hypot(rows.mean() - y, columns.mean() - x) < 1.5


def test_a_picture_of_another_size_is_refused_and_spoils_no_other(fitted: Detector) -> None:
    import io

    def encoded(pixels: Pixels) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    small, absent, right = DetectorModel(fitted).predict(
        [encoded(part(1)[:-1]), encoded(part(1, absent=True)), encoded(part(2))]
    )
    assert "is 95 x 128 px, but train.align was learned on pictures of 96 x 128 px" in small.error
    assert (absent.rejected, absent.error, absent.heatmap) == (True, "", None)
    assert "part not found" in absent.reason
    assert (right.reason, right.error) == ("", "")
    assert right.score is not None
    with pytest.raises(BadInputError, match=r"good picture 2 of the training is 95 x 128 px"):
        Detector(settings()).fit([part(1), part(2)[:-1], *parts(12, 3)])


@pytest.mark.parametrize("size", [(1, 60), (7, 7), (8, 2000)])
def test_pictures_that_say_too_little_of_a_place_are_refused(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, *size), dtype=np.uint8)
    with pytest.raises(BadInputError, match=r"train\.align = shift: pictures of .* are too small or too long"):
        Alignment.learned(list(noise), "shift")


def test_textures_without_a_part_of_their_own_are_refused_with_what_helps() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, HEIGHT, WIDTH), dtype=np.uint8)
    with pytest.raises(BadInputError, match=r"no part in \d+ of 20 good training images.*set train\.align to none"):
        Detector(settings()).fit(list(noise))


@pytest.mark.parametrize("size", [(8, 8), (300, 20), (33, 257)])
def test_small_and_long_pictures_are_brought_into_line(size: tuple[int, int]) -> None:
    y, x = np.mgrid[: size[0], : size[1]]
    spot = 200 * np.exp(-(((y - size[0] / 2) / size[0] * 8) ** 2) - ((x - size[1] / 2) / size[1] * 8) ** 2)
    image = (20 + spot).astype(np.uint8)
    alignment = Alignment.learned([image] * 3, "shift", image)
    true = Warp(1, 0, round(size[1] / 8), round(size[0] / 8))
    place = alignment.find(fetched(image, true.inverse()))
    assert isinstance(place, Warp), place
    assert hypot(place.x - true.x, place.y - true.y) <= 1.5
