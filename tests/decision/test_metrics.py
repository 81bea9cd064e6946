import json
import time

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as reference

from morphad.base.errors import BadInputError
from morphad.decision.metrics import (
    evaluate,
    histogram_rows,
    image_intervals,
    image_metrics,
    is_defect,
    per_defect,
    ranking,
    roc_points,
)
from morphad.decision.resampling import stratified_counts
from morphad.settings import CostSettings, EvaluateSettings

SETTINGS = EvaluateSettings(bootstrap=200, parts_per_shift=5000, defect_rate=0.01)
IMAGES = st.lists(
    st.tuples(st.booleans(), st.one_of(st.integers(-2, 2).map(float), st.floats(-1e6, 1e6))), min_size=2, max_size=40
)


def _random(n_good=60, n_defect=40, shift=1.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.array(["good"] * n_good + ["defect"] * n_defect)
    return labels, rng.normal(size=labels.size) + shift * (labels == "defect")


def _f1_max(defect, scores):
    precision, recall, _ = reference.precision_recall_curve(defect, scores)
    return max(2 * p * r / (p + r) if p + r else 0 for p, r in zip(precision, recall, strict=True))


@given(images=IMAGES)
def test_image_metrics_are_those_of_scikit_learn(images):
    defect, scores = np.array([d for d, _ in images]), np.array([s for _, s in images])
    assume(defect.any() and not defect.all())
    found = image_metrics(defect, scores)
    assert found["image_auroc"] == pytest.approx(reference.roc_auc_score(defect, scores))
    assert found["image_ap"] == pytest.approx(reference.average_precision_score(defect, scores))
    assert found["image_f1_max"] == pytest.approx(_f1_max(defect, scores))


def test_a_resample_by_counts_is_a_resample_by_indices():
    labels, scores = _random()
    defect, scores = is_defect(labels), np.round(scores, 1)
    counts = next(stratified_counts(defect, 25, seed=4))
    found = ranking(defect, scores, counts)
    for b, count in enumerate(counts):
        assert count[defect].sum() == 40
        assert count[~defect].sum() == 60
        drawn = np.repeat(np.arange(scores.size), count)
        assert found["image_auroc"][b] == pytest.approx(reference.roc_auc_score(defect[drawn], scores[drawn]))
        assert found["image_ap"][b] == pytest.approx(reference.average_precision_score(defect[drawn], scores[drawn]))
        assert found["image_f1_max"][b] == pytest.approx(_f1_max(defect[drawn], scores[drawn]))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    truth = 0.7602499389065233  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    held = 0
    for seed in range(200):
        labels, scores = _random(60, 60, shift=1.0, seed=seed)
        interval = image_intervals(labels, scores, 200, 0.9, seed)["image_auroc"]
        held += interval.low <= truth <= interval.high
    assert 0.83 <= held / 200 <= 0.96


def test_perfect_separation_is_not_taken_for_certainty():
    intervals = image_intervals(["good"] * 20 + ["defect"] * 10, np.arange(30.0), 200, 0.95)
    assert intervals["image_auroc"].low == pytest.approx(0.025 ** (1 / 10))
    assert intervals["image_auroc"].high == 1
    assert intervals["image_ap"] is None


def test_six_hundred_images_take_less_than_two_seconds():
    labels, scores = _random(400, 200)
    started = time.perf_counter()
    image_intervals(labels, scores, 1000, 0.95)
    assert time.perf_counter() - started < 2


def test_one_class_gives_none_and_valid_json():
    for labels in (["good"] * 3, ["defect"] * 3):
        result = evaluate(labels, [1.0, 2.0, 3.0], settings=SETTINGS, threshold=2.0)
        assert result["image_auroc"] is None
        assert result["intervals"] == {"image_auroc": None, "image_ap": None, "image_f1_max": None}
        assert roc_points(labels, [1.0, 2.0, 3.0]) == []
        json.dumps(result, allow_nan=False)
    assert evaluate(["good"] * 3, [1.0, 2.0, 3.0], settings=SETTINGS, threshold=2.0)["escape"] is None
    empty = evaluate([], [], settings=SETTINGS, threshold=2.0)
    assert empty["n_good"] == empty["n_defect"] == 0


def test_overkill_and_escape_at_the_threshold():
    labels = ["good"] * 4 + ["defect"] * 5
    scores = [1.0, 2.0, 3.0, 4.0, 3.0, 3.5, 9.0, 9.0, 9.0]
    result = evaluate(labels, scores, settings=SETTINGS, threshold=3.0, kinds=[""] * 4 + ["dent"] * 2 + ["scratch"] * 3)
    assert result["overkill"]["rate"] == 0.25  # 3.0 is not above the threshold
    assert result["overkill"]["parts_per_shift"] == pytest.approx(5000 * 0.99 * 0.25)
    assert result["escape"]["count"] == 1
    assert result["escape"]["parts_per_shift"] == pytest.approx(5000 * 0.01 * 0.2)
    assert result["overkill"]["low"] < 0.25 < result["overkill"]["high"]
    dent, scratch = result["per_defect"]["dent"], result["per_defect"]["scratch"]
    assert (dent["n"], dent["escapes"], dent["escape_rate"]) == (2, 1, 0.5)
    assert scratch["auroc"] == 1
    assert scratch["escape_rate"] == 0
    assert scratch["escape_high"] > 0.5  # three images prove little


def test_without_a_threshold_ranking_is_still_measured():
    labels, scores = _random()
    result = evaluate(labels, scores, settings=SETTINGS)
    assert result["threshold"] is result["overkill"] is result["escape"] is None
    assert result["image_auroc"] > 0.7
    assert result["per_defect"]["defect"]["escape_rate"] is None
    json.dumps(result, allow_nan=False)


def test_the_same_seed_gives_the_same_figures():
    labels, scores = _random()
    first, second = (evaluate(labels, scores, settings=SETTINGS, threshold=1.0, seed=3) for _ in range(2))
    assert first == second


def test_prices_give_an_operating_point():
    labels, scores = _random()
    cost = CostSettings(overkill=1, escape=200, defect_rate=0.01)
    result = evaluate(labels, scores, settings=SETTINGS.model_copy(update={"cost": cost}))
    assert "60 good images" in result["operating_point"]["basis"]


def test_pixels_of_a_defect_without_a_mask_are_left_out():
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    result = evaluate(
        ["good", "defect", "defect"],
        [0.0, 1.0, 2.0],
        settings=SETTINGS,
        masks=[None, mask, None],
        maps=[np.zeros((6, 9), np.float32), mask.astype(np.float32), np.full((5, 5), 7, np.float32)],
    )
    assert result["n_masks"] == 1
    assert result["pixel_auroc"] == result["aupro"] == 1
    none = evaluate(["good"], [0.0], settings=SETTINGS, masks=[None], maps=[np.zeros((6, 9), np.float32)])
    assert none["pixel_auroc"] is none["aupro"] is None
    with pytest.raises(BadInputError, match="one mask"):
        evaluate(["good"], [0.0], settings=SETTINGS, masks=[None], maps=[])


def test_rows_for_plots():
    labels, scores = _random()
    points = roc_points(labels, scores)
    assert (points[0], points[-1]) == ({"fpr": 0.0, "tpr": 0.0}, {"fpr": 1.0, "tpr": 1.0})
    rows = histogram_rows(labels, scores)
    assert len(rows) == 100
    assert rows[-1] == {"score": scores[-1], "label": "defect"}


def test_input_that_does_not_fit_is_refused():
    with pytest.raises(BadInputError, match="not finite"):
        image_metrics(["good", "defect"], [0.0, np.nan])
    with pytest.raises(BadInputError, match="one score a label"):
        image_metrics(["good", "defect"], [0.0])
    with pytest.raises(BadInputError, match="'bad' is not a label"):
        image_metrics(["good", "bad"], [0.0, 1.0])
    with pytest.raises(BadInputError, match="kinds"):
        per_defect(["good", "defect"], [0.0, 1.0], ["dent"], threshold=None, settings=SETTINGS)
