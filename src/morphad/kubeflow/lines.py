"""Lines as the pipelines take them: each with its settings."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from morphad.base.errors import BadInputError
from morphad.settings import ProjectSettings
from morphad.settings.line_json import line_to_json
from morphad.settings.secrets import secret_settings

Lines = list[dict[str, str]]

# Kubeflow keeps a run's parameters twice, beside the pipeline's 100 KB, in an object of at most 1 MiB.
MOST_BYTES = 100_000


def line_items(project: ProjectSettings, names: Iterable[str] | None = None) -> Lines:
    """What the pipeline's parameter `lines` takes: name and settings of each line.

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


def check_size(what: str, parameters: Mapping[str, Any], remedy: str) -> None:
    """Refuse what Kubeflow would accept and could not store when it starts the run.

    Args:
        what: Whose parameters they are, for the message.
        parameters: Of a run.
        remedy: What to do about it.

    Raises:
        BadInputError: The parameters are too large.
    """
    size = len(json.dumps(parameters).encode())
    if size > MOST_BYTES:
        lines = len(parameters.get("lines", ()))
        raise BadInputError(
            f"{what}: its parameters are {size / 1000:.0f} KB ({lines} line{'s' * (lines != 1)} with their settings), "
            f"and Kubeflow stores {MOST_BYTES // 1000} KB; {remedy}"
        )
