"""Readings of a network: how cases are chosen and spread, and what the Dirichlet distribution is fitted by."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.readings import READINGS, _inverse_digamma, choose, dirichlet, fuse, read, spread, tells
from morphad.model.morphology import case_table
from morphad.model.network import MorphologyNetwork
from morphad.settings.presets import train_settings


@given(st.integers(1, 60), st.integers(1, 400))
def test_cases_are_spread_from_first_to_last_and_none_comes_twice(count: int, total: int) -> None:
    cases = spread(count, total)
    assert len(cases) == len(set(cases)) <= min(count, total)
    assert cases[0] == 0
    assert count == 1 or cases[-1] == total - 1


def test_the_case_that_tells_most_is_chosen_first_and_a_case_that_harms_last() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, spoilt = torch.randn(4, 300, generator=generator), torch.randn(4, 300, generator=generator)
    spoilt[2] += 3
    spoilt[0] += 1
    spoilt[3] -= 2
    order = choose(clean, spoilt, 9)
    assert sorted(order) == [0, 1, 2, 3]
    assert (order[0], order[-1]) == (2, 3)


def test_fused_scores_tell_more_than_the_best_and_one_that_defects_do_not_raise_has_no_say() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, spoilt = (torch.randn(3, 400, generator=generator) for _ in range(2))
    scale = torch.tensor([[1.0], [50.0], [7.0]])
    spoilt += torch.tensor([[1.0], [1.0], [-2.0]])
    of_clean, of_spoilt = (fuse(rows * scale, clean * scale, spoilt * scale) for rows in (clean, spoilt))
    fused = tells(of_clean, of_spoilt)
    assert fused > max(tells(clean[row], spoilt[row]) for row in range(3)) + 0.03
    torch.testing.assert_close(of_spoilt, fuse(spoilt[:2], clean[:2], spoilt[:2]))


def test_the_inverse_of_digamma_is_one() -> None:
    values = torch.tensor([0.01, 0.3, 1.0, 7.0, 200.0], dtype=torch.float64)
    torch.testing.assert_close(_inverse_digamma(torch.digamma(values)), values, rtol=1e-6, atol=1e-6)


def test_probabilities_unlike_those_of_good_images_are_improbable() -> None:
    alpha = torch.tensor([8.0, 2.0, 1.0], dtype=torch.float64)
    torch.manual_seed(0)
    good = torch.distributions.Dirichlet(alpha).sample((2000,)).log().float()
    turned = good[:200].flip(1)

    class Head:
        scale = 1.0

    class Named:
        case_head = Head()

        @staticmethod
        def case_cosines(embeddings: torch.Tensor) -> torch.Tensor:
            return embeddings  # logarithms of probabilities are their own logits

    usual, odd = (dirichlet(Named(), 0, good, rows) for rows in (good, turned))  # type: ignore[arg-type]
    assert np.median(odd) > np.quantile(usual, 0.99)


def test_each_reading_gives_one_finite_value_a_case_and_image() -> None:
    settings = train_settings(
        {"preset": "paper", "backbone": "small", "image_size": (32, 32), "cases": {"heights": (1, 3), "widths": (1, 3)},
         "score": {"layers": ("stage2",)}}
    )  # fmt: skip
    table = case_table(settings.cases)
    network = MorphologyNetwork(settings, table, 0).eval()
    images = torch.randint(0, 255, (9, 1, 32, 32), dtype=torch.uint8)
    values = read(network, table, [0, 3], images[:6], images)
    assert set(values) == set(READINGS)
    assert all(rows.shape == (2, 9) and rows.isfinite().all() for rows in values.values())
