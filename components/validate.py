"""Component: the data contract."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(line: str, settings_json: str, state_root: str, data: Input[Dataset], findings: Output[Artifact]) -> None:
    """Hold the manifest against the data contract; a broken one ends the line.

    Args:
        line: The line's name.
        settings_json: The line's resolved settings.
        state_root: Where the lines' lasting state is mounted.
        data: Folder of the snapshot and its manifest.
        findings: What was found, JSON.
    """
    from pathlib import Path

    from morphad import steps
    from morphad.linestate import LineState
    from morphad.settings import line_from_json

    with LineState(state_root, line).step("validate"):
        figures = steps.validate(
            line,
            line_from_json(settings_json).validate_,
            manifest=Path(data.path) / "manifest.parquet",
            validation=Path(findings.path),
        )
    for warning in figures["warnings"]:
        print(f"{line}: warning: {warning}")
