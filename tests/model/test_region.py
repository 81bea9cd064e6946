"""What lies outside the region changes nothing, by no path; what lies inside is found where it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from morphad.base.errors import BadInputError
from morphad.inspection import DetectorModel
from morphad.model.detector import Detector
from morphad.model.prepare import prepare
from morphad.model.region import Region
from morphad.model.scoring.fusion import contrast_with_surroundings, edge_gains
from morphad.model.scoring.synthetic import with_anomalies
from morphad.settings import CalibrateSettings, RegionSettings, TrainSettings
from morphad.settings.presets import train_settings
from tiny import TRAIN

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 60, 90
# A triangle without its tip and without a label on it.
REGION = {
    "size": [HEIGHT, WIDTH],
    "inspect": [[[10, 50], [70, 50], [40, 5]]],
    "ignore": [[[0, 0], [89, 15]], [[30, 40], [45, 45]]],
}


def settings(**changed: Any) -> TrainSettings:
    return train_settings({**TRAIN, "region": REGION, **changed})


def parts(count: int, seed: int) -> Pixels:
    rng = np.random.default_rng(seed)
    return rng.normal(120, 10, (count, HEIGHT, WIDTH)).clip(0, 255).astype(np.uint8)


def elsewhere(images: Pixels, inside: NDArray[np.bool_], seed: int) -> Pixels:
    """The same inside, anything outside."""
    noise = np.random.default_rng(seed).integers(0, 256, images.shape, dtype=np.uint8)
    return np.where(inside if images.ndim < 4 else inside[..., None], images, noise)


SCORES = {"density": TRAIN["score"], "transformation": {"kind": "transformation", "cases": 3}}


@pytest.fixture(scope="module", params=list(SCORES))
def fitted(request: pytest.FixtureRequest) -> Detector:
    detector = Detector(settings(score=SCORES[request.param])).fit(parts(20, 0))
    return detector.calibrate(parts(20, 1), CalibrateSettings(false_reject_rate=0.1))


@st.composite
def regions(draw: st.DrawFn, height: int = 24, width: int = 36) -> RegionSettings:
    point = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    shapes = st.lists(st.lists(point, min_size=2, max_size=6), max_size=3)
    inspect, ignore = draw(shapes), draw(shapes)
    return RegionSettings(size=(height, width), inspect=inspect or [[(1, 1), (20, 20)]], ignore=ignore)


@given(region=regions(), seed=st.integers(0, 1000), channels=st.sampled_from([(), (3,)]))
def test_nothing_outside_reaches_the_network(region: RegionSettings, seed: int, channels: tuple[int, ...]) -> None:
    try:
        inside = Region(region).inside
    except BadInputError as error:
        assert "nothing is left to inspect" in str(error)
        return
    image = np.random.default_rng(seed).integers(0, 256, (24, 36, *channels), dtype=np.uint8)
    other = np.where(inside if not channels else inside[..., None], image, 255 - image)
    for size in ((32, 32), (40, 64)):
        chosen = train_settings({**TRAIN, "image_size": size, "region": region})
        assert torch.equal(prepare(image, chosen, size)[0], prepare(other, chosen, size)[0])


@given(seed=st.integers(0, 10_000))
@hypothesis_settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scores_and_maps_are_bit_equal_whatever_lies_outside(fitted: Detector, seed: int) -> None:
    assert fitted.region is not None
    images = parts(3, seed)
    others = elsewhere(images, fitted.region.inside, seed)
    assert not np.array_equal(images, others)
    for one, other in zip(fitted.predict(images), fitted.predict(others), strict=True):
        assert (one.score, one.rejected, one.p_value) == (other.score, other.rejected, other.p_value)
        assert np.array_equal(one.heatmap, other.heatmap)


def test_a_detector_learns_nothing_of_what_lies_outside(fitted: Detector, tmp_path: Path) -> None:
    assert fitted.region is not None
    other = Detector(fitted.settings).fit(elsewhere(parts(20, 0), fitted.region.inside, 5))
    other.calibrate(elsewhere(parts(20, 1), fitted.region.inside, 6), CalibrateSettings(false_reject_rate=0.1))
    for name, detector in (("one", fitted), ("other", other)):
        detector.save(tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes(), file.name


def test_a_defect_inside_is_found_and_one_outside_is_not(fitted: Detector) -> None:
    assert fitted.region is not None
    assert fitted.calibration_ is not None
    assert fitted.heatmap_scale_ is not None
    [good] = parts(1, 7)
    inside, outside, ignored = good.copy(), good.copy(), good.copy()
    inside[25:36, 35:46] = 255
    outside[52:60, 75:90] = 255
    ignored[41:45, 31:45] = 255
    ordinary, found, missed, overlooked = fitted.predict([good, inside, outside, ignored])
    assert found.score != ordinary.score == missed.score == overlooked.score
    assert found.heatmap.shape == (HEIGHT, WIDTH)
    if fitted.settings.score.kind == "density":  # two steps of training are too few for the other
        assert found.score > ordinary.score
        assert found.rejected
        y, x = np.unravel_index(found.heatmap.argmax(), found.heatmap.shape)
        assert abs(y - 30) < 12
        assert abs(x - 40) < 12
    for prediction in (ordinary, found):
        beyond = prediction.heatmap[~fitted.region.inside]
        assert (beyond == beyond[0]).all()
        assert beyond[0] <= prediction.heatmap.min()
        assert beyond[0] <= fitted.heatmap_scale_[0]


def test_a_map_lies_where_it_was_cut_from() -> None:
    region = Region(RegionSettings(size=(6, 8), inspect=[[[2, 1], [5, 3]]], ignore=[[[5, 3], [5, 3]]]))
    cut = region.cut(np.arange(48, dtype=np.uint8).reshape(6, 8))
    assert cut.tolist() == [[10, 11, 12, 13], [18, 19, 20, 21], [26, 27, 28, 128]]
    assert region.put_back(cut.astype(np.float32), 100).min() == 10
    back = region.put_back(cut.astype(np.float32), -1)
    assert back.shape == (6, 8)
    assert (back[region.inside] == np.arange(48).reshape(6, 8)[region.inside]).all()
    assert (back[~region.inside] == -1).all()
    assert region.share == 11 / 48


def test_the_picture_that_is_given_stays_as_it_was(fitted: Detector) -> None:
    [image] = parts(1, 3)
    before = image.copy()
    list(fitted.predict([image]))
    assert np.array_equal(image, before)


def test_the_region_travels_with_the_detector(fitted: Detector, tmp_path: Path) -> None:
    fitted.save(tmp_path / "detector")
    loaded = Detector.load(tmp_path / "detector")
    assert loaded.settings.region == fitted.settings.region
    for one, other in zip(fitted.predict(parts(3, 9)), loaded.predict(parts(3, 9)), strict=True):
        assert one.score == other.score
        assert np.array_equal(one.heatmap, other.heatmap)


def test_a_picture_of_another_size_is_refused_and_spoils_no_other(fitted: Detector) -> None:
    with pytest.raises(BadInputError, match=r"an image is 90 x 60 px, but train\.region .* of 60 x 90 px"):
        fitted.score_samples(parts(1, 0).transpose(0, 2, 1))

    def encoded(pixels: Pixels) -> bytes:
        from io import BytesIO

        from PIL import Image

        stream = BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    [good] = parts(1, 0)
    small, right = DetectorModel(fitted).predict([encoded(good[:-1]), encoded(good)], heatmaps=True)
    assert small.score is None
    assert "is 59 x 90 px, but train.region was drawn on pictures of 60 x 90 px" in small.error
    assert right.score == fitted.score_samples([good])[0]
    assert right.heatmap is not None
    assert fitted.region is not None
    assert (right.heatmap[~fitted.region.inside] == 0).all()


def test_a_region_that_ignores_all_that_it_inspects_is_refused_before_any_work() -> None:
    region = {"size": [60, 90], "inspect": [[[5, 5], [20, 20]]], "ignore": [[[0, 0], [30, 30]]]}
    with pytest.raises(BadInputError, match=r"train\.region: nothing is left to inspect.*make `ignore` smaller"):
        Detector(settings(region=region))


@pytest.mark.parametrize("function", [edge_gains, contrast_with_surroundings])
def test_places_that_do_not_count_change_nothing_at_those_that_do(function: Callable[..., torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(5, 12, 16, 2, generator=generator)
    maps = maps if function is edge_gains else maps[..., 0]
    inside = torch.zeros(12, 16, dtype=torch.bool)
    inside[2:9, 3:12] = True
    shaped = inside[..., None] if function is edge_gains else inside
    loud = torch.where(shaped, maps, 1000 * maps)
    of_maps, of_loud = function(maps, inside), function(loud, inside)
    assert of_loud.isfinite().all()
    cut = (inside,) if function is edge_gains else (slice(None), inside)
    assert torch.equal(of_maps[cut], of_loud[cut])
    everywhere = torch.ones_like(inside)
    assert torch.allclose(function(maps, everywhere), function(maps))


def test_synthetic_anomalies_change_what_is_inspected_alone() -> None:
    images = torch.randint(0, 256, (30, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[40:60, 2:9] = True
    changed = with_anomalies(images, 0, inside) != images
    assert not changed[..., ~inside].any()
    assert changed.any((1, 2, 3)).float().mean() > 0.7
