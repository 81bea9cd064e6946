"""The audit trail of a line: a hash-chained list of decisions that MLflow keeps and that nobody can write twice.

MLflow has no transactions, and an alias can be set by two at once. What is atomic on all of its databases is a
parameter of a run: its key is unique, and another value for it is refused. So the trail of a line is one run in an
experiment of its own, and entry number n is the parameter `n`. Whoever writes it first has decided; whoever comes
second is refused by the database and told who was first. Each entry holds the hash of the one before it.

An entry is written before the aliases move. The parameter `n.done` follows when they have. An entry without it is a
change under way, or one that was cut off: see `morphad.registry.changes`.

All functions run within a session of the connection.
"""

import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from mlflow.entities import Experiment, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from morphad.base.errors import BadInputError, CheckFailedError
from morphad.registry.connection import Connection
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

_PREFIX = "morphad-trail-"
_RUN = "morphad.trail_run"  # tag of the experiment
_DONE = ".done"
_LONGEST = 5000  # characters in a parameter; MLflow cuts at 6000
_PAGE = 1000


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
        process: Host and process that acted: whoever finds the entry unfinished can tell whether it still runs.
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
        """Whether the process that wrote it still runs; None where that cannot be told, because it is elsewhere."""
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

    def of_version(self, number: int) -> tuple[Entry, ...]:
        """The decisions about one version."""
        return tuple(entry for entry in self.entries if entry.version == number)


class OvertakenError(CheckFailedError):
    """Somebody else decided about the line in the meantime."""


def read(client: MlflowClient, line: str) -> Trail:
    """The trail of a line; an empty one if nothing was decided yet.

    Raises:
        CheckFailedError: The trail was deleted, or is not as it was written.
    """
    experiment = client.get_experiment_by_name(_PREFIX + line)
    return Trail(line) if experiment is None else _of_experiment(client, line, experiment)


def read_all(client: MlflowClient) -> dict[str, Trail]:
    """The trails of all lines that have one, in as many requests as for one line."""
    experiments: list[Experiment] = []
    token = None
    while True:
        page = client.search_experiments(
            ViewType.ALL, max_results=_PAGE, filter_string=f"name LIKE '{_PREFIX}%'", page_token=token
        )
        experiments += page
        token = page.token
        if not token:
            break
    runs = {run.info.run_id: run for run in _runs(client, [experiment.experiment_id for experiment in experiments])}
    found = {}
    for experiment in experiments:
        line = experiment.name.removeprefix(_PREFIX)
        run = runs.get(experiment.tags.get(_RUN, ""))
        found[line] = (
            _of_experiment(client, line, experiment) if run is None else _parsed(line, run.info.run_id, run.data.params)
        )
    return found


def ensure(client: MlflowClient, connection: Connection, line: str) -> None:
    """Make the trail of a line, still empty, unless it is there."""
    if not read(client, line).run_id:
        _made(client, connection, line)


def append(client: MlflowClient, connection: Connection, trail: Trail, entry: Entry, document: Any = None) -> Entry:
    """Add an entry behind those of `trail`.

    Args:
        client: Of the session.
        connection: Of the session.
        trail: The line's trail as it was read before the decision was taken.
        entry: The decision, without number and hashes.
        document: All that the decision rests on, JSON-ready.

    Returns:
        The entry as it was written.

    Raises:
        OvertakenError: Somebody else has added an entry since `trail` was read. Nothing was written.
    """
    run_id = trail.run_id or _made(client, connection, trail.line)
    values = {**entry.to_json(), "number": len(trail.entries) + 1, "before": trail.head.sha256 if trail.head else ""}
    if document is not None:
        text = document_text(document)
        values["document_sha256"] = _sha256(text)
        values["document"] = f"decisions/{values['document_sha256'][:16]}.json"
        _keep(client, run_id, text, values["document"])
    del values["sha256"]
    key, text = _key(values["number"]), json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False)
    value = text if len(text) <= _LONGEST else _in_parts(client, run_id, text)
    try:
        client.log_param(run_id, key, value)
    except MlflowException:
        # Another was first, or the answer was lost: what stands there tells.
        if key not in client.get_run(run_id).data.params:
            raise
    now = read(client, trail.line)
    written: Entry = now.entries[values["number"] - 1]
    if written.sha256 != _sha256(text):
        raise OvertakenError(
            f"line {trail.line}: {written.by} was faster: {phrase(written)} at {written.at}. Nothing was changed "
            f"here; see `morphad history {trail.line}`, then run again if it is still wanted"
        )
    return written


def finish(client: MlflowClient, trail: Trail, entry: Entry) -> None:
    """Put on record that an entry's change has been carried out; twice does no harm."""
    client.log_param(trail.run_id, _key(entry.number) + _DONE, "done")


def document_hash(document: Any) -> str:
    """The hash that the trail keeps of a document."""
    return _sha256(document_text(document))


