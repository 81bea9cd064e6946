"""Where the audit trail of a line lies: MLflow keeps it so that nobody can write an entry twice.

MLflow has no transactions, and an alias can be set by two at once. What is atomic on all of its databases is a
parameter of a run: its key is unique, and another value for it is refused. So the trail of a line is one run in an
experiment of its own, and entry number n is the parameter `n`. Whoever writes it first has decided; whoever comes
second is refused by the database and learns who was first.

An entry is written before the aliases move. The parameter `n.done` follows when they have. An entry without it is a
change under way, or one that was cut off: see `morphad.registry.changes`.

All functions run within a session of the connection.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlflow.entities import Experiment, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from morphad.base.errors import BadInputError, CheckFailedError
from morphad.registry.connection import Connection
from morphad.registry.trail import Entry, OvertakenError, Trail, chained, document_text, phrase, text_hash

_PREFIX = "morphad-trail-"
_RUN = "morphad.trail_run"  # tag of the experiment
_DONE = ".done"
_LONGEST = 5000  # characters in a parameter; MLflow cuts at 6000
_PAGE = 1000


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
        trail: The line's trail as it was read before the decision was made.
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
        values["document_sha256"] = text_hash(text)
        values["document"] = f"decisions/{values['document_sha256'][:16]}.json"
        _keep(client, run_id, text, values["document"])
    del values["sha256"]
    key, text = _key(values["number"]), json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False)
    value = text if len(text) <= _LONGEST else _in_parts(client, run_id, text)
    try:
        client.log_param(run_id, key, value)
    except MlflowException:
        # Another was first, or the answer was lost: what stands there decides.
        if key not in client.get_run(run_id).data.params:
            raise
    now = read(client, trail.line)
    written: Entry = now.entries[values["number"] - 1]
    if written.sha256 != text_hash(text):
        raise OvertakenError(
            f"line {trail.line}: {written.by} was faster: {phrase(written)} at {written.at}. Nothing was changed "
            f"here; see `morphad history {trail.line}`, then run again if it is still wanted"
        )
    return written


def finish(client: MlflowClient, trail: Trail, entry: Entry) -> None:
    """Put on record that an entry's change has been carried out; twice does no harm."""
    client.log_param(trail.run_id, _key(entry.number) + _DONE, "done")


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
    if text_hash(text) != entry.document_sha256:
        raise CheckFailedError(
            f"line {trail.line}: {entry.document} of decision {entry.number} is not what was written; restore the "
            "artifact store from a backup"
        )
    loaded: dict[str, Any] = json.loads(text)
    return loaded


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
    digest = text_hash(text)
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
        return value  # the chain shows that it is broken


def _runs(client: MlflowClient, experiments: list[str]) -> Iterator[Any]:
    token = None
    while experiments:
        page = client.search_runs(experiments, run_view_type=ViewType.ALL, max_results=_PAGE, page_token=token)
        yield from (run for run in page if run.info.lifecycle_stage == "active")
        token = page.token
        if not token:
            return


def _key(number: int) -> str:
    if number > 999_999:
        raise BadInputError(f"decision {number:,}: an audit trail holds 999,999")
    return f"{number:06}"
