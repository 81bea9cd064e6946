import pytest

from morphad.report.charts import roc_chart, score_histogram


def _rows(scores, label="good"):
    return [{"score": float(score), "label": label} for score in scores]


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [
        ([1.0, 2.0], 1.5),
        ([1.0], None),
        ([0.0, 0.0], 0.0),
        ([-5.0, 5.0], -9.0),
        ([1.0, 1e4], 9e3),
        ([1e-9, 1e9], 1.0),
    ],
)
def test_any_scores_can_be_drawn(scores, threshold):
    text = score_histogram(_rows(scores) + _rows(scores, "defect"), threshold)
    assert text.startswith('<svg class="chart"')
    assert ("threshold" in text) == (threshold is not None)
    assert "viewBox" in text


def test_far_apart_scores_are_on_a_logarithmic_axis_that_says_so():
    assert "logarithmic" in score_histogram(_rows([1.0, 2.0, 900.0]), 3.0)
    assert "logarithmic" not in score_histogram(_rows([1.0, 2.0, 9.0]), 3.0)


def test_colours_follow_the_page():
    text = score_histogram(_rows([1.0, 2.0]), 1.5)
    assert "var(--good)" in text
    assert "var(--ink)" in text
    assert "#010101" not in text


def test_roc_has_the_point_of_the_threshold_only_where_there_is_one():
    points = [{"fpr": 0.0, "tpr": 0.0}, {"fpr": 0.0, "tpr": 1.0}, {"fpr": 1.0, "tpr": 1.0}]
    rate = {"rate": 0.1, "low": 0.0, "high": 0.3}
    metrics = {"image_auroc": 1.0, "overkill": rate, "escape": rate, "confidence": 0.95}
    assert "at the threshold, with 95 % intervals" in roc_chart(points, metrics)
    assert "at the threshold" not in roc_chart(points, {**metrics, "overkill": None, "escape": None})
