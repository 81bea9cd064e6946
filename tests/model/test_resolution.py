"""How large the network sees pictures: their own shape is kept, and training sees a window at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morphad.model.detector import Detector
from morphad.model.resolution import LONGER, SHORTER, resolved
from morphad.model.training import loop
from morphad.settings import CalibrateSettings
from morphad.settings.presets import train_settings
from tiny import TRAIN

SIDES = st.integers(1, 20_000)
OWN_SHAPE = {**TRAIN, "image_size": None}


@given(SIDES, SIDES)
def test_the_shape_is_kept_as_far_as_the_network_allows(height: int, width: int) -> None:
    found = resolved(train_settings({}), [(height, width)]).image_size
    assert min(found) == SHORTER
    assert max(found) <= LONGER
    assert max(found) % 32 == 0
    assert resolved(train_settings({}), [(width, height)]).image_size == found[::-1]
    if max(found) < LONGER:
        assert (found[0] / found[1]) / (height / width) == pytest.approx(1, abs=0.08)


def test_where_shapes_differ_the_median_counts_and_what_is_given_counts_alone() -> None:
    sizes = [(500, 500), (1000, 500), (1260, 500), (1264, 500), (5000, 500)]
    assert resolved(train_settings({}), sizes).image_size == (576, 224)
    assert resolved(train_settings({"image_size": [96, 64]}), sizes).image_size == (96, 64)


def test_with_a_region_its_box_has_the_shape() -> None:
    region = {"size": [400, 1000], "inspect": [[[100, 0], [299, 399]]]}
    assert resolved(train_settings({"region": region}), [(400, 1000)]).image_size == (448, 224)


@pytest.fixture
def wide() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(120, 10, (70, 160)).clip(0, 255).astype(np.uint8) for _ in range(30)]


def test_a_detector_keeps_the_shape_of_its_pictures(wide: list[np.ndarray], tmp_path) -> None:
    settings = CalibrateSettings(false_reject_rate=0.2)
    detector = Detector(train_settings(OWN_SHAPE)).fit(wide[:20]).calibrate(wide[20:], settings)
    assert detector.settings.image_size == (224, 512)
    part = wide[0].copy()
    part[30:36, 120:140] = 255
    (found,) = detector.predict([part])
    assert found.rejected
    assert found.heatmap.shape == (70, 160)
    row, column = np.unravel_index(found.heatmap.argmax(), found.heatmap.shape)
    assert 24 <= row < 42
    assert 112 <= column < 148
    detector.save(tmp_path / "detector")
    again = Detector.load(tmp_path / "detector")
    assert again.settings.image_size == (224, 512)
    assert again.score_samples([part]) == detector.score_samples([part])


def test_sizes_say_the_shape_where_the_first_picture_is_another(wide: list[np.ndarray]) -> None:
    images = [wide[0][:, :70], *wide[1:20]]
    settings = train_settings({**OWN_SHAPE, "score": {"kind": "transformation", "cases": 2}})
    detector = Detector(settings).fit(images, sizes=[image.shape for image in images])
    assert detector.settings.image_size == (224, 512)


def test_training_sees_a_window_of_a_large_picture_and_all_of_it_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    original = loop.apply_cases

    def recording(batch, cases, table):  # type: ignore[no-untyped-def]
        seen.append(batch)
        return original(batch, cases, table)

    monkeypatch.setattr(loop, "apply_cases", recording)
    monkeypatch.setattr(loop, "WINDOW", 32)
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[:, None], 40, 1)  # each row says where it is
    settings = train_settings({**TRAIN, "image_size": [100, 40], "optimiser": {"steps": 12, "batch_size": 8}})
    Detector(settings).fit([ramp] * 20)
    assert {tuple(batch.shape[2:]) for batch in seen} == {(32, 32)}
    rows = torch.cat([batch.flatten() for batch in seen])
    assert rows.min() < 5
    assert rows.max() > 94
