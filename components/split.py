"""Component: roles of the images, the holdout frozen between runs."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def split(
    line: str, settings_json: str, seed: int, state_root: str, data: Input[Dataset], roles: Output[Dataset]
) -> None:
    """Give every image its role; the holdout that the line's state holds stays as it is.

    Args:
        line: The line's name.
        settings_json: The line's resolved settings.
        seed: Of the split.
        state_root: Where the lines' lasting state is mounted.
        data: Folder of the snapshot and its manifest.
        roles: Folder of split.parquet and the holdout.json that this run uses.
    """
    import shutil
    from pathlib import Path

    from morphad import steps
    from morphad.linestate import LineState
    from morphad.settings.line_json import line_from_json

    folder = Path(roles.path)
    state = LineState(state_root, line)
    with state.step("split"):
        figures = steps.split(
            line_from_json(settings_json).split,
            seed,
            manifest=Path(data.path) / "manifest.parquet",
            split=folder / "split.parquet",
            holdout=state.holdout,
        )
        shutil.copyfile(state.holdout, folder / "holdout.json")
    for warning in figures.pop("warnings"):
        print(f"{line}: warning: {warning}")
    roles.metadata.update(figures)
