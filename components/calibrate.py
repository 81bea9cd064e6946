"""Component: the threshold and its guarantee."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def calibrate(
    line: str,
    settings_json: str,
    state_root: str,
    data: Input[Dataset],
    roles: Input[Dataset],
    fitted: Input[Model],
    detector: Output[Model],
) -> None:
    """Set the threshold from calibration images that training never saw.

    Args:
        line: The line's name.
        settings_json: The line's resolved settings.
        state_root: Where the lines' lasting state is mounted.
        data: Folder of the snapshot.
        roles: Folder of split.parquet.
        fitted: The detector without a threshold.
        detector: The detector with its threshold.
    """
    from pathlib import Path

    from morphad import steps
    from morphad.linestate import LineState
    from morphad.settings.line_json import line_from_json

    with LineState(state_root, line).step("calibrate"):
        settings = line_from_json(settings_json)
        figures = steps.calibrate(
            line,
            settings.calibrate,
            settings.ingest,
            split=Path(roles.path) / "split.parquet",
            snapshot_dir=Path(data.path) / "images",
            fitted=Path(fitted.path),
            detector=Path(detector.path),
        )
    detector.metadata["guarantee"] = figures["guarantee"]
    if figures["threshold"] is not None:
        detector.metadata["threshold"] = figures["threshold"]
    print(f"{line}: {figures['guarantee']}")
