"""Passwords and tokens in params.yaml: where they are, and where they belong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode

from morphad.base.text import secret_places

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


def secret_settings(values: Any, prefix: str = "") -> dict[str, str]:
    """Settings that hold a password or a token: dotted key, and where it belongs.

    Args:
        values: Sections of a line, or of the settings beside the lines, by name.
        prefix: Before each key.
    """
    found = (".".join(map(str, place)) for place in secret_places(values))
    return {f"{prefix}{key}": _INSTEAD.get(key, "remove it") for key in found}


def secret_warnings(path: Path, raw: dict[str, Any]) -> Iterator[str]:
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
    """Where in a YAML file a dotted key is, in words; empty where that is not known."""
    node = YAML(typ="safe", pure=True).compose(path)
    for word in key.split("."):
        if not isinstance(node, MappingNode):  # an item of a list
            break
        node = next((below for name, below in node.value if name.value == word), None)
    return "" if node is None else f", line {node.start_mark.line + 1}"
