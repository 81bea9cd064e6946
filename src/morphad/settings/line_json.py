"""A line's settings as one short JSON text, on their way to a pod: what differs from the product's own defaults."""

import json
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import ValidationError

from morphad.base.files import sha256_json
from morphad.settings.explaining import SettingsError, explain
from morphad.settings.project import LineSettings

_DEFAULTS = "defaults"  # beside the sections: which defaults fill what is left out
_NOWHERE = {"ingest": {"path": "-"}}  # the one setting without a default


def line_to_json(settings: LineSettings, only: Iterable[str] | None = None) -> str:
    """What of a line's resolved settings differs from the defaults; equal settings give equal text.

    Args:
        settings: The line's.
        only: Sections, such as "train", and single settings, such as "ingest.white_level"; None: all. What is left
            out reads as its default.
    """
    chosen: dict[str, Any] = _dumped(settings) if only is None else {}
    for name, value in picked(settings, only or ()).items():
        section, _, key = name.partition(".")
        chosen[section] = chosen.get(section, {}) | ({key: value} if key else value)
    found = _differences(chosen, _defaults())
    found["ingest"] = {"path": _NOWHERE["ingest"]["path"]} | found.get("ingest", {})
    return json.dumps({_DEFAULTS: _fingerprint(), **found}, sort_keys=True, separators=(",", ":"))


def line_from_json(text: str) -> LineSettings:
    """The settings that `line_to_json` wrote, exactly.

    The text names the defaults that it was written against: those of another version of morphad would silently mean
    something else.

    Raises:
        SettingsError: Not JSON, of another version of morphad, an unknown key, or a bad value.
    """
    remedy = "submit the run, or apply the schedules, with the version of morphad that the pods' image has"
    try:
        given = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"settings of the line: not valid JSON ({error}); {remedy}") from error
    if not isinstance(given, dict) or _DEFAULTS not in given:
        raise SettingsError(f"settings of the line: expected a mapping with the key {_DEFAULTS!r}; {remedy}")
    if (theirs := given.pop(_DEFAULTS)) != (ours := _fingerprint()):
        raise SettingsError(
            f"settings of the line: written against the defaults {theirs!r} of another version of morphad, here they "
            f"are {ours!r}; {remedy}"
        )
    try:
        return LineSettings.model_validate_json(json.dumps(given))
    except ValidationError as error:
        raise SettingsError(f"settings of the line: {explain(error, LineSettings)}") from error


def _dumped(settings: LineSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", by_alias=True)


@cache
def _defaults() -> dict[str, Any]:
    return _dumped(LineSettings.model_validate(_NOWHERE))


@cache
def _fingerprint() -> str:
    return sha256_json(_defaults())[:12]


def picked(settings: LineSettings, names: Iterable[str]) -> dict[str, Any]:
    """Values of a line's settings by name: sections, such as "train", and single settings, as "ingest.white_level".

    A name that is of no section, such as the seed, is passed over.
    """
    sections = {field.alias or name: name for name, field in LineSettings.model_fields.items()}
    found = {}
    for name in names:
        section, _, key = name.partition(".")
        if section in sections:
            values = getattr(settings, sections[section]).model_dump(mode="json", by_alias=True)
            found[name] = values[key] if key else values
    return found


def _differences(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Values that differ from their default, section by section; a value is written whole where no section is."""
    found = {}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, dict) and isinstance(default, dict) and default.keys() <= value.keys():
            if below := _differences(value, default):
                found[name] = below
        elif value != default:
            found[name] = value
    return found
