"""Component: camera folder to pictures on the state's volume, and their manifest."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    line: str, settings_json: str, run: str, state_root: str, data: Output[Dataset], free_at: float = 0.0
) -> str:
    """Put each picture of a line once where all steps read it, and describe it in the manifest.

    Args:
        line: The line's name.
        settings_json: The line's settings.
        run: The pipeline run that begins here.
        state_root: Where the lines' lasting state is mounted.
        data: Folder of manifest.parquet, which names pictures by their hashes, rejects.json and feedback.json.
        free_at: When Kubeflow had no other run of the line under way, seconds since 1970; 0: nobody asked it.

    Returns:
        The data hash.
    """
    from morphad.settings.line_json import line_from_json
    from morphad.steps.ingest import ingest as step
    from morphad.steps.line_state import LineState
    from morphad.steps.paths import LinePaths

    with LineState(state_root, line).step("ingest", run, free_at) as patiently:
        settings, paths = line_from_json(settings_json), LinePaths.pod(line, state_root, data=data.path)
        figures = patiently(lambda: step(settings, paths))
    data.metadata.update({key: figures[key] for key in ("good", "defect", "rejects", "data_hash", "licence")})
    for remark in figures["remarks"]:
        print(f"{line}: warning: {remark}")
    print(
        f"{line}: {figures['good']} good and {figures['defect']} defect images, {figures['rejects']} left out; "
        f"{figures['new']} new, {figures['changed']} changed, {figures['gone']} gone"
    )
    return str(figures["data_hash"])
