"""Component: camera folder to snapshot and manifest."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(line: str, settings_json: str, run: str, state_root: str, data: Output[Dataset]) -> None:
    """Copy a line's images into a snapshot and describe each in the manifest.

    Args:
        line: The line's name.
        settings_json: The line's resolved settings.
        run: The pipeline run that begins here.
        state_root: Where the lines' lasting state is mounted.
        data: Folder of images/, manifest.parquet and rejects.json.
    """
    from pathlib import Path

    from morphad import steps
    from morphad.linestate import LineState
    from morphad.settings.line_json import line_from_json

    folder = Path(data.path)
    state = LineState(state_root, line)
    with state.step("ingest", run):
        figures = steps.ingest(
            line,
            line_from_json(settings_json).ingest,
            snapshot_dir=folder / "images",
            manifest=folder / "manifest.parquet",
            rejects=folder / "rejects.json",
            memory=state.memory,
            feedback=folder / "feedback.json",
        )
    data.metadata.update({key: figures[key] for key in ("good", "defect", "rejects", "data_hash", "licence")})
    for remark in figures["remarks"]:
        print(f"{line}: warning: {remark}")
    print(
        f"{line}: {figures['good']} good and {figures['defect']} defect images, {figures['rejects']} left out; "
        f"{figures['new']} new, {figures['changed']} changed, {figures['gone']} gone"
    )
