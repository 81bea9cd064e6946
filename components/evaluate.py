"""Component: figures, curves and the page, from the frozen holdout."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Input, Metrics, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    line: str,
    settings_json: str,
    seed: int,
    state_root: str,
    roles_hash: str,
    fitted: Input[Model],
    calibration: Input[Artifact],
    report: Output[Artifact],
    metrics: Output[Metrics],
    curves: Output[ClassificationMetrics],
    page: Output[HTML],
) -> None:
    """Measure the detector on the frozen holdout.

    Args:
        line: The line's name.
        settings_json: What the step reads of the line's settings.
        seed: Of the bootstrap.
        state_root: Where the lines' lasting state is mounted.
        roles_hash: Of the images with their roles, which lie in the state.
        fitted: The detector without a threshold.
        calibration: Its threshold.
        report: Folder of figures, curves, predictions, pictures and page.
        metrics: The figures that are single numbers.
        curves: ROC, thinned to 200 points, and the confusion matrix at the threshold.
        page: The page that people read.
    """
    import shutil
    from pathlib import Path

    from morphad.model.saved import whole_detector
    from morphad.report.artifacts import confusion_matrix, roc_with_thresholds, single_figures
    from morphad.settings.line_json import line_from_json
    from morphad.steps.evaluate import evaluate as step
    from morphad.steps.line_state import LineState
    from morphad.steps.paths import LinePaths

    folder = Path(report.path)
    with (
        LineState(state_root, line).step("evaluate") as patiently,
        whole_detector(Path(fitted.path), Path(calibration.path)) as detector,
    ):
        paths = LinePaths.pod(line, state_root, roles=roles_hash, detector=str(detector), report=report.path)
        figures = patiently(lambda: step(line_from_json(settings_json), paths, seed))
        # Without a file at their place kfp.local would not find metrics and curves in its cache.
        for name, output in (("index.html", page), ("metrics.json", metrics), ("roc.json", curves)):
            shutil.copyfile(folder / name, output.path)
    for name, value in single_figures(figures).items():
        metrics.log_metric(name, value)
    if matrix := confusion_matrix(figures):
        curves.log_confusion_matrix(["good", "defect"], matrix)
    for point in roc_with_thresholds(folder):
        curves.log_roc_data_point(**point)
