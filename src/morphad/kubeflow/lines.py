"""Lines as the pipelines take them: each with its resolved settings."""

from collections.abc import Iterable

from morphad.base.errors import BadInputError
from morphad.settings import ProjectSettings
from morphad.settings.line_json import line_to_json
from morphad.settings.secrets import secret_settings

Lines = list[dict[str, str]]


def line_items(project: ProjectSettings, names: Iterable[str] | None = None) -> Lines:
    """What the pipeline's parameter `lines` takes: name and resolved settings of each line.

    Args:
        project: The settings.
        names: Lines to take; None: all.

    Raises:
        BadInputError: The settings have no such line, or hold a password, which everybody who sees a run would see.
    """
    chosen = list(project.lines if names is None else names)
    for name in chosen:
        for key, instead in secret_settings(project.line(name).model_dump(mode="json", by_alias=True)).items():
            raise BadInputError(
                f"lines.{name}.{key}: holds a password, and settings are shown with every run; {instead}"
            )
    return [{"line": name, "settings_json": line_to_json(project.line(name))} for name in chosen]
