import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from morphad.base.errors import BadInputError
from morphad.decision.calibration import Calibration, calibrate, operating_point
from morphad.settings import CostSettings

RATES = st.one_of(
    st.floats(1e-4, 0.9999), st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.15, 0.2, 0.3, 1 / 3, 0.5, 0.7, 0.95])
)
TIED = st.lists(st.integers(-3, 3).map(float), max_size=60)
CONTINUOUS = st.lists(st.floats(-1e300, 1e300, allow_nan=False), max_size=60)


@given(scores=st.one_of(TIED, CONTINUOUS), rate=RATES, tested=st.one_of(TIED, CONTINUOUS))
def test_an_image_is_rejected_exactly_when_its_p_value_is_at_most_the_rate(scores, rate, tested):
    calibration = calibrate(scores, rate)
    tested = np.array([*tested, *scores])
    significant = calibration.p_values(tested) <= rate
    if calibration.threshold is None:
        assert calibration.rejected(tested) is None
        assert not significant.any()
    else:
        np.testing.assert_array_equal(tested > calibration.threshold, significant)


@given(scores=CONTINUOUS, rate=RATES, confidence=st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_json_gives_back_every_bit(scores, rate, confidence):
    calibration = calibrate(scores, rate, confidence)
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json(), allow_nan=False))) == calibration


@given(n=st.integers(0, 300), rate=RATES)
def test_attainable_exactly_from_the_number_of_images_that_it_asks_for(n, rate):
    calibration = calibrate(np.arange(n, dtype=float), rate)
    assert (calibration.threshold is not None) == (n >= calibration.images_needed)


@pytest.mark.parametrize("denominator", [2, 3, 5, 7, 10, 20, 30, 40, 50, 100, 200, 1000])
def test_rounding_costs_no_image(denominator):
    rate = 1 / denominator
    assert calibrate(np.arange(denominator - 1.0), rate).threshold == denominator - 2
    assert calibrate(np.arange(denominator - 2.0), rate).threshold is None
    assert calibrate([], rate).images_needed == denominator - 1


@given(n=st.integers(1, 400), hundredths=st.integers(1, 99))
def test_rank_is_the_textbook_one(n, hundredths):
    calibration = calibrate(np.arange(n, dtype=float), hundredths / 100)
    k = math.ceil((n + 1) * (1 - Fraction(hundredths, 100)))
    assert calibration.rank == k
    assert calibration.threshold == (k - 1 if k <= n else None)


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (30, 0.1), (118, 0.05), (50, 0.33)])
@pytest.mark.parametrize("tied", [False, True])
def test_coverage_holds_on_exchangeable_scores(n, rate, tied):
    draws, rng = 20_000, np.random.default_rng(7)
    scores = rng.gamma(2.0, size=(draws, n + 1))
    if tied:
        scores = np.round(scores, 1)
    k = calibrate(np.arange(n, dtype=float), rate).rank
    threshold = np.sort(scores[:, :n], axis=1)[:, k - 1]
    rejected = int((scores[:, n] > threshold).sum())
    expected = calibrate(np.arange(n, dtype=float), rate).expected_rate
    assert rejected <= stats.binom.ppf(1 - 1e-6, draws, rate)
    if not tied:
        assert stats.binom.ppf(1e-6, draws, expected) <= rejected <= stats.binom.ppf(1 - 1e-6, draws, expected)


def test_the_upper_bound_holds_for_the_promised_share_of_thresholds():
    n, rate, confidence, draws = 60, 0.05, 0.9, 20_000
    bound = calibrate(np.arange(n, dtype=float), rate, confidence).upper_bound
    rng = np.random.default_rng(3)
    k = calibrate(np.arange(n, dtype=float), rate).rank
    own_rate = 1 - np.sort(rng.random((draws, n)), axis=1)[:, k - 1]  # uniform scores: P(score > t) = 1 - t
    assert abs((own_rate <= bound).mean() - confidence) < 0.01


def test_too_few_images_are_said_to_be_too_few():
    guarantee = calibrate(np.arange(18.0), 0.05).guarantee
    assert guarantee == (
        "not attainable with 18 images: at least 19 good calibration images are needed for a false-reject rate of 5 %"
    )
    attainable = calibrate(np.arange(118.0), 0.05)
    assert "at most 5 % of good parts" in attainable.guarantee
    assert "118 good images" in attainable.guarantee


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(BadInputError, match="not finite"):
        calibrate([1.0, bad], 0.5)
    with pytest.raises(BadInputError, match="number 1"):
        calibrate([1.0, 2.0], 0.5).p_values([0.0, bad])


def test_wrong_shapes_and_rates_are_refused():
    with pytest.raises(BadInputError, match="shape"):
        calibrate([[1.0, 2.0]], 0.5)
    with pytest.raises(BadInputError, match="false_reject_rate"):
        calibrate([1.0, 2.0], 5)
    with pytest.raises(BadInputError, match="numbers"):
        calibrate(["high"], 0.5)


def test_a_threshold_changed_by_hand_is_noticed():
    written = calibrate(np.arange(30.0), 0.1).to_json()
    with pytest.raises(BadInputError, match="changed by hand"):
        Calibration.from_json({**written, "threshold": 99.0})
    with pytest.raises(BadInputError, match="calibrate again"):
        Calibration.from_json({"scores": [1.0]})


@given(
    good=st.lists(st.integers(0, 8).map(float), min_size=1, max_size=15),
    defect=st.lists(st.integers(0, 8).map(float), min_size=1, max_size=15),
    overkill=st.floats(0.1, 10),
    escape=st.floats(0.1, 1000),
    rate=st.floats(0.001, 0.5),
)
def test_no_threshold_is_cheaper_than_the_operating_point(good, defect, overkill, escape, rate):
    cost = CostSettings(overkill=overkill, escape=escape, defect_rate=rate)
    point = operating_point(good, defect, cost)
    good, defect = np.array(good), np.array(defect)

    def at(threshold):
        return rate * escape * np.mean(defect <= threshold) + (1 - rate) * overkill * np.mean(good > threshold)

    assert point.cost_per_part == pytest.approx(min(at(t) for t in np.arange(-0.5, 9)))
    assert point.cost_per_part == pytest.approx(at(point.threshold))
    assert point.overkill_rate == np.mean(good > point.threshold)
    assert point.escape_rate == np.mean(defect <= point.threshold)
    assert point.overkill.low <= point.overkill_rate <= point.overkill.high
    assert point.escape.low <= point.escape_rate <= point.escape.high


def test_the_operating_point_lies_halfway_and_says_what_it_rests_on():
    point = operating_point([1, 2, 3], [7, 9], CostSettings(overkill=1, escape=50, defect_rate=0.01))
    assert point.threshold == 5
    assert "3 good images and 2 defect images" in point.basis
    json.dumps(point.to_json(), allow_nan=False)


def test_the_operating_point_needs_both_kinds():
    with pytest.raises(BadInputError, match="0 defect"):
        operating_point([1.0], [], CostSettings(overkill=1, escape=50, defect_rate=0.01))
