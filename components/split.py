"""Component: roles of the images, the holdout frozen between runs, and whether anything is new."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output, OutputPath

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def split(
    line: str,
    settings_json: str,
    seed: int,
    run: str,
    force: bool,
    state_root: str,
    data_hash: str,
    data: Input[Dataset],
    roles: Output[Dataset],
    roles_hash: OutputPath(str),  # type: ignore[valid-type] # kfp's way to say it
    again: OutputPath(str),  # type: ignore[valid-type]
    train: OutputPath(str),  # type: ignore[valid-type]
    calibrate: OutputPath(str),  # type: ignore[valid-type]
    evaluate: OutputPath(str),  # type: ignore[valid-type]
) -> str:
    """Give every image its role, and end the line's run where nothing is new since its last decision.

    The holdout that the line's state holds stays as it is.

    Args:
        line: The line's name.
        settings_json: The line's settings.
        seed: Of the split.
        run: The pipeline run.
        force: Train although nothing is new.
        state_root: Where the lines' lasting state is mounted.
        data_hash: Of the images and their labels.
        data: Folder of the manifest.
        roles: Folder of split.parquet, the holdout.json that this run uses, and rejects.json.
        roles_hash: The hash by which later steps find the roles in the state.
        again: The run where it is forced, so that no earlier result does; else empty.
        train: What train reads of the settings.
        calibrate: What calibrate reads of them.
        evaluate: What evaluate reads of them.

    Returns:
        Whether the run goes on: "yes" or "no". kfp.local knows conditions on a task's one unnamed output alone.
    """
    import shutil
    from pathlib import Path

    from morphad.base.files import write_text
    from morphad.settings.line_json import line_from_json
    from morphad.steps.line_state import LineState
    from morphad.steps.paths import LinePaths
    from morphad.steps.rerun import inputs_of, keep_roles, nothing_new, part_of
    from morphad.steps.split import split as step

    state = LineState(state_root, line)
    with state.step("split") as patiently:
        folder, settings = Path(roles.path), line_from_json(settings_json)
        paths = LinePaths.pod(line, state_root, data=data.path, split=str(folder / "split.parquet"))
        figures = patiently(lambda: step(settings, paths, seed))

        def keep() -> str:
            for file in (paths.holdout, paths.rejects):
                shutil.copyfile(file, folder / file.name)
            return keep_roles(folder, paths)

        kept = patiently(keep)
        inputs = inputs_of(settings, seed, data=data_hash, roles=kept)
        unchanged = None if force else patiently(lambda: nothing_new(settings, paths, inputs))
        if unchanged:
            patiently(lambda: state.finish(run, unchanged, "split"))
    cached = {train: "train", calibrate: "calibrate", evaluate: "evaluate"}
    parts = {place: part_of(name, settings) for place, name in cached.items()}
    for place, text in {roles_hash: kept, again: run if force else "", **parts}.items():
        write_text(Path(place), text)
    for warning in figures.pop("warnings"):
        print(f"{line}: warning: {warning}")
    roles.metadata.update({**figures, "decision": unchanged or "goes on"})
    print(f"{line}: {unchanged or 'there is something to do: the run goes on'}")
    return "no" if unchanged else "yes"
