"""Pictures seen in tiles, too: geometry, what is found, what stays the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from morphad.base.errors import BadInputError
from morphad.model.detector import Detector
from morphad.model.morphology import case_table
from morphad.model.network import MorphologyNetwork
from morphad.model.resolution import MARGIN, PLACE, TILE, resolved, spans
from morphad.model.scoring.base import Closer
from morphad.model.scoring.tiles import TileScorer
from morphad.settings import CalibrateSettings
from morphad.settings.presets import train_settings
from tiny import TRAIN

HEIGHT, WIDTH = 512, 608
SETTINGS = {
    **TRAIN,
    "image_size": [64, 64],
    "optimiser": {"steps": 0},
    "resolution": {"smallest_defect": 8},
    "score": {"layers": ["stage2", "stage3"], "memory": 200, "channels": 20},
}


def good(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    weave = 120 + 20 * np.sin(y / 5) * np.cos(x / 6)
    return [(weave + rng.normal(0, 4, weave.shape)).clip(0, 255).astype(np.uint8) for _ in range(count)]


def with_speck(image: NDArray[np.uint8], y: int, x: int, side: int = 8) -> NDArray[np.uint8]:
    spoilt = image.copy()
    spoilt[y : y + side, x : x + side] = 235
    return spoilt


@pytest.fixture(scope="module")
def fitted() -> Detector:
    detector = Detector(train_settings(SETTINGS)).fit(good(10))
    return detector.calibrate(good(8, 1), CalibrateSettings(false_reject_rate=0.2))


def test_a_speck_among_few_pictures_has_one_score_in_whatever_order_they_come() -> None:
    settings = train_settings(SETTINGS)
    network = MorphologyNetwork(settings, case_table(settings.cases), 0).eval()
    pictures = [torch.from_numpy(image[:128, :128].copy()).expand(3, -1, -1) for image in good(10)]
    speck = torch.from_numpy(with_speck(good(1, 2)[0][:128, :128], 60, 60)).expand(3, -1, -1)
    scores = []
    with torch.inference_mode():
        for shift in range(5):
            shifted = pictures[shift:] + pictures[:shift]
            tiles = TileScorer(settings.score, 0, None, (128, 128))
            tiles.fit(network, Closer(10, lambda shifted=shifted: shifted, lambda done: None))
            scores.append(float(tiles.score(network, speck)[0]))
    assert max(scores) < 1.1 * min(scores)


@given(st.integers(1, 400).map(lambda number: 32 * number))
def test_tiles_lie_side_by_side_and_nothing_is_asked_near_the_edge_of_one(length: int) -> None:
    tiles = spans(length)
    assert [tile.kept.start for tile in tiles] == [0, *(tile.kept.stop for tile in tiles[:-1])]
    assert tiles[-1].kept.stop == tiles[-1].shown.stop == length
    assert tiles[0].shown.start == 0
    for tile in tiles:
        assert tile.shown.stop - tile.shown.start == min(TILE, length)
        assert tile.shown.start % 32 == tile.kept.start % PLACE == 0
        assert tile.shown.start == 0 or tile.kept.start - tile.shown.start >= MARGIN
        assert tile.shown.stop == length or tile.shown.stop - tile.kept.stop >= MARGIN


@pytest.mark.parametrize(
    ("resolution", "tiled"),
    [
        ({}, None),
        ({"smallest_defect": 8}, (1984, 3008)),
        ({"smallest_defect": 2}, (1984, 3008)),  # there is no more detail than the pictures have
        ({"smallest_defect": 0.16, "mm_per_pixel": 0.01}, (992, 1504)),
        ({"smallest_defect": 80}, None),  # seen in the whole picture
        ({"tiled_size": [640, 960]}, (640, 960)),
    ],
)
def test_the_smallest_defect_covers_a_place(resolution: dict[str, object], tiled: tuple[int, int] | None) -> None:
    settings = resolved(train_settings({"resolution": resolution}), [(2000, 3000), (2000, 3000), (100, 100)])
    assert settings.image_size == (224, 320)
    assert settings.resolution.tiled_size == tiled


@pytest.mark.parametrize("size", [(680, 960), (640, 961)])
def test_a_tiled_size_of_broken_strides_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        train_settings({"resolution": {"tiled_size": size}})


def test_a_scale_without_a_defect_and_tiles_without_densities_are_refused() -> None:
    with pytest.raises(ValueError, match="`mm_per_pixel` without `smallest_defect`"):
        train_settings({"resolution": {"mm_per_pixel": 0.1}})
    with pytest.raises(ValueError, match=r"needs `score\.kind` density"):
        train_settings({"preset": "paper", "resolution": {"smallest_defect": 5}})


def test_a_speck_is_found_where_it_is(fitted: Detector) -> None:
    assert fitted.settings.resolution.tiled_size == (HEIGHT, WIDTH)
    clean = good(6, 2)
    for y, x in ((250, 300), (8, 8), (500, 590), (400, 40)):  # where tiles meet, in corners, elsewhere
        spoilt = [with_speck(image, y, x) for image in clean[:2]]
        assert min(fitted.score_samples(spoilt)) > max(fitted.score_samples(clean)) + 2
        [prediction] = fitted.predict(spoilt[:1])
        assert prediction.heatmap.shape == (HEIGHT, WIDTH)
        peak = np.unravel_index(prediction.heatmap.argmax(), prediction.heatmap.shape)
        assert np.hypot(peak[0] - y - 4, peak[1] - x - 4) < 8 * PLACE


def test_a_picture_has_its_score_alone_and_among_others(fitted: Detector) -> None:
    images = [*good(3, 3), with_speck(good(1, 4)[0], 100, 100)]
    together = fitted.score_samples(images)
    alone = [fitted.score_samples([image])[0] for image in images]
    np.testing.assert_allclose(together, alone, rtol=1e-3)


def test_saved_and_read_it_scores_the_same(fitted: Detector, tmp_path: Path) -> None:
    images = good(3, 5)
    fitted.save(tmp_path / "detector")
    read = Detector.load(tmp_path / "detector")
    assert read.settings == fitted.settings
    assert np.array_equal(read.score_samples(images), fitted.score_samples(images))
    twice = Detector(train_settings(SETTINGS)).fit(good(10))
    twice.calibrate(good(8, 1), CalibrateSettings(false_reject_rate=0.2)).save(tmp_path / "twice")
    for name in ("detector.json", "scorer.safetensors", "network.safetensors"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "detector" / name).read_bytes()


def test_what_is_not_inspected_counts_nowhere() -> None:
    region = {"size": [HEIGHT, WIDTH], "inspect": [[[50, 20], [591, 499]]], "ignore": [[[300, 200], [360, 260]]]}
    detector = Detector(train_settings({**SETTINGS, "region": region}))
    detector.fit(good(10)).calibrate(good(8, 1), CalibrateSettings(false_reject_rate=0.2))
    assert detector.settings.resolution.tiled_size == (480, 544)
    [image] = good(1, 6)
    (score,) = detector.score_samples([image])
    for y, x in ((5, 5), (220, 320), (490, 595)):
        assert detector.score_samples([with_speck(image, y, x, 10)]) == [score]
    assert detector.score_samples([with_speck(image, 400, 300)])[0] > score + 2


def test_what_is_kept_grows_neither_with_the_pictures_nor_with_their_number(fitted: Detector) -> None:
    tiles = {k: tensor.numel() for k, tensor in fitted._scorer.state().items() if k.startswith("tiles.")}
    places = HEIGHT * WIDTH // PLACE**2
    assert tiles.pop("tiles.edge_gains") == 2 * places
    assert sum(tiles.values()) < 2 * 200 * 192 + 2 * 193 * 192 + 3


def test_an_iterator_cannot_be_read_three_times() -> None:
    with pytest.raises(ValueError, match="give a list of them, not an iterator"):
        Detector(train_settings(SETTINGS)).fit(iter(good(10)))


def test_another_fit_sees_pictures_in_their_own_shape() -> None:
    score = {"kind": "transformation", "cases": 3}
    settings = train_settings({**SETTINGS, "image_size": None, "resolution": {}, "score": score})
    detector = Detector(settings).fit([image[:100, :200] for image in good(4)])
    assert detector.settings.image_size == (224, 448)
    assert detector.fit([image[:200, :100] for image in good(4)]).settings.image_size == (448, 224)


def test_too_few_pictures_are_refused_as_ever() -> None:
    with pytest.raises(BadInputError, match="at least 10 good training images, got 9"):
        Detector(train_settings(SETTINGS)).fit(good(9))
