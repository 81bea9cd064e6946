"""What Kubeflow's user interface draws of an evaluation: single figures, the confusion matrix, the ROC."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from morphad.base.files import read_json

_SINGLE = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "aupro", "threshold", "n_good", "n_defect")
_RATES = ("overkill", "escape")
_POINTS = 200


def single_figures(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures of metrics.json that are, or hold, one number; those that were not measured are left out."""
    single = {name: metrics[name] for name in _SINGLE}
    rates = {name: metrics[name] and metrics[name]["rate"] for name in _RATES}
    return {name: float(value) for name, value in {**single, **rates}.items() if value is not None}


def confusion_matrix(metrics: dict[str, Any]) -> list[list[int]] | None:
    """Rows: good and defect parts; columns: accepted and rejected ones. None without a threshold."""
    overkill, escape = (metrics[name] for name in _RATES)
    if overkill is None:
        return None
    missed, defects = (0, 0) if escape is None else (escape["count"], escape["n"])
    return [[overkill["n"] - overkill["count"], overkill["count"]], [missed, defects - missed]]


def roc_with_thresholds(report: Path) -> list[dict[str, float]]:
    """At most 200 points of the ROC: `fpr`, `tpr`, and `threshold`, the lowest score that is rejected there.

    Args:
        report: The folder of roc.json and predictions.csv.
    """
    points = read_json(report / "roc.json")
    if not points:
        return []
    scored = pd.read_csv(report / "predictions.csv", float_precision="round_trip")
    from sklearn.metrics import roc_curve  # noqa: PLC0415 -- a second to import, and single figures need no curve

    _, _, thresholds = roc_curve(scored["label"] == "defect", scored["score"])
    thresholds[0] = scored["score"].max()  # where nothing is rejected: infinity, which the artifact cannot hold
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), _POINTS)).astype(int))
    return [{**points[index], "threshold": float(thresholds[index])} for index in chosen]
