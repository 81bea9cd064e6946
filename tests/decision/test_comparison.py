import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from morphad.decision.comparison import chance_of_as_many, paired_differences, resampled_auroc
from morphad.decision.metrics import ranking
from morphad.decision.resampling import one_sided_bounds, stratified_counts


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n_good=st.integers(1, 30), n_defect=st.integers(1, 30), levels=st.integers(1, 50))
def test_auroc_of_resamples_is_that_of_the_ranking_with_ties(seed, n_good, n_defect, levels):
    rng = np.random.default_rng(seed)
    defect = rng.permutation(np.arange(n_good + n_defect) < n_defect)
    scores = rng.integers(0, levels, defect.size).astype(float)
    (counts,) = stratified_counts(defect, 20, seed)
    found = resampled_auroc(defect, scores, counts)
    np.testing.assert_allclose(found, ranking(defect, scores, counts)["image_auroc"])


@settings(max_examples=50, deadline=None)
@given(newly_missed=st.integers(0, 40), newly_found=st.integers(0, 40))
def test_chance_of_as_many_is_the_mid_p_value_of_the_binomial(newly_missed, newly_found):
    differing = newly_missed + newly_found
    mid = stats.binom.sf(newly_missed, differing, 0.5) + stats.binom.pmf(newly_missed, differing, 0.5) / 2
    assert chance_of_as_many(newly_missed, newly_found) == pytest.approx(mid)


def test_bounds_of_a_rate_by_hand():
    """Nothing in n: the upper bound p has (1 - p)^n = 0.05; all of n: the lower bound has p^n = 0.05."""
    assert one_sided_bounds(0, 29, 0.95) == (0.0, pytest.approx(1 - 0.05 ** (1 / 29)))
    assert one_sided_bounds(7, 7, 0.95) == (pytest.approx(0.05 ** (1 / 7)), 1.0)


def test_equal_models_differ_by_nothing_and_what_is_not_known_is_none():
    defect = np.array([False] * 5 + [True] * 4)
    scores = np.arange(9.0)
    both = paired_differences(
        defect, (scores, scores), (scores > 5, scores > 5), confidence=0.95, resamples=100, seed=0
    )
    assert all(found == {"value": 0.0, "low": 0.0, "high": 0.0} for found in both.values())
    without = paired_differences(defect, (scores, scores), (scores > 5, None), confidence=0.95, resamples=100, seed=0)
    assert without["auroc_difference"] is not None
    assert without["overkill_difference"] is None
    assert without["escape_difference"] is None
