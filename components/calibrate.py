"""Component: the threshold and its guarantee."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def calibrate(
    line: str,
    settings_json: str,
    state_root: str,
    roles_hash: str,
    fitted: Input[Model],
    calibration: Output[Artifact],
) -> None:
    """Set the threshold from calibration images that training never saw.

    Args:
        line: The line's name.
        settings_json: What the step reads of the line's settings.
        state_root: Where the lines' lasting state is mounted.
        roles_hash: Of the images with their roles, which lie in the state.
        fitted: The detector without a threshold.
        calibration: Folder of what makes the fitted detector one with a threshold; its weights stay where they are.
    """
    from morphad.settings.line_json import line_from_json
    from morphad.steps.calibrate import calibrate as step
    from morphad.steps.line_state import LineState
    from morphad.steps.paths import LinePaths

    with LineState(state_root, line).step("calibrate") as patiently:
        paths = LinePaths.pod(line, state_root, roles=roles_hash, fitted=fitted.path, calibration=calibration.path)
        figures = patiently(lambda: step(line_from_json(settings_json), paths))
    calibration.metadata["guarantee"] = figures["guarantee"]
    if figures["threshold"] is not None:
        calibration.metadata["threshold"] = figures["threshold"]
    print(f"{line}: {figures['guarantee']}")
