"""Scores and maps of planted defects, with a small network that is not trained."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from morphad.base.errors import BadInputError
from morphad.model.morphology import case_table
from morphad.model.network import MorphologyNetwork
from morphad.model.scorers import make_scorer
from morphad.model.scoring.base import Scorer
from morphad.model.scoring.fusion import contrast_with_surroundings, edge_gains
from morphad.model.scoring.patches import DensityScorer
from morphad.model.scoring.transformation import TransformationScorer
from morphad.settings import ScoreSettings, TrainSettings
from morphad.settings.presets import train_settings

SIDE = 64
GRID = 8  # px between places


def settings(**score: Any) -> TrainSettings:
    return train_settings(
        {
            "preset": "fast",
            "image_size": (SIDE, SIDE),
            "backbone": "small",
            "weights": "none",
            "cases": {"heights": (1, 3), "widths": (1, 3)},
            "score": {"layers": ("stage2",), "channels": 16, "memory": 100, **score},
        }
    )


def textures(count: int, seed: int, height: int = SIDE, width: int = SIDE) -> Tensor:
    """Good parts [N, 3, H, W]: a weave with a little noise and light that varies."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    weave = 120 + 25 * np.sin(y / 3) * np.cos(x / 4)
    light = rng.normal(0, 4, (count, 1, 1))
    grey = (weave + light + rng.normal(0, 3, (count, height, width))).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(grey)[:, None].expand(-1, 3, -1, -1).contiguous()


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Parts with a bright round blob, and where it is: bool [N, H, W]."""
    rng = np.random.default_rng(seed)
    spoilt, masks = textures(count, seed), torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    for i in range(count):
        centre = rng.integers(12, SIDE - 12, 2)
        masks[i] = (y - int(centre[0])).square() + (x - int(centre[1])).square() <= 36
        spoilt[i, :, masks[i]] = 235
    return spoilt, masks


def fitted(score: dict[str, Any], count: int = 40) -> tuple[Scorer, MorphologyNetwork]:
    chosen = settings(**score)
    table = case_table(chosen.cases)
    network = MorphologyNetwork(chosen, table, 0).eval()
    scorer = make_scorer(chosen.score, table, 0, None)
    with torch.inference_mode():
        return scorer.fit(network, textures(count, 1), lambda done: None), network


KINDS: dict[str, dict[str, Any]] = {
    "gaussian": {"densities": ("gaussian",)},
    "memory": {"densities": ("memory",)},
    "subspace": {"densities": ("subspace",)},
    "all": {},
    "views": {"densities": ("gaussian",), "views": ("identity", "dilation_3x3", "erosion_5x1")},
    "transformation": {"kind": "transformation", "cases": 3},
}


@pytest.fixture(scope="module")
def of() -> Callable[[str], tuple[Scorer, MorphologyNetwork]]:
    made = {name: fitted(score) for name, score in KINDS.items()}
    return lambda name: made[name]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "transformation"])
def test_a_planted_blob_stands_out_and_is_found(kind: str, of: Callable[..., tuple[Scorer, MorphologyNetwork]]) -> None:
    scorer, network = of(kind)
    spoilt, masks = blobs(12, 2)
    with torch.inference_mode():
        good, bad = scorer.score(network, textures(24, 3)), scorer.score(network, spoilt)

    assert bad.scores.min() > good.scores.max()
    assert bad.maps.shape == (12, SIDE, SIDE)
    peaks = bad.maps.flatten(1).argmax(1)
    near = functional.max_pool2d(masks[:, None].float(), 2 * GRID + 1, 1, GRID).bool()
    assert near.flatten(1)[torch.arange(12), peaks].sum() >= 11
    hundredth = bad.maps.flatten(1).sort(1).values[:, -round(SIDE * SIDE / 100) :].mean(1)
    torch.testing.assert_close(bad.scores, hundredth.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", list(KINDS))
class TestEveryScore:
    def test_an_image_is_scored_alone(self, kind: str, of: Callable[..., tuple[Scorer, MorphologyNetwork]]) -> None:
        scorer, network = of(kind)
        images = torch.cat([textures(5, 3), blobs(4, 2)[0]])
        # An evidence of 1 - cosine loses digits where all good images are recognised alike.
        close = 1e-4 if kind == "transformation" else 1e-5
        with torch.inference_mode():
            together = scorer.score(network, images)
            for i in (0, 8):
                alone = scorer.score(network, images[i : i + 1])
                torch.testing.assert_close(alone.scores, together.scores[i : i + 1], rtol=close, atol=close)
                torch.testing.assert_close(alone.maps, together.maps[i : i + 1], rtol=1e-4, atol=1e-4)

    def test_a_stored_score_is_the_same(self, kind: str, of: Callable[..., tuple[Scorer, MorphologyNetwork]]) -> None:
        scorer, network = of(kind)
        chosen = settings(**KINDS[kind])
        other = make_scorer(chosen.score, case_table(chosen.cases), 0, None)
        other.load_state({name: tensor.clone() for name, tensor in scorer.state().items()})
        with torch.inference_mode():
            images = blobs(4, 2)[0]
            assert torch.equal(other.score(network, images).scores, scorer.score(network, images).scores)
            assert torch.equal(other.score(network, images).maps, scorer.score(network, images).maps)

    def test_scores_and_maps_are_finite_numbers_of_the_stated_kind(
        self, kind: str, of: Callable[..., tuple[Scorer, MorphologyNetwork]]
    ) -> None:
        scorer, network = of(kind)
        black = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8)
        with torch.inference_mode():
            scored = scorer.score(network, torch.cat([black, textures(1, 3)]))
        assert scored.scores.dtype == torch.float64
        assert scored.maps.dtype == torch.float32
        assert scored.scores.isfinite().all()
        assert scored.maps.isfinite().all()
        assert scored.scores[0] == scored.scores[1]

    def test_too_few_images_are_told(self, kind: str) -> None:
        needed = 2 if kind == "transformation" else 10
        with pytest.raises(BadInputError, match=rf"needs at least {needed} good training images, got {needed - 1}"):
            fitted(KINDS[kind], needed - 1)
        scorer, network = fitted(KINDS[kind], needed)
        with torch.inference_mode():
            assert scorer.score(network, textures(2, 3)).scores.isfinite().all()

    def test_progress_counts_every_image_once(self, kind: str) -> None:
        chosen, seen = settings(**KINDS[kind]), []
        table = case_table(chosen.cases)
        network = MorphologyNetwork(chosen, table, 0).eval()
        with torch.inference_mode():
            make_scorer(chosen.score, table, 0, None).fit(network, textures(19, 1), seen.append)
        assert sum(seen) == 19


class TestDensityScore:
    def test_weights_are_shares(self, of: Callable[..., tuple[Scorer, MorphologyNetwork]]) -> None:
        for kind, components in (("gaussian", 1), ("memory", 1), ("subspace", 1), ("all", 3), ("views", 3)):
            state = of(kind)[0].state()
            assert state["weights"].shape == state["centres"].shape == state["scales"].shape == (components,)
            assert float(state["weights"].sum()) == pytest.approx(1, abs=1e-6)
            assert (state["weights"] >= 0).all()
            assert (state["scales"] > 0).all()

    def test_scores_of_good_images_are_in_units_of_their_own_deviation(
        self, of: Callable[..., tuple[Scorer, MorphologyNetwork]]
    ) -> None:
        scorer, network = of("gaussian")
        with torch.inference_mode():
            scores = scorer.score(network, textures(60, 3)).scores
        assert abs(float(scores.mean())) < 2
        assert 0.2 < float(scores.std()) < 5

    def test_a_defect_among_few_images_has_one_score_in_whatever_order_they_come(self) -> None:
        chosen = settings(densities=("gaussian",))
        table = case_table(chosen.cases)
        network = MorphologyNetwork(chosen, table, 0).eval()
        few, defects = textures(10, 1), blobs(4, 2)[0]
        means = []
        with torch.inference_mode():
            for shift in range(5):
                scorer = make_scorer(chosen.score, table, 0, None)
                scorer.fit(network, few.roll(shift, 0), lambda done: None)
                means.append(float(scorer.score(network, defects).scores.mean()))
        assert max(means) < 1.1 * min(means)  # 38 times, where two of the ten images set the scale

    def test_identical_images_give_a_score_that_still_works(self) -> None:
        chosen = settings()
        table = case_table(chosen.cases)
        network = MorphologyNetwork(chosen, table, 0).eval()
        scorer = make_scorer(chosen.score, table, 0, None)
        with torch.inference_mode():
            same = textures(1, 1).expand(20, -1, -1, -1).contiguous()
            scorer.fit(network, same, lambda done: None)
            assert scorer.score(network, same[:2]).scores.isfinite().all()
            assert scorer.score(network, blobs(2, 2)[0]).scores.min() > scorer.score(network, same[:1]).scores[0]

    @pytest.mark.parametrize(("height", "width"), [(1024, 32), (32, 640)])
    def test_long_images_are_smoothed_too(self, height: int, width: int) -> None:
        chosen = settings(densities=("gaussian",), layers=("stage3",))
        table = case_table(chosen.cases)
        network = MorphologyNetwork(chosen, table, 0).eval()
        scorer = DensityScorer(chosen.score, 0, None)
        with torch.inference_mode():
            images = textures(10, 1, height, width)
            scorer.fit(network, images, lambda done: None)
            assert scorer.score(network, images[:1]).maps.shape == (1, height, width)

    def test_the_edge_of_a_texture_is_not_taken_for_a_defect(self) -> None:
        """A network that pads with zeros sees structure at the edge; the most abnormal place must not sit there."""
        noise = gaussian_filter(np.random.default_rng(7).normal(size=(400, 400)), 2)
        surface = (127 + 45 * noise / noise.std()).clip(0, 255).astype(np.uint8)

        def crops(count: int, seed: int) -> Tensor:
            corners = np.random.default_rng(seed).integers(0, 400 - 96, (count, 2))
            cut = np.stack([surface[y : y + 96, x : x + 96] for y, x in corners])
            return torch.from_numpy(cut)[:, None].expand(-1, 3, -1, -1).contiguous()

        untrained = {"preset": "fast", "image_size": (96, 96), "optimiser": {"steps": 0}}
        chosen = train_settings({**untrained, "score": {"densities": ("memory",), "memory": 300}})
        table = case_table(chosen.cases)
        network = MorphologyNetwork(chosen, table, 0).eval()
        scorer = make_scorer(chosen.score, table, 0, None)
        with torch.inference_mode():
            scorer.fit(network, crops(60, 1), lambda _: None)
            maps = torch.cat([scorer.score(network, batch).maps for batch in crops(200, 2).split(20)])
        at_edge = torch.ones(96, 96, dtype=torch.bool)
        at_edge[GRID:-GRID, GRID:-GRID] = False
        most_abnormal = maps.flatten(1).argmax(1)
        share = at_edge.flatten()[most_abnormal].float().mean()
        assert at_edge.float().mean() / 2 < share < 1.2 * at_edge.float().mean()  # 93 % without the gains

    def test_a_look_that_is_no_case_is_told(self) -> None:
        with pytest.raises(BadInputError, match="'erode_3x3' is not a case; expected identity or OPERATOR_"):
            make_scorer(ScoreSettings(views=("erode_3x3",)), (), 0, None)


class TestEdgeGains:
    @given(count=st.integers(1, 5), height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 2**31))
    def test_no_zone_goes_higher_than_the_inner_one_and_none_is_raised(
        self, count: int, height: int, width: int, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        loudness = 3 * torch.rand(height, width, 2, generator=generator)
        maps = torch.rand(count, height, width, 2, generator=generator) * loudness
        gains = edge_gains(maps)
        assert gains.shape == (height, width, 2)
        assert ((gains > 0) & (gains <= 1)).all()
        again = edge_gains(maps * gains)
        torch.testing.assert_close(again, torch.ones_like(again), rtol=1e-3, atol=1e-3)

    def test_a_loud_rim_and_louder_corners_are_brought_down_to_the_middle(self) -> None:
        maps = torch.ones(3, 20, 28, 2)
        rim = torch.ones(20, 28, dtype=torch.bool)
        rim[2:-2, 2:-2] = False
        maps[:, rim, 0] = 2.0
        maps[:, [0, 0, -1, -1], [0, -1, 0, -1], 0] = 4.0
        maps[:, rim, 1] = 0.5  # bland, and left so
        gains = edge_gains(maps)
        torch.testing.assert_close((gains * maps[0])[..., 0], torch.ones(20, 28))
        assert (gains[..., 1] == 1).all()

    def test_maps_of_zeros_keep_their_rim(self) -> None:
        assert (edge_gains(torch.zeros(2, 9, 9, 1)) == 1).all()


class TestRelief:
    @given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 2**31))
    def test_it_tells_places_from_their_surroundings_and_not_how_loud_a_map_is(
        self, height: int, width: int, seed: int
    ) -> None:
        maps = 1 + torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed))
        contrast = contrast_with_surroundings(maps)
        assert contrast.shape == maps.shape
        assert ((contrast > 0.5) & (contrast < 2)).all()  # no more than the map's own contrast
        torch.testing.assert_close(contrast_with_surroundings(7 * maps), contrast, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(contrast_with_surroundings(torch.full_like(maps, 3.0)), torch.ones_like(maps))

    def test_maps_of_zeros_are_flat(self) -> None:
        assert (contrast_with_surroundings(torch.zeros(1, 8, 8)) == 1).all()

    def test_a_blurred_map_takes_on_the_contours_of_a_sharp_one(self) -> None:
        sharp = torch.ones(1, 28, 28)
        sharp[:, 10:13, 10:13] = 9.0
        blurred = functional.avg_pool2d(sharp[:, None], 7, 1, 3, count_include_pad=False)[:, 0]
        drawn = blurred * contrast_with_surroundings(sharp)
        inside, beside = drawn[0, 11, 11], drawn[0, 8, 11]
        assert blurred[0, 11, 11] < 2 * blurred[0, 8, 11]
        assert inside > 8 * beside

    @pytest.mark.parametrize("densities", [("gaussian", "memory"), ("gaussian",)])
    def test_the_memory_draws_what_others_blur(self, densities: tuple[str, ...]) -> None:
        """A Gaussian's map changes where a memory stands beside it, and only there."""
        chosen = settings(densities=densities, layers=("stage3",), memory=300)
        table = case_table(chosen.cases)
        network = MorphologyNetwork(chosen, table, 0).eval()
        scorer = DensityScorer(chosen.score, 0, None)
        with torch.inference_mode():
            scorer.fit(network, textures(40, 1), lambda done: None)
            distances = scorer._distances(network, blobs(4, 2)[0])
            gaussian = scorer._component_maps(distances)[..., 0]
        changed = (gaussian - (distances * scorer._edge_gains)[..., 0]).abs().max()
        assert (changed > 0.1) == ("memory" in densities)


def test_transformation_cases_are_spread_over_the_table() -> None:
    table = case_table(settings().cases)
    for count in (1, 2, 3, len(table), 1000):
        indices = TransformationScorer(ScoreSettings(kind="transformation", cases=count), table, None)._indices
        assert len(indices) == len(set(indices)) == min(count, len(table))
        assert indices[0] == 0
        assert count == 1 or indices[-1] == len(table) - 1
