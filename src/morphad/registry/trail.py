"""The audit trail of a line: a list of decisions, each of which holds the hash of the one before it.

Values and texts only; `morphad.registry.trail_store` keeps them in MLflow.
"""

import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from itertools import accumulate
from typing import Any, Literal

from morphad.base.errors import CheckFailedError
from morphad.registry.records import Actor

Action = Literal[
    "adopted",  # in service before there was a trail
    "promoted",
    "refused",
    "proposed",  # passed the gate, awaits a second pair of eyes
    "approved",
    "declined",
    "rolled back",
    "taken out of service",
    "repaired",
    "pruned",
]

# What changes the version in service.
CHANGES: frozenset[Action] = frozenset(
    {"adopted", "promoted", "approved", "rolled back", "taken out of service", "repaired"}
)


@dataclass(frozen=True)
class Entry:
    """One decision about a line.

    Attributes:
        action: What was done.
        version: The version that it was done to; None for none.
        detector: Hash of that version's detector.
        champion: The version in service after it; None for none.
        replaced: The version in service before it.
        at: When, ISO 8601 in UTC, by the clock of who acted. The order is that of the numbers, not of the clocks.
        by: Who acted.
        reasons: Why, in whole sentences.
        gone: Versions that MLflow no longer has from here on.
        holdout_id: The frozen holdout that the figures are of; "" where none was used.
        data_hash: The data that the version was made from.
        data_version: The same as a version of the data registry; "" where it is none.
        model_sha256: Of the files of the version, its code included, as they were judged; "" where none was.
        guarantee: What the threshold of the version in service after it promises; "" where none serves.
        code_revision: Of the code that decided.
        document: The whole decision with its figures, an artifact of the trail's run; "" where there is none.
        document_sha256: Of the document's content.
        process: Host and process that acted: whoever finds the entry unfinished can find out whether it still runs.
        number: Its place in the trail, from 1.
        before: SHA-256 of the entry before it; "" for the first.
        sha256: SHA-256 of this one.
    """

    action: Action
    version: int | None
    detector: str
    champion: int | None
    replaced: int | None
    at: str
    by: Actor
    reasons: tuple[str, ...]
    gone: tuple[int, ...] = ()
    holdout_id: str = ""
    data_hash: str = ""
    data_version: str = ""
    model_sha256: str = ""
    guarantee: str = ""
    code_revision: str = ""
    document: str = ""
    document_sha256: str = ""
    process: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    number: int = 0
    before: str = ""
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "reasons": list(self.reasons), "gone": list(self.gone)}

    @property
    def alive(self) -> bool | None:
        """Whether the process that wrote it still runs; None where that is not known, because it is elsewhere."""
        host, _, process = self.process.rpartition(":")
        if host != socket.gethostname() or not process.isdecimal():
            return None
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


@dataclass(frozen=True)
class Trail:
    """The decisions of a line, oldest first.

    Attributes:
        line: The line.
        run_id: The run that holds them.
        entries: The decisions, their chain checked.
        done: Numbers of the entries that the aliases have followed.
    """

    line: str
    run_id: str = ""
    entries: tuple[Entry, ...] = ()
    done: frozenset[int] = frozenset()

    @property
    def head(self) -> Entry | None:
        """The youngest entry."""
        return self.entries[-1] if self.entries else None

    @property
    def unfinished(self) -> Entry | None:
        """The youngest entry, if the aliases do not follow it yet."""
        return None if self.head is None or self.head.number in self.done else self.head

    def judged_model(self, number: int) -> str:
        """Hash of a version's files as they were when it was last judged; "" if it never was."""
        return next((entry.model_sha256 for entry in reversed(self.of_version(number)) if entry.model_sha256), "")

    def removal(self, number: int, created_at: str) -> Entry | None:
        """The decision to remove a version for good, where there is one: it is gone, or is going.

        Args:
            number: The version's.
            created_at: When it was registered; numbers begin anew where somebody deletes the whole registered model.
        """
        for entry in reversed(self.entries):
            if entry.action == "pruned" and number in entry.gone:
                later = bool(created_at) and datetime.fromisoformat(created_at) > datetime.fromisoformat(entry.at)
                return None if later else entry
        return None

    def of_version(self, number: int) -> tuple[Entry, ...]:
        """The decisions about one version."""
        return tuple(entry for entry in self.entries if entry.version == number)


def moments(entries: Iterable[Entry]) -> list[datetime]:
    """When each decision was made: no earlier than the one before it, whatever the clock of who acted said."""
    return list(accumulate((datetime.fromisoformat(entry.at) for entry in entries), max))


class OvertakenError(CheckFailedError):
    """Somebody else decided about the line in the meantime."""


def document_hash(document: Any) -> str:
    """The hash that the trail keeps of a document."""
    return text_hash(document_text(document))


def phrase(entry: Entry) -> str:
    """What was done, in words: "promoted version 3"."""
    which = "" if entry.version is None else f" version {entry.version}"
    if entry.action == "taken out of service":
        return f"took{which} out of service"
    if entry.action == "rolled back":
        return f"rolled back{which} to version {entry.champion}"
    return f"{entry.action}{which}"


def chained(line: str, texts: Iterable[str]) -> Iterator[Entry]:
    """Entries from their texts, in order, with the chain checked.

    Raises:
        CheckFailedError: A text is not the one that was written, or is not in its place.
    """
    before = ""
    known = {item.name for item in fields(Entry)}
    for number, text in enumerate(texts, 1):
        try:
            values = json.loads(text)
            entry = Entry(
                **{key: value for key, value in values.items() if key in known - {"by", "reasons", "gone", "sha256"}},
                by=Actor(**values["by"]),
                reasons=tuple(values["reasons"]),
                gone=tuple(values["gone"]),
                sha256=text_hash(text),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise _broken(line, number, f"cannot be read ({error})") from error
        if (entry.number, entry.before) != (number, before):
            raise _broken(line, number, "does not follow from the one before it")
        before = entry.sha256
        yield entry


def text_of(entry: Entry) -> str:
    """The text whose hash is the entry's: what `chained` reads."""
    values = {key: value for key, value in entry.to_json().items() if key != "sha256"}
    return json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False)


def document_text(document: Any) -> str:
    """A decision's document as it is kept and hashed."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _broken(line: str, number: int, how: str) -> CheckFailedError:
    return CheckFailedError(
        f"line {line}: decision {number} of its audit trail {how}: somebody changed MLflow's database. Nothing is "
        "decided on a record that is not true: restore the database from a backup"
    )


def text_hash(text: str) -> str:
    """SHA-256 of a text, as the chain uses it."""
    return hashlib.sha256(text.encode()).hexdigest()
