"""What Kubeflow draws of an evaluation agrees with the evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from morphad.base.files import write_json
from morphad.decision.metrics import roc_points
from morphad.report.artifacts import confusion_matrix, roc_with_thresholds, single_figures

FIGURES: dict[str, Any] = {
    "image_auroc": 0.9,
    "image_ap": 0.8,
    "image_f1_max": 0.7,
    "pixel_auroc": None,
    "aupro": None,
    "threshold": 2.5,
    "n_good": 40,
    "n_defect": 10,
    "overkill": {"rate": 0.05, "count": 2, "n": 40},
    "escape": {"rate": 0.3, "count": 3, "n": 10},
    "kinds": {"scratch": 0.9},
}


def test_single_figures_are_numbers_and_what_was_not_measured_is_left_out() -> None:
    drawn = single_figures(FIGURES)
    assert drawn == {
        "image_auroc": 0.9, "image_ap": 0.8, "image_f1_max": 0.7, "threshold": 2.5, "n_good": 40.0, "n_defect": 10.0,
        "overkill": 0.05, "escape": 0.3,
    }  # fmt: skip
    assert all(type(value) is float for value in drawn.values())


@pytest.mark.parametrize(
    ("change", "matrix"),
    [
        ({}, [[38, 2], [3, 7]]),
        ({"escape": None}, [[38, 2], [0, 0]]),
        ({"overkill": None, "escape": None, "threshold": None}, None),
    ],
)
def test_rows_are_parts_and_columns_what_becomes_of_them(
    change: dict[str, None], matrix: list[list[int]] | None
) -> None:
    assert confusion_matrix({**FIGURES, **change}) == matrix


def write_report(folder: Path, labels: list[str], scores: list[float]) -> Path:
    defect = [label == "defect" for label in labels]
    write_json(folder / "roc.json", roc_points(defect, scores))
    pd.DataFrame({"label": labels, "score": scores}).to_csv(folder / "predictions.csv", index=False)
    return folder


def test_at_each_point_its_threshold_rejects_just_those(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = ["good"] * 300 + ["defect"] * 300
    scores = [*random.normal(0, 1, 300).tolist(), *random.normal(1, 1, 300).tolist()]
    points = roc_with_thresholds(write_report(tmp_path, labels, scores))
    assert len(points) == 200
    assert (points[0]["fpr"], points[0]["tpr"]) == (0, 0)
    assert (points[-1]["fpr"], points[-1]["tpr"]) == (1, 1)
    table = pd.DataFrame({"defect": [label == "defect" for label in labels], "score": scores})
    for point in points[1:]:
        rejected = table["score"] >= point["threshold"]
        assert point["tpr"] == pytest.approx(rejected[table["defect"]].mean())
        assert point["fpr"] == pytest.approx(rejected[~table["defect"]].mean())


def test_with_one_class_there_is_no_curve(tmp_path: Path) -> None:
    assert roc_with_thresholds(write_report(tmp_path, ["good"] * 3, [1.0, 2.0, 3.0])) == []
