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
        data: Folder of the manifest.
        roles: Folder of split.parquet and the holdout.json that this run uses.
    """
    import shutil
    from pathlib import Path

    from morphad.settings.line_json import line_from_json
    from morphad.steps.line_state import LineState
    from morphad.steps.paths import LinePaths
    from morphad.steps.split import split as step

    with LineState(state_root, line).step("split"):
        table = Path(roles.path) / "split.parquet"
        paths = LinePaths.pod(line, state_root, data=data.path, split=str(table))
        figures = step(line_from_json(settings_json), paths, seed)
        shutil.copyfile(paths.holdout, table.with_name("holdout.json"))
    for warning in figures.pop("warnings"):
        print(f"{line}: warning: {warning}")
    roles.metadata.update(figures)
