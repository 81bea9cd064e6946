"""A line's resolved settings as one JSON text, on their way to a pod or a model."""

import json
from typing import Any

from pydantic import ValidationError

from morphad.settings.explaining import SettingsError, explain
from morphad.settings.project import LineSettings


def line_to_json(settings: LineSettings) -> str:
    """A line's resolved settings as one JSON text, every key written out; equal settings give equal text."""
    return json.dumps(settings.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))


def line_from_json(text: str) -> LineSettings:
    """The settings that `line_to_json` wrote, exactly.

    The text must hold every key: a key left out would silently mean another thing than in params.yaml, where it is
    filled from the preset and the defaults.

    Raises:
        SettingsError: Not JSON, an unknown or missing key, or a bad value.
    """
    remedy = "give a line's resolved settings as `line_to_json` of the same version of morphad writes them"
    try:
        given = json.loads(text)
        settings = LineSettings.model_validate_json(text)
    except ValidationError as error:
        raise SettingsError(f"settings of the line: {explain(error, LineSettings)}") from error
    except ValueError as error:
        raise SettingsError(f"settings of the line: not valid JSON ({error}); {remedy}") from error
    missing = _missing(settings.model_dump(mode="json", by_alias=True), given)
    if missing:
        raise SettingsError(f"settings of the line: {missing}: missing; {remedy}")
    return settings


def _missing(whole: Any, given: Any, place: str = "") -> str | None:
    """The first key of `whole` that `given` lacks, dotted."""
    if not isinstance(whole, dict) or not isinstance(given, dict):
        return None
    for key, value in whole.items():
        if key not in given:
            return f"{place}{key}"
        if below := _missing(value, given[key], f"{place}{key}."):
            return below
    return None
