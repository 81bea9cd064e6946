"""Read params.yaml: each line's values laid over the defaults of all lines and over its preset, then checked."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode

from morphad.base.errors import BadInputError
from morphad.base.text import secret_places
from morphad.explain import explain
from morphad.settings import LINE_NAME, LineSettings, ProjectSettings, TrainSettings

_log = logging.getLogger(__name__)
_AWS = "leave it out and give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment"
# Where a password belongs that a setting holds.
_INSTEAD = {
    "register.tracking_uri": "give the address in MLFLOW_TRACKING_URI, or user and password of a server in "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, in the environment",
    "data.registry": "give the address in MORPHAD_DATA_REGISTRY in the environment, or leave the password to git's "
    "credential helper",
    "data.remote": _AWS,
    "ingest.path": _AWS,
    "ingest.verdicts": _AWS,
}
_told: set[str] = set()

_KEEPING = {"embedding_layer", "frozen", "backbone_rate"}
# Features of packaged ImageNet weights, adapted by the morphological task, scored by patch density.
_ADAPTED: dict[str, Any] = {
    "embedding_layer": "blocks.4",
    "frozen": ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2"),
    "backbone_rate": 0.1,
    "optimiser": {"steps": 100, "learning_rate": 3e-3},
}
PRESETS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "default": {**_ADAPTED, "score": {"looks": ("identity", "erosion_5x5")}},
        "fast": _ADAPTED,  # one forward pass an image
        # Faithful to the source's outline: from scratch, scored by how well the cases are recognised. Our settings.
        "paper": {
            "image_size": (96, 96),
            "colour": "grey",
            "backbone": "resnet18",
            "weights": "none",
            "optimiser": {"steps": 4500, "batch_size": 64},  # until even the cases of much varying parts are named
            "score": {"kind": "transformation", "layers": ("layer1", "layer2")},
        },
    }
)


def train_settings(values: dict[str, Any]) -> TrainSettings:
    """Training settings from given values laid over those of their preset."""
    return TrainSettings.model_validate(_with_preset(values))


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
    for warning in _warnings(path, raw):
        if warning not in _told:
            _told.add(warning)
            _log.warning("%s", warning)
    return settings


def secret_settings(values: Any, prefix: str = "") -> dict[str, str]:
    """Settings that hold a password or a token: dotted key, and where it belongs.

    Args:
        values: Sections of a line, or of the settings beside the lines, by name.
        prefix: Before each key.
    """
    found = (".".join(map(str, place)) for place in secret_places(values))
    return {f"{prefix}{key}": _INSTEAD.get(key, "take it out") for key in found}


def _warnings(path: Path, raw: dict[str, Any]) -> Iterator[str]:
    """What is to be said of the passwords in a settings file."""
    found = secret_settings(raw.get("defaults"), "defaults.")
    found |= secret_settings({"data": raw.get("data")})
    for name, own in raw["lines"].items():
        found |= secret_settings(own, f"lines.{name}.")
    for key, instead in found.items():
        yield (
            f"{path}{_line_of(path, key)}: warning: {key} holds a password, and whoever reads the file, dvc.lock or "
            f"their history reads it; {instead}"
        )


def _line_of(path: Path, key: str) -> str:
    """Where in a YAML file a dotted key is, in words; empty where that cannot be told."""
    node = YAML(typ="safe", pure=True).compose(path)
    for word in key.split("."):
        if not isinstance(node, MappingNode):  # an item of a list
            break
        node = next((below for name, below in node.value if name.value == word), None)
    return "" if node is None else f", line {node.start_mark.line + 1}"


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


class SettingsError(BadInputError):
    """A key or value in the settings that is not allowed."""


def resolve(raw: Any) -> ProjectSettings:
    """Lay each line's overrides over the preset and the defaults, and check every value where it was written.

    Raises:
        SettingsError: Naming key, value and what is allowed.
    """
    if not isinstance(raw, dict):
        raise SettingsError("expected keys `seed`, `data`, `defaults` and `lines`")
    unknown = set(raw) - {"seed", "data", "defaults", "lines"}
    if unknown:
        raise SettingsError(f"unknown key {sorted(map(str, unknown))[0]!r}; allowed: seed, data, defaults, lines")
    defaults = _sections(raw.get("defaults"), "defaults")
    lines = _mapping(raw.get("lines"), "lines")
    if not lines:
        raise SettingsError(
            "lines: is empty; name at least one product line, such as `lines: {my-line: {ingest: ...}}`"
        )
    resolved: dict[str, LineSettings] = {}
    for name, overrides in lines.items():
        if not isinstance(name, str) or not LINE_NAME.fullmatch(name):
            raise SettingsError(
                f"lines.{name!r}: a line's name holds a-z, 0-9 and inner hyphens, at most 63 characters"
            )
        own = _sections(overrides, f"lines.{name}")
        merged = merge({"ingest": {}, "train": {}}, merge(defaults, own))
        if isinstance(merged["train"], dict):
            merged["train"] = _with_preset(merged["train"])
        try:
            resolved[name] = LineSettings.model_validate(merged)
        except ValidationError as error:
            raise SettingsError(explain(error, LineSettings, name, own)) from error
    try:
        data = _mapping(raw.get("data"), "data")
        return ProjectSettings.model_validate({"seed": raw.get("seed", 0), "data": data, "lines": resolved})
    except ValidationError as error:
        raise SettingsError(explain(error, ProjectSettings)) from error


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError(f"{key} = {value!r}: expected a mapping of keys to values")
    return value


def _sections(value: Any, key: str) -> dict[str, Any]:
    """A mapping of sections, where one that is left empty means {}."""
    return {name: {} if section is None else section for name, section in _mapping(value, key).items()}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in their places, mapping by mapping."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def _with_preset(train: dict[str, Any]) -> dict[str, Any]:
    name = train.get("preset", "default")
    preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
    own = preset.get("backbone", TrainSettings.model_fields["backbone"].default)
    if train.get("backbone", own) != own or train.get("weights") == "none":
        # How to keep what given weights know means nothing in another network, or from scratch.
        preset = {key: value for key, value in preset.items() if key not in _KEEPING}
    return merge(preset, train)
