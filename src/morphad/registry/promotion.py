"""Which version serves: promotion, refusal, rollback, and the record that each of them leaves.

MLflow changes one alias at a time and has no transactions. A change of champion is therefore written down first, as a
tag of the registered model (`morphad.pending`); whoever comes next finds an unfinished change and finishes it. Every
step can be done twice. The alias champion moves in a single call, so it always names a version that passed the gate.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from mlflow.tracking import MlflowClient

from morphad.errors import CheckFailedError
from morphad.files import sha256_json
from morphad.registry import versions
from morphad.registry.records import (
    CHALLENGER,
    CHAMPION,
    DECISION_PREFIX,
    PREFIX,
    PREVIOUS,
    Version,
    code_revision,
    model_name,
)
from morphad.text import masked

PENDING = f"{PREFIX}pending"

Action = Literal["promoted", "refused", "rolled back"]


@dataclass(frozen=True)
class Record:
    """One entry of the audit trail: a tag of the version, and in full an artifact of its run."""

    action: Action
    version: int
    replaced: int | None  # the champion before
    champion: int | None  # the champion after
    at: str
    by: str
    reasons: list[str]
    data_hash: str
    holdout_id: str
    code_revision: str  # of the code that decided; the version's own tags say what trained it
    artifact: str

    @property
    def key(self) -> str:
        """The tag that holds it: unique, and in order of time."""
        return DECISION_PREFIX + self.at.replace("+00:00", "Z")


def promote(client: MlflowClient, line: str, number: int, decision: dict[str, Any], actor: str) -> Version:
    """See `Registry.promote`."""
    recover(client, line)
    version = versions.one_version(client, line, number)
    champion = versions.aliases(versions.registered(client, line)).get(CHAMPION)
    if champion != number:
        _change(client, line, _record(client, version, "promoted", decision, actor, replaced=champion, champion=number))
    return versions.one_version(client, line, number)


def refuse(client: MlflowClient, line: str, number: int, decision: dict[str, Any], actor: str) -> Version:
    """See `Registry.refuse`."""
    recover(client, line)
    version = versions.one_version(client, line, number)
    champion = versions.aliases(versions.registered(client, line)).get(CHAMPION)
    artifact = _artifact("refused", decision, champion)
    if not any(record["artifact"] == artifact for record in version.decisions):
        _note(client, line, _record(client, version, "refused", decision, actor, replaced=None, champion=champion))
    return versions.one_version(client, line, number)


def rollback(client: MlflowClient, line: str, why: str, actor: str) -> Version:
    """See `Registry.rollback`."""
    finished = recover(client, line)
    if finished is not None and finished.action == "rolled back" and finished.champion is not None:
        return versions.one_version(client, line, finished.champion)
    pointing = versions.aliases(versions.registered(client, line))
    champion, previous = pointing.get(CHAMPION), pointing.get(PREVIOUS)
    if champion is None:
        raise CheckFailedError(f"line {line}: nothing to roll back, no version of {model_name(line)} is champion")
    if previous is None or previous == champion:
        raise CheckFailedError(
            f"line {line}: no previous champion to go back to; version {champion} stays champion. "
            "Promote another version, or take the line out of automatic inspection"
        )
    bad = versions.one_version(client, line, champion)
    decision = {"reasons": [masked(why)]}
    _change(client, line, _record(client, bad, "rolled back", decision, actor, replaced=champion, champion=previous))
    return versions.one_version(client, line, previous)


def recover(client: MlflowClient, line: str) -> Record | None:
    """Finish a change of champion that was cut off; None if there was none."""
    model = versions.registered(client, line)
    pending = None if model is None else model.tags.get(PENDING)
    if not pending:
        return None
    record = Record(**json.loads(pending))
    _finish(client, line, record)
    return record


def _change(client: MlflowClient, line: str, record: Record) -> None:
    client.set_registered_model_tag(model_name(line), PENDING, json.dumps(asdict(record)))
    _finish(client, line, record)


def _finish(client: MlflowClient, line: str, record: Record) -> None:
    name = model_name(line)
    pointing = versions.aliases(versions.registered(client, line))
    if record.action == "promoted" and record.replaced is not None and pointing.get(PREVIOUS) != record.replaced:
        client.set_registered_model_alias(name, PREVIOUS, str(record.replaced))
    if pointing.get(CHAMPION) != record.champion:
        client.set_registered_model_alias(name, CHAMPION, str(record.champion))
    if record.action == "promoted" and pointing.get(CHALLENGER) == record.version:
        client.delete_registered_model_alias(name, CHALLENGER)
    if record.action == "rolled back" and PREVIOUS in pointing:
        # Gone, so that a second rollback does not put the bad version back in service.
        client.delete_registered_model_alias(name, PREVIOUS)
    _note(client, line, record)
    client.delete_registered_model_tag(name, PENDING)


def _note(client: MlflowClient, line: str, record: Record) -> None:
    client.set_model_version_tag(model_name(line), str(record.version), record.key, json.dumps(asdict(record)))


def _record(
    client: MlflowClient,
    version: Version,
    action: Action,
    decision: dict[str, Any],
    actor: str,
    *,
    replaced: int | None,
    champion: int | None,
) -> Record:
    """Make the record and put the whole decision, figures and all, among the run's artifacts."""
    record = Record(
        action=action,
        version=version.number,
        replaced=replaced,
        champion=champion,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        by=masked(actor),
        reasons=[str(reason) for reason in decision.get("reasons", [])],
        data_hash=version.data_hash,
        holdout_id=version.holdout_id,
        code_revision=code_revision(),
        artifact=_artifact(action, decision, champion),
    )
    client.log_dict(version.run_id, {**asdict(record), "decision": decision}, record.artifact)
    return record


def _artifact(action: Action, decision: dict[str, Any], champion: int | None) -> str:
    """Named by content, so that the same decision taken again is the same file."""
    return f"decisions/{action.replace(' ', '-')}-{sha256_json([decision, champion])[:12]}/decision.json"
