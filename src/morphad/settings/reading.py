"""Read params.yaml: each line's values laid over the defaults of all lines and over its preset, then checked."""

import logging
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from morphad.base.errors import BadInputError
from morphad.base.wording import did_you_mean
from morphad.settings import LINE_NAME, LineSettings, ProjectSettings
from morphad.settings.explaining import SettingsError, explain
from morphad.settings.presets import merge, with_preset
from morphad.settings.secrets import secret_warnings

_log = logging.getLogger(__name__)
_told: set[str] = set()
_KEYS = ("seed", "data", "defaults", "lines")


def load_settings(path: Path) -> ProjectSettings:
    """Read and check a settings file. A password in it is a warning in the log, once, without the password.

    Raises:
        BadInputError: The file is missing, is not YAML, or holds an unknown key or a bad value; the message names
            file, key, value and what is allowed.
    """
    raw = read_yaml(path, "--params")
    try:
        settings = resolve(raw)
    except SettingsError as error:
        raise BadInputError(f"{path}: {error}") from error
    for warning in secret_warnings(path, raw):
        if warning not in _told:
            _told.add(warning)
            _log.warning("%s", warning)
    return settings


def read_yaml(path: Path, option: str) -> Any:
    """Read a YAML file as DVC reads it.

    Args:
        path: The file.
        option: The command's option that names another file, for the remedy.

    Raises:
        BadInputError: The file is missing, cannot be read, or is not YAML.
    """
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: not found; run in the project's folder or give {option} FILE") from error
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror}); give a file with {option} FILE") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadInputError(f"{path}: not valid YAML: {error.problem or error.context}{place}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: not valid YAML: {error}") from error


def resolve(raw: Any) -> ProjectSettings:
    """Lay each line's overrides over the preset and the defaults, and check every value where it was written.

    Raises:
        SettingsError: Naming key, value and what is allowed.
    """
    if not isinstance(raw, dict):
        raise SettingsError("expected keys `seed`, `data`, `defaults` and `lines`")
    unknown = set(raw) - set(_KEYS)
    if unknown:
        key = sorted(map(str, unknown))[0]
        meant = f"{did_you_mean(key, _KEYS)} allowed: {', '.join(_KEYS)}".lstrip()
        raise SettingsError(f"unknown key {key!r}; {meant}")
    defaults = _sections(raw.get("defaults"), "defaults")
    lines = _mapping(raw.get("lines"), "lines")
    if not lines:
        raise SettingsError(
            "lines: is empty; name at least one product line, such as `lines: {my-line: {ingest: ...}}`"
        )
    resolved: dict[str, LineSettings] = {}
    for name, overrides in lines.items():
        if not isinstance(name, str):
            raise SettingsError(
                f"lines.{name}: YAML reads this name as {_kind(name)}, and a line's name is text; write it in quotes, "
                'such as "4711":'
            )
        if not LINE_NAME.fullmatch(name):
            raise SettingsError(
                f"lines.{name!r}: a line's name holds a-z, 0-9 and inner hyphens, at most 63 characters"
            )
        own = _sections(overrides, f"lines.{name}")
        merged = merge({"ingest": {}, "train": {}}, merge(defaults, own))
        if isinstance(merged["train"], dict):
            merged["train"] = with_preset(merged["train"])
        try:
            resolved[name] = LineSettings.model_validate(merged)
        except ValidationError as error:
            raise SettingsError(explain(error, LineSettings, name, own)) from error
    try:
        data = _mapping(raw.get("data"), "data")
        return ProjectSettings.model_validate({"seed": raw.get("seed", 0), "data": data, "lines": resolved})
    except ValidationError as error:
        raise SettingsError(explain(error, ProjectSettings)) from error


def _kind(value: object) -> str:
    """What YAML makes of an unquoted word."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "a date" if isinstance(value, date) else "no text"


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError(f"{key} = {value!r}: expected a mapping of keys to values")
    return value


def _sections(value: Any, key: str) -> dict[str, Any]:
    """A mapping of sections, where one that is left empty means {}."""
    return {name: {} if section is None else section for name, section in _mapping(value, key).items()}
