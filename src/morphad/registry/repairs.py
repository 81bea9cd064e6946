"""What settles a difference between a line's trail and MLflow's aliases: a plan first, then entries of the trail."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from mlflow.tracking import MlflowClient

from morphad.base.errors import BadInputError, CheckFailedError
from morphad.base.text import masked
from morphad.registry import changes, versions
from morphad.registry.changes import Found
from morphad.registry.decisions import Desk, named
from morphad.registry.records import CHAMPION, PREVIOUS, Version
from morphad.registry.standing import Standing
from morphad.registry.trail import OvertakenError


@dataclass(frozen=True)
class Repair:
    """What can be done about a difference between trail and aliases.

    Attributes:
        differences: In sentences; empty: nothing is to be done.
        steps: What would be done, in sentences.
        champion: The version in service after it.
        adopted: Versions that served before there was a trail, oldest first.
        gone: Versions that served, and that MLflow no longer has.
    """

    differences: tuple[str, ...]
    steps: tuple[str, ...] = ()
    champion: int | None = None
    adopted: tuple[int, ...] = ()
    gone: tuple[int, ...] = ()


def plan_repair(client: MlflowClient, line: str, *, accept: bool, to: int | None) -> tuple[Found, Repair]:
    """What would settle the differences of a line.

    Args:
        client: Of the session.
        line: The line.
        accept: Accept the version that MLflow's alias names now, in place of the one on record.
        to: Choose this one, of those that served before.

    Raises:
        CheckFailedError: The trail itself is broken.
        BadInputError: `to` cannot be chosen.
    """
    found = _as_it_is(client, line)
    differences = tuple(changes.differences(client, line, found))
    if not differences:
        return found, Repair((), champion=found.standing.champion)
    champion = found.standing.champion
    if not found.trail.entries:
        order = [found.aliases[alias] for alias in (PREVIOUS, CHAMPION) if alias in found.aliases]
        steps = tuple(
            f"put on record that version {number} was in service before there were records" for number in order
        )
        return found, Repair(differences, steps, found.aliases.get(CHAMPION), tuple(order))
    there = {number for number in found.standing.served if versions.exists(client, line, number)}
    gone = tuple(sorted(found.standing.served - there))
    if to is not None:
        if to not in there:
            raise changes.bad_choice(line, to, "is not there or was never in service", list(there))
        champion = to
    elif accept:
        champion = found.aliases.get(CHAMPION)
    if champion is not None and champion in gone:
        step = "take the line out of service, since its champion is gone; or name a version to go back to: --to VERSION"
        return found, Repair(differences, (step,), None, gone=gone)
    steps = (f"put {named(champion)} in service and on record, and set MLflow's aliases by the records",)
    return found, Repair(differences, steps, champion, gone=gone)


def _as_it_is(client: MlflowClient, line: str) -> Found:
    """The line once no change is under way: what such a change explains is no difference."""
    try:
        return changes.at_rest(client, line)
    except OvertakenError:
        raise
    except CheckFailedError:  # the change cannot be finished, because its version is gone
        found = changes.read_line(client, line)
        changes.check_anchor(line, found)
        return found


def repair(desk: Desk, found: Found, planned: Repair, why: str, check: Callable[[Version], None]) -> None:
    """Do what was planned, as entries of the trail.

    Args:
        desk: Of the line.
        found: The line as it was when this was planned.
        planned: The plan.
        why: The reason.
        check: Raises if a version cannot be loaded.

    Raises:
        OvertakenError: The line has changed since.
    """
    if not planned.differences:
        raise BadInputError(f"line {desk.line}: records and aliases agree; there is nothing to repair")
    decision = {"reasons": [masked(why), *planned.differences], "gone": list(planned.gone)}
    if planned.adopted:
        # One entry for both: cut off between two of them, the earlier version would be in service.
        before = replace(found, standing=Standing(champion=found.aliases.get(PREVIOUS)))
        served = None if planned.champion is None else versions.one_version(desk.client, desk.line, planned.champion)
        desk.decide(before, "adopted", served, decision, champion=planned.champion)
        return
    champion = planned.champion
    restored = None if champion is None else versions.one_version(desk.client, desk.line, champion)
    if restored is not None and champion != found.standing.champion:
        check(restored)
    desk.decide(found, "repaired", restored, decision, champion=champion)
