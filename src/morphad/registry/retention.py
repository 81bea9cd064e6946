"""Which versions of a line may go for good: never what an alias, a rollback, the last weeks or a person needs.

The trail, the runs and their reports stay, so what was decided is known after the weights are gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mlflow.exceptions import MlflowException

from morphad.registry import changes, versions
from morphad.registry.changes import Found
from morphad.registry.decisions import Desk
from morphad.registry.records import PREFIX, Version, model_name
from morphad.registry.trail import CHANGES, Entry, moments

KEEP = f"{PREFIX}keep"  # tag of a version that a person wants to stay; its value says why


@dataclass(frozen=True)
class Retention:
    """What is kept.

    Attributes:
        newest: So many of the youngest versions.
        former: So many of the champions before this one: what can be rolled back to.
        days: What was in service so many days ago or later: a service that was not started anew may still run it.
    """

    newest: int = 3
    former: int = 3
    days: int = 30


@dataclass(frozen=True)
class Pruning:
    """A plan.

    Attributes:
        removed: Versions that would go, oldest first.
        kept: Versions that stay, with the reason.
    """

    removed: tuple[int, ...] = ()
    kept: dict[int, str] = field(default_factory=dict)


def plan(found: Found, there: Sequence[Version], retention: Retention, now: datetime) -> Pruning:
    """What would go.

    Args:
        found: The line.
        there: Its versions in MLflow.
        retention: What is kept.
        now: With a time zone.
    """
    newest = sorted(version.number for version in there)[-retention.newest :] if retention.newest else []
    former = found.standing.former[-retention.former :] if retention.former else ()
    recent = _served_since(found.trail.entries, now - timedelta(days=retention.days))
    kept: dict[int, str] = {}
    removed = []
    for version in sorted(there, key=lambda one: one.number):
        going = found.trail.removal(version.number, version.created_at) is not None
        why = _wanted(version) or (None if going else _needed(version, newest, former, recent, retention))
        if why is None:
            removed.append(version.number)
        else:
            kept[version.number] = why
    return Pruning(tuple(removed), kept)


def prune(desk: Desk, retention: Retention, why: str, now: datetime) -> Pruning:
    """Put on record what goes, then remove it; killed between, the next call goes on.

    Raises:
        OvertakenError: Somebody decided about the line in the meantime; nothing was removed.
        CheckFailedError: Records and aliases differ.
    """
    found = changes.settled(desk.client, desk.line)
    there = versions.all_versions(desk.client, desk.line)
    planned = plan(found, there, retention, now)
    if not planned.removed:
        return planned
    going = {version.number for version in there if found.trail.removal(version.number, version.created_at)}
    if new := [number for number in planned.removed if number not in going]:
        decision = {"reasons": [why], "gone": new, "kept": {str(n): reason for n, reason in planned.kept.items()}}
        desk.decide(found, "pruned", None, decision, champion=found.standing.champion)
    for version in there:
        if version.number in planned.removed:
            _remove(desk, version)
    return planned


def _remove(desk: Desk, version: Version) -> None:
    source = desk.client.get_model_version(model_name(desk.line), str(version.number)).source or ""
    desk.client.delete_model_version(model_name(desk.line), str(version.number))
    _, _, model_id = source.partition("models:/")
    if not model_id or "/" in model_id:
        return
    try:
        desk.client.delete_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _wanted(version: Version) -> str | None:
    """Why a version stays, also one whose removal is on record; None if nothing says so."""
    if version.aliases:
        return f"is {' and '.join(version.aliases)}"
    return f"is to be kept: {version.tags[KEEP]}" if version.tags.get(KEEP) else None


def _needed(
    version: Version, newest: Sequence[int], former: Sequence[int], recent: set[int], retention: Retention
) -> str | None:
    """Why a version stays; None if nothing keeps it."""
    if version.number in former:
        return "can be rolled back to"
    if version.number in recent:
        return f"was in service in the last {retention.days} days"
    if version.number in newest:
        return f"is one of the {retention.newest} newest"
    return None


def _served_since(entries: Sequence[Entry], start: datetime) -> set[int]:
    """Versions that were in service at some time after `start`."""
    served: set[int] = set()
    current: int | None = None
    for entry, moment in zip(entries, moments(entries), strict=True):
        if entry.action not in CHANGES:
            continue
        if moment < start:
            current = entry.champion
        else:
            served |= {number for number in (current, entry.champion) if number is not None}
            current = entry.champion
    return served | ({current} if current is not None else set())
