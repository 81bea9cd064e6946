"""Component: the data contract."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(
    line: str,
    settings_json: str,
    state_root: str,
    data: Input[Dataset],
    findings: Output[Artifact],
    page: Output[HTML],
) -> None:
    """Hold the manifest against the data contract; a broken one ends the line.

    Args:
        line: The line's name.
        settings_json: The line's resolved settings.
        state_root: Where the lines' lasting state is mounted.
        data: Folder of the manifest.
        findings: What was found, JSON.
        page: What was found, for people.
    """
    from morphad.base.errors import CheckFailedError, ServiceError
    from morphad.settings.line_json import line_from_json
    from morphad.steps.line_state import LineState
    from morphad.steps.paths import LinePaths
    from morphad.steps.reference import follow_champion
    from morphad.steps.validate import validate as step

    with LineState(state_root, line).step("validate"):
        settings = line_from_json(settings_json)
        paths = LinePaths.pod(line, state_root, data=data.path, validation=findings.path, contract_page=page.path)
        try:
            # People promote and roll back, too: from elsewhere, where this storage is not mounted.
            remark = follow_champion(settings, paths)
        except (CheckFailedError, ServiceError) as error:
            remark = f"the champion's data are those of the last run: {error}"
        if remark:
            print(f"{line}: warning: {remark}")
        figures = step(settings, paths)
    for warning in figures["warnings"]:
        print(f"{line}: warning: {warning}")
