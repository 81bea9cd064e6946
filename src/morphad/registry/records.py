"""What goes into the registry and comes out: versions, registrations, facts of the data, and their identities."""

import json
import os
import re
import subprocess
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from morphad.base import text
from morphad.base.files import sha256_file, sha256_json

T = TypeVar("T")

PREFIX = "morphad."

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
CANDIDATE = "candidate"


@dataclass(frozen=True)
class Actor:
    """Who acts.

    Attributes:
        name: As given, or the user of the machine.
        account: The account that MLflow's server knows; None where it has no accounts, and then the name is free text.
    """

    name: str
    account: str | None = None

    def differs_from(self, other: "Actor") -> bool:
        """Whether it is somebody else: by account where both have one, else by all names, however they are written."""
        if self.account is not None and other.account is not None:
            return self.account != other.account
        return not self._names & other._names

    @property
    def _names(self) -> set[str]:
        given = {
            unicodedata.normalize("NFKC", " ".join(name.split())).casefold() for name in (self.name, self.account or "")
        }
        return given - {""}

    def __str__(self) -> str:
        if self.account is None:
            return f"{self.name} (name as given, no account)"
        return self.account if self.name == self.account else f"{self.account} ({self.name})"


@dataclass(frozen=True)
class DatasetFacts:
    """What a model was made from.

    Attributes:
        manifest: The manifest (parquet), one row an image.
        data_hash: Identity of the manifest's content.
        holdout_id: Identity of the frozen holdout that the figures were measured on.
        counts: Images by role or label, such as {"train": 400, "holdout": 120}.
        holdout_labels: Identity of that holdout's labels.
        holdout: The frozen holdout (JSON).
    """

    manifest: Path
    data_hash: str
    holdout_id: str
    counts: dict[str, int] = field(default_factory=dict)
    holdout_labels: str = ""
    holdout: Path | None = None


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
        aliases: champion, challenger, candidate, previous: those that point here.
        tags: All tags.
    """

    model_name: str
    number: int
    run_id: str
    created_at: str
    aliases: tuple[str, ...]
    tags: dict[str, str]

    @property
    def line(self) -> str:
        """The product line."""
        return self.model_name.removeprefix(model_name(""))

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
    def holdout_labels(self) -> str:
        """Identity of that holdout's labels; empty for versions of an earlier morphad."""
        return self.tags.get(f"{PREFIX}holdout_labels", "")

    @property
    def data_version(self) -> str:
        """The same data as a version of the data registry; empty where it is none."""
        return self.tags.get(f"{PREFIX}data_version", "")

    @property
    def guarantee(self) -> str:
        """What its threshold promises, in a sentence; empty for versions of an earlier morphad."""
        return self.tags.get(f"{PREFIX}guarantee", "")

    @property
    def code_revision(self) -> str:
        """Code revision at publication; empty if it was not known."""
        return self.tags.get(f"{PREFIX}code_revision", "")

    @property
    def trained_by(self) -> Actor:
        """Who registered it."""
        return Actor(self.tags.get(f"{PREFIX}by", ""), self.tags.get(f"{PREFIX}account") or None)


def model_name(line: str) -> str:
    """The registered model of a line."""
    return f"morphad-{line}"


def model_sha256(folder: Path) -> str:
    """Identity of a version's files as they were fetched, its code included."""
    # What MLflow writes beside a model that it fetches says where it came from.
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "registered_model_meta")
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


def as_params(values: dict[str, Any]) -> dict[str, str]:
    """Nested settings as MLflow parameters: dotted keys, values as text (JSON for lists)."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
        for name, value in text.flattened(values).items()
    }


_LONGEST_NAME = 200
_UNFIT = re.compile(r"[^\w.\- :/]|^[/.]+|[/.]+$|(?<=/)/+|(?<=\.)\.+")


def fit_names(values: dict[str, T]) -> dict[str, T]:
    """Values under names that MLflow accepts for parameters and metrics; two names never become one.

    MLflow accepts letters, digits and `_ - . : /` and blanks, in the form of a clean relative path. Kinds of defect are
    named by people: `escape.Riss (tief)` becomes `escape.Riss _tief_`.
    """
    fit: dict[str, T] = {}
    for name, value in values.items():
        new = _UNFIT.sub("_", name)[:_LONGEST_NAME] or "_"
        if new != name and (new in fit or new in values):
            new = f"{new}-{sha256_json(name)[:8]}"
        fit[new] = value
    return fit