def document(client: MlflowClient, trail: Trail, entry: Entry) -> dict[str, Any]:
    """The whole decision of an entry; {} where there is none.

    Raises:
        CheckFailedError: It is not the one that was written.
    """
    import mlflow  # noqa: PLC0415 - after the connection has set it up

    if not entry.document:
        return {}
    root = client.get_run(trail.run_id).info.artifact_uri
    text = mlflow.artifacts.load_text(f"{root}/{entry.document}")
    if _sha256(text) != entry.document_sha256:
        raise CheckFailedError(
            f"line {trail.line}: {entry.document} of decision {entry.number} is not what was written; restore the "
            "artifact store from a backup"
        )
    loaded: dict[str, Any] = json.loads(text)
    return loaded


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
                sha256=_sha256(text),
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


def _keep(client: MlflowClient, run_id: str, text: str, name: str) -> None:
    """Write a file of the run where it lies now: MLflow's client would remember where it lay in a folder that moved."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
        file = Path(scratch) / Path(name).name
        file.write_text(text, encoding="utf-8")
        repository: Any = get_artifact_repository(client.get_run(run_id).info.artifact_uri)
        repository.log_artifact(str(file), str(Path(name).parent))


def _of_experiment(client: MlflowClient, line: str, experiment: Experiment) -> Trail:
    if experiment.lifecycle_stage != "active":
        raise CheckFailedError(
            f"line {line}: its audit trail was deleted (experiment {experiment.name}); restore it: "
            f"mlflow experiments restore -x {experiment.experiment_id}"
        )
    run_id = experiment.tags.get(_RUN, "")
    run = client.get_run(run_id) if run_id else None
    if run is None or run.info.lifecycle_stage != "active":
        raise CheckFailedError(
            f"line {line}: its audit trail was deleted (run {run_id or 'unknown'} of experiment {experiment.name}); "
            f"restore it: mlflow runs restore --run-id {run_id or 'RUN'}"
        )
    return _parsed(line, run_id, run.data.params)


def _parsed(line: str, run_id: str, params: Mapping[str, str]) -> Trail:
    texts = [_whole(params, params[key]) for key in sorted(params) if key.isdecimal()]
    done = frozenset(int(key.removesuffix(_DONE)) for key in params if key.endswith(_DONE))
    return Trail(line, run_id, tuple(chained(line, texts)), done)


def _made(client: MlflowClient, connection: Connection, line: str) -> str:
    """Make the trail of a line: under another name first, so that it appears whole, with its run, or not at all."""
    name = f"{_PREFIX}{line}"
    unfinished = f"morphad-new-trail-{uuid4().hex}"
    experiment = client.create_experiment(unfinished, artifact_location=connection.artifact_location(name))
    run = client.create_run(experiment, run_name=f"decisions on {line}", tags={"morphad.line": line})
    client.set_terminated(run.info.run_id)  # nothing runs; parameters may be added all the same
    client.set_experiment_tag(experiment, _RUN, run.info.run_id)
    try:
        client.rename_experiment(experiment, name)
    except MlflowException:
        there = client.get_experiment_by_name(name)
        if there is None:
            raise
        if there.experiment_id != experiment:  # another process was faster
            client.delete_experiment(experiment)
            return read(client, line).run_id
    return str(run.info.run_id)


def _in_parts(client: MlflowClient, run_id: str, text: str) -> str:
    """Write a text that is too long for a parameter under its hash; what stands for it."""
    digest = _sha256(text)
    parts = [text[start : start + _LONGEST] for start in range(0, len(text), _LONGEST)]
    for number, part in enumerate(parts):
        client.log_param(run_id, f"{digest}.{number}", part)
    return json.dumps({"parts": len(parts), "sha256": digest})


def _whole(params: Mapping[str, str], value: str) -> str:
    if not value.startswith('{"parts"'):
        return value
    try:
        known = json.loads(value)
        return "".join(params[f"{known['sha256']}.{number}"] for number in range(known["parts"]))
    except (ValueError, TypeError, KeyError):
        return value  # the chain tells that it is broken


def _runs(client: MlflowClient, experiments: list[str]) -> Iterator[Any]:
    token = None
    while experiments:
        page = client.search_runs(experiments, run_view_type=ViewType.ALL, max_results=_PAGE, page_token=token)
        yield from (run for run in page if run.info.lifecycle_stage == "active")
        token = page.token
        if not token:
            return


def _broken(line: str, number: int, how: str) -> CheckFailedError:
    return CheckFailedError(
        f"line {line}: decision {number} of its audit trail {how}: somebody changed MLflow's database. Nothing is "
        "decided on a record that is not true: restore the database from a backup"
    )


def _key(number: int) -> str:
    if number > 999_999:
        raise BadInputError(f"decision {number:,}: an audit trail holds 999,999")
    return f"{number:06}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
