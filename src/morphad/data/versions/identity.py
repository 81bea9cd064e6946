"""What is on record about a version, what it is called, and where registries are."""

import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import pandas as pd

from morphad.base.errors import BadInputError
from morphad.base.files import read_json
from morphad.base.text import has_secret, masked
from morphad.data.manifest import snapshot_id
from morphad.settings import LINE_NAME, DataSettings

LATEST = "latest"
REGISTRY_VARIABLE = "MORPHAD_DATA_REGISTRY"
REMOTE_VARIABLE = "MORPHAD_DATA_REMOTE"

_NAME = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]{12}")
_BEGINNING = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class DataVersion:
    """One version of a line's data, as the registry has it on record.

    Attributes:
        line: The product line.
        name: DATE-HASH: the day it was made (UTC) and the first 12 digits of `id`.
        id: `snapshot_id` of the manifest.
        data_hash: `manifest_id` of the manifest, which runs and pages show.
        created: When it was made, ISO 8601, UTC.
        by: Who made it.
        good: Good images.
        defect: Defect images.
        bytes: Of all images and masks.
        manifest_sha256: Of the manifest's file.
    """

    line: str
    name: str
    id: str
    data_hash: str
    created: str
    by: str
    good: int
    defect: int
    bytes: int
    manifest_sha256: str

    @property
    def tag(self) -> str:
        """LINE/DATE-HASH, the tag in the registry."""
        return f"{self.line}/{self.name}"

    @property
    def spelling(self) -> str:
        """LINE@DATE-HASH, as the commands accept it."""
        return f"{self.line}@{self.name}"

    def to_json(self) -> dict[str, Any]:
        """As a value for `write_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any, name: str) -> Self:
        """Read back what `to_json` gave.

        Raises:
            BadInputError: `value` is no version's record, or it contradicts itself.
        """
        try:
            version = cls(**{field.name: _typed(value[field.name], field.type) for field in fields(cls)})
        except (KeyError, TypeError) as error:
            raise BadInputError(f"{name}: not a version's record ({error})") from error
        if not (
            LINE_NAME.fullmatch(version.line) and _NAME.fullmatch(version.name) and version.name[11:] == version.id[:12]
        ):
            raise BadInputError(f"{name}: line, name and id of the version do not go together")
        return version


def _typed(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def current_version(record: Path, manifest: pd.DataFrame) -> DataVersion | None:
    """The version that a snapshot is, where it was made into one or came from one, and did not change since.

    Args:
        record: version.json beside the snapshot; need not exist.
        manifest: As it is now.
    """
    if not record.exists():
        return None
    version = DataVersion.from_json(read_json(record), str(record))
    return version if version.id == snapshot_id(manifest) else None


def parse_version(text: str) -> tuple[str, str]:
    """Line and name from LINE@DATE-HASH, LINE@HASH (its first digits) or LINE@latest.

    Raises:
        BadInputError: Written in another way.
    """
    line, _, name = text.partition("@")
    if not LINE_NAME.fullmatch(line) or not (name == LATEST or _NAME.fullmatch(name) or _BEGINNING.fullmatch(name)):
        raise BadInputError(
            f"{text!r}: expected LINE@DATE-HASH as `morphad data log LINE` shows it, LINE@ and at least four digits of "
            f"the hash, or LINE@{LATEST}"
        )
    return line, name


def choose(versions: list[DataVersion], line: str, name: str) -> DataVersion:
    """The version that a parsed name means, of all versions of the line, oldest first.

    Raises:
        BadInputError: None, or several.
    """
    found = [v for v in versions if name in (v.name, LATEST) or v.id.startswith(name)]
    if name == LATEST:
        found = found[-1:]
    if len(found) == 1:
        return found[0]
    known = ", ".join(v.spelling for v in (found or versions)[-3:])
    if found:
        raise BadInputError(f"{line}@{name}: {len(found)} versions begin so, such as {known}; give more digits")
    there = f"the last ones are {known}" if versions else "the registry has none of this line; `morphad data version`"
    raise BadInputError(f"{line}@{name}: no such version; {there}")


@dataclass(frozen=True)
class Address:
    """Where the registry is, and where a new one is to keep the bytes.

    Attributes:
        registry: A git repository's URL or path. May hold a password: only `shown` is for eyes and files.
        remote: A DVC remote's URL or absolute path; None: the registry's own, which must be set.
    """

    registry: str
    remote: str | None

    @property
    def shown(self) -> str:
        """The registry, without credentials."""
        return masked(self.registry)


def find_address(settings: DataSettings, registry: str | None = None, remote: str | None = None) -> Address:
    """Registry and remote: what is given, else the environment's, else the settings'.

    Raises:
        BadInputError: No registry is named, or the remote holds credentials.
    """
    where = registry or os.environ.get(REGISTRY_VARIABLE, "").strip() or settings.registry
    if not where:
        raise BadInputError(
            "no data registry is named: give --registry, set data.registry in params.yaml or "
            f"{REGISTRY_VARIABLE} in the environment, to the URL or path of a git repository (an empty one will do)"
        )
    if _is_path(where):
        where = str(Path(where).expanduser().resolve())
    bytes_at = remote or os.environ.get(REMOTE_VARIABLE, "").strip() or settings.remote
    if bytes_at:
        if has_secret(bytes_at):
            raise BadInputError(
                f"data.remote {masked(bytes_at)}: holds credentials, which would be committed to the "
                "registry; leave them out and give them in the environment (AWS_ACCESS_KEY_ID, ...)"
            )
        if _is_path(bytes_at):
            bytes_at = str(Path(bytes_at).expanduser().resolve())
    return Address(where, bytes_at or None)


def _is_path(text: str) -> bool:
    # git also accepts host:path, which is no path here where the colon comes before any slash
    return "://" not in text and ":" not in text.partition("/")[0]
