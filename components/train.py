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
        data: Folder of the manifest.
        roles: Folder of split.parquet.
        fitted: The detector without a threshold.
    """
    from morphad.settings.line_json import line_from_json
    from morphad.steps.line_state import LineState
    from morphad.steps.paths import LinePaths
    from morphad.steps.train import train as step

    with LineState(state_root, line).step("train"):
        paths = LinePaths.pod(line, state_root, data=data.path, roles=roles.path, fitted=fitted.path)
        figures = step(line_from_json(settings_json), paths, seed, gpus=gpus)
    fitted.metadata.update(figures)
    if "warning" in figures:
        print(f"{line}: warning: {figures['warning']}")
    if figures["resumed_from"]:
        print(f"{line}: went on from the checkpoint after step {figures['resumed_from']}")
