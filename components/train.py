"""Component: the detector learns from good images."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    line: str,
    settings_json: str,
    seed: int,
    gpus: int,
    state_root: str,
    data: Input[Dataset],
    roles: Input[Dataset],
    fitted: Output[Model],
) -> None:
    """Fit a detector on the training images; a preempted pod's successor goes on from the checkpoint in the state.

    Args:
        line: The line's name.
        settings_json: The line's resolved settings.
        seed: Of the training.
        gpus: How many GPUs the pod gets: more than one means so many processes that train together.
        state_root: Where the lines' lasting state is mounted.
        data: Folder of the snapshot.
        roles: Folder of split.parquet.
        fitted: The detector without a threshold.
    """
    from pathlib import Path

    from morphad import steps
    from morphad.linestate import LineState
    from morphad.settings.line_json import line_from_json

    state = LineState(state_root, line)
    with state.step("train"):
        settings = line_from_json(settings_json)
        figures = steps.train(
            line,
            settings.train,
            settings.ingest,
            seed,
            split=Path(roles.path) / "split.parquet",
            snapshot_dir=Path(data.path) / "images",
            fitted=Path(fitted.path),
            checkpoint=state.checkpoint,
            gpus=gpus,
        )
    fitted.metadata.update(figures)
    if "warning" in figures:
        print(f"{line}: warning: {figures['warning']}")
    if figures["resumed_from"]:
        print(f"{line}: went on from the checkpoint after step {figures['resumed_from']}")
