"""Component: the detector becomes the line's challenger in MLflow."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    line: str,
    settings_json: str,
    reason: str,
    state_root: str,
    roles_hash: str,
    fitted: Input[Model],
    calibration: Input[Artifact],
    report: Input[Artifact],
    registration: Output[Artifact],
) -> None:
    """Record the run in MLflow and register the detector; repeated, it finds the version that is there.

    Args:
        line: The line's name.
        settings_json: The line's settings.
        reason: Why the run was started; a tag of MLflow's run and version.
        state_root: Where the lines' lasting state is mounted.
        roles_hash: Of the images with their roles, which lie in the state.
        fitted: The detector without a threshold.
        calibration: Its threshold.
        report: Folder of figures and page.
        registration: Run, model and version, JSON.
    """
    from pathlib import Path

    from morphad.model.saved import whole_detector
    from morphad.settings.line_json import line_from_json
    from morphad.steps.line_state import LineState
    from morphad.steps.paths import LinePaths
    from morphad.steps.register import register as step

    with (
        LineState(state_root, line).step("register") as patiently,
        whole_detector(Path(fitted.path), Path(calibration.path)) as detector,
    ):
        paths = LinePaths.pod(
            line,
            state_root,
            roles=roles_hash,
            detector=str(detector),
            report=report.path,
            registration=registration.path,
        )
        settings, actor = line_from_json(settings_json), f"pipeline ({reason})"
        figures = patiently(lambda: step(settings, paths, reason=reason, actor=actor))
    registration.metadata.update({key: str(figures[key]) for key in ("run_id", "model_name", "version", "model_uri")})
    print(f"{line}: {figures['model_name']} version {figures['version']}")
