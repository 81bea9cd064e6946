"""Component: figures, curves and the page, from the frozen holdout."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    line: str,
    settings_json: str,
    seed: int,
    state_root: str,
    data: Input[Dataset],
    roles: Input[Dataset],
    detector: Input[Model],
    report: Output[Artifact],
    metrics: Output[Metrics],
    curves: Output[ClassificationMetrics],
    page: Output[HTML],
) -> None:
    """Measure the detector on the frozen holdout.

    Args:
        line: The line's name.
        settings_json: The line's resolved settings.
        seed: Of the bootstrap.
        state_root: Where the lines' lasting state is mounted.
        data: Folder of the snapshot and rejects.json.
        roles: Folder of split.parquet and holdout.json.
        detector: The detector with its threshold.
        report: Folder of figures, curves, predictions, pictures and page.
        metrics: The figures that are single numbers.
        curves: ROC, thinned to 200 points, and the confusion matrix at the threshold.
        page: The page that people read.
    """
    import shutil
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from sklearn.metrics import roc_curve

    from morphad import steps
    from morphad.files import read_json
    from morphad.linestate import LineState
    from morphad.settings import line_from_json

    folder = Path(report.path)
    with LineState(state_root, line).step("evaluate"):
        figures = steps.evaluate(
            line,
            line_from_json(settings_json),
            seed,
            split=Path(roles.path) / "split.parquet",
            snapshot_dir=Path(data.path) / "images",
            rejects=Path(data.path) / "rejects.json",
            holdout=Path(roles.path) / "holdout.json",
            detector=Path(detector.path),
            report=folder,
        )
        shutil.copyfile(folder / "index.html", page.path)
    for name in ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "aupro", "threshold", "n_good", "n_defect"):
        if figures[name] is not None:
            metrics.log_metric(name, float(figures[name]))
    overkill, escape = figures["overkill"], figures["escape"]
    for name, rate in (("overkill", overkill), ("escape", escape)):
        if rate is not None:
            metrics.log_metric(name, float(rate["rate"]))
    if overkill is not None:
        missed, defects = (0, 0) if escape is None else (escape["count"], escape["n"])
        rejected, good = overkill["count"], overkill["n"]
        # Rows are what the parts are, columns what the detector takes them for.
        curves.log_confusion_matrix(["good", "defect"], [[good - rejected, rejected], [missed, defects - missed]])
    roc = read_json(folder / "roc.json")
    if roc:
        scored = pd.read_csv(folder / "predictions.csv", float_precision="round_trip")
        _, _, lowest_rejected = roc_curve(scored["label"] == "defect", scored["score"])
        lowest_rejected[0] = scored[
            "score"
        ].max()  # where nothing is rejected: infinity, which the artifact cannot hold
        for index in np.unique(np.linspace(0, len(roc) - 1, min(len(roc), 200)).astype(int)):
            curves.log_roc_data_point(**roc[index], threshold=float(lowest_rejected[index]))
