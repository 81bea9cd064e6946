"""What the registry hands out and takes in: versions, registrations, facts of the data, and their identities."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from morphad import text
from morphad.errors import BadInputError
from morphad.files import sha256_file, sha256_json

PREFIX = "morphad."
DECISION_PREFIX = f"{PREFIX}decision."

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"


@dataclass(frozen=True)
class DatasetFacts:
    """What a model was made from.

    Attributes:
        manifest: The manifest (parquet), one row an image.
        data_hash: Identity of the manifest's content.
        holdout_id: Identity of the frozen holdout that the figures were measured on.
        counts: Images by role or label, such as {"train": 400, "holdout": 120}.
    """

    manifest: Path
    data_hash: str
    holdout_id: str
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Registration:
    """Outcome of publishing: where the detector now is in the registry.

    Attributes:
        run_id: The MLflow run that holds parameters, metrics and report.
        model_name: Registered model, `morphad-<line>`.
        version: Version number.
        model_uri: `models:/<model_name>/<version>`, for `mlflow.pyfunc.load_model`.
        created: False if this detector on this data was there already.
    """

    run_id: str
    model_name: str
    version: int
    model_uri: str
    created: bool


@dataclass(frozen=True)
class Version:
    """One version of a line's model as the registry knows it now.

    Attributes:
        model_name: Registered model, `morphad-<line>`.
        number: Version number, from 1.
        run_id: The MLflow run that made it.
        created_at: ISO 8601, UTC.
        aliases: champion, challenger, previous: those that point here.
        tags: All tags, including those of the audit trail.
    """

    model_name: str
    number: int
    run_id: str
    created_at: str
    aliases: tuple[str, ...]
    tags: dict[str, str]

    @property
    def model_uri(self) -> str:
        """The address for `mlflow.pyfunc.load_model`."""
        return f"models:/{self.model_name}/{self.number}"

    @property
    def detector_hash(self) -> str:
        """Hash of the detector folder, as of `detector_hash`; empty for a version that morphad did not publish."""
        return self.tags.get(f"{PREFIX}detector_hash", "")

    @property
    def data_hash(self) -> str:
        """Identity of the manifest it was made from."""
        return self.tags.get(f"{PREFIX}data_hash", "")

    @property
    def holdout_id(self) -> str:
        """Identity of the holdout it was evaluated on."""
        return self.tags.get(f"{PREFIX}holdout_id", "")

    @property
    def code_revision(self) -> str:
        """Code revision at publication; empty if it was not known."""
        return self.tags.get(f"{PREFIX}code_revision", "")

    @property
    def decisions(self) -> tuple[dict[str, Any], ...]:
        """The audit trail, oldest first: action, at, by, reasons, data_hash, code_revision, replaced, artifact."""
        records = [json.loads(value) for key, value in self.tags.items() if key.startswith(DECISION_PREFIX)]
        return tuple(sorted(records, key=lambda record: str(record["at"])))


def model_name(line: str) -> str:
    """The registered model of a line."""
    return f"morphad-{line}"


def detector_hash(folder: Path) -> str:
    """Identity of a saved detector: SHA-256 over the names and contents of all files in its folder.

    Raises:
        BadInputError: The folder is missing or holds no detector.json.
    """
    if not (folder / "detector.json").is_file():
        raise BadInputError(f"{folder}: not a saved detector (no detector.json); run the calibrate step first")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_json({path.relative_to(folder).as_posix(): sha256_file(path) for path in files})


def code_revision() -> str:
    """The revision of the code at work: MORPHAD_CODE_REVISION (set in images), else git's of the current folder.

    Returns:
        The revision, with `-dirty` behind it if tracked files differ from it; empty if there is none to be known.
    """
    given = os.environ.get("MORPHAD_CODE_REVISION", "").strip()
    if given:
        return given
    revision = _git("rev-parse", "HEAD")
    if revision and _git("status", "--porcelain", "--untracked-files=no"):
        return f"{revision}-dirty"
    return revision


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def flattened(values: dict[str, Any]) -> dict[str, str]:
    """Nested settings as MLflow parameters: dotted keys, values as text (JSON for lists)."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
        for name, value in text.flattened(values).items()
    }
