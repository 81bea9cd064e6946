"""Changes of what serves on a line: written into the audit trail first, then carried out on MLflow's aliases.

The trail says which version serves; the aliases follow from it. Whoever adds an entry moves the aliases to where the
whole trail wants them and reads the trail again until both agree. So two at once end with the aliases of the
younger decision, whatever the order of their requests. An entry that was not carried out is a lock: others wait for it
`LEASE` seconds at most, by their own clock, and then carry it out themselves, at once where its process is known to be
dead. A difference that no unfinished entry explains was made by hand, and stops every decision until `repair` has
settled it.

All functions run within a session of the connection.
"""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from morphad.base.errors import BadInputError, CheckFailedError
from morphad.registry import trail_store, versions
from morphad.registry.connection import Connection
from morphad.registry.records import (
    CANDIDATE,
    CHALLENGER,
    CHAMPION,
    PREFIX,
    PREVIOUS,
    Actor,
    Version,
    code_revision,
    model_name,
)
from morphad.registry.standing import Standing, standing
from morphad.registry.trail import Action, Entry, OvertakenError, Trail, document_hash, phrase

LEASE = 10.0  # seconds
_POLL = 0.2
_ANCHOR = f"{PREFIX}trail"  # tag of the registered model: number and hash of the last decision that was carried out
_OURS = (PREVIOUS, CANDIDATE, CHAMPION)  # the aliases that the trail governs, in the order in which they are set


@dataclass(frozen=True)
class Found:
    """A line as trail and aliases have it.

    Attributes:
        trail: Its decisions.
        standing: What follows from them.
        aliases: What MLflow's aliases say, challenger included.
        anchor: The registered model's copy of the trail's end; "" for none yet, None where there is no such model.
    """

    trail: Trail
    standing: Standing
    aliases: dict[str, int]
    anchor: str | None

    @property
    def wrong_aliases(self) -> dict[str, tuple[int | None, int | None]]:
        """Alias to (what the trail says, what MLflow says), where they differ."""
        ours = {alias: (self.standing.aliases.get(alias), self.aliases.get(alias)) for alias in _OURS}
        return {alias: both for alias, both in ours.items() if both[0] != both[1]}


def read_line(client: MlflowClient, line: str) -> Found:
    """Read both; nothing is compared."""
    model = versions.registered(client, line)
    trail = trail_store.read(client, line)  # second, so that it holds at least what the model's tag knows of
    anchor = None if model is None else str(model.tags.get(_ANCHOR, ""))
    return Found(trail, standing(trail.entries), versions.aliases(model), anchor)


def read_lines(client: MlflowClient) -> dict[str, Found]:
    """The same for all lines, in a few requests however many they are."""
    models = versions.all_registered(client)
    found = trail_store.read_all(client)
    return {
        line: Found(
            trail := found.get(line, Trail(line)),
            standing(trail.entries),
            versions.aliases(models.get(line)),
            None if line not in models else str(models[line].tags.get(_ANCHOR, "")),
        )
        for line in sorted(models.keys() | found.keys())
    }


def in_service(client: MlflowClient, line: str) -> Found:
    """What serves, for those who only read: a change under way counts, a champion moved by hand does not pass.

    Raises:
        CheckFailedError: The alias champion is not where the trail says.
    """
    suspect = None
    while True:
        found = read_line(client, line)
        check_anchor(line, found)
        if found.trail.unfinished or CHAMPION not in found.wrong_aliases:
            return found
        if found == suspect:  # twice the same: no change came between the two readings
            raise _difference(client, line, found)
        suspect = found


def settled(client: MlflowClient, line: str) -> Found:
    """The line, once no change is under way, for those who decide.

    Raises:
        CheckFailedError: Trail and aliases differ.
    """
    found = at_rest(client, line)
    if found.wrong_aliases:
        raise _difference(client, line, found)
    return found


def at_rest(client: MlflowClient, line: str) -> Found:
    """The line, once no change is under way, also where trail and aliases differ then.

    Raises:
        CheckFailedError: The trail was cut, or a change that was cut off cannot be finished.
    """
    deadline, suspect = time.monotonic() + LEASE, None
    while True:
        found = read_line(client, line)
        check_anchor(line, found)
        entry = found.trail.unfinished
        if entry is not None:
            if _abandoned(entry) or time.monotonic() > deadline:
                align(client, line)
            else:
                time.sleep(_POLL)
        elif not found.wrong_aliases or found == suspect:  # twice the same: no change came between the two readings
            return found
        suspect = found


def decide(
    client: MlflowClient,
    connection: Connection,
    found: Found,
    action: Action,
    version: Version | None,
    *,
    actor: Actor,
    decision: dict[str, Any],
    champion: int | None,
) -> Entry:
    """Add a decision to the trail, and carry it out.

    Args:
        client: Of the session.
        connection: Of the session.
        found: The line as it was when the decision was made.
        action: What is done.
        version: To which version.
        actor: Who does it.
        decision: `reasons`, in sentences, and all that they rest on, JSON-ready; `holdout_id`, if it rests on one;
            `gone`, versions that MLflow no longer has; `guarantee`, of the version in service after it; `model_sha256`,
            of the version's files.
        champion: The version in service after it.

    Raises:
        OvertakenError: Somebody else has decided since.
    """
    entry = entry_of(found, action, version, actor=actor, decision=decision, champion=champion)
    written = trail_store.append(client, connection, found.trail, entry, document=decision)
    align(client, found.trail.line)
    return written


def entry_of(
    found: Found,
    action: Action,
    version: Version | None,
    actor: Actor,
    decision: dict[str, Any],
    *,
    champion: int | None,
) -> Entry:
    """The entry of a decision, from the parts that `decide` gets."""
    return Entry(
        action=action,
        version=None if version is None else version.number,
        detector="" if version is None else version.detector_hash,
        champion=champion,
        replaced=found.standing.champion,
        at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        by=actor,
        reasons=tuple(str(reason) for reason in decision.get("reasons", [])),
        gone=tuple(decision.get("gone", ())),
        holdout_id=str(decision.get("holdout_id", "")),
        data_hash="" if version is None else version.data_hash,
        data_version="" if version is None else version.data_version,
        model_sha256=str(decision.get("model_sha256", "")),
        guarantee=str(decision.get("guarantee", "")),
        code_revision=code_revision(),
    )


def repeated(found: Found, action: Action, number: int, decision: dict[str, Any]) -> Entry | None:
    """The same decision about the same version against the same champion, if it is the last about it."""
    about = found.trail.of_version(number)
    if about and (about[-1].action, about[-1].champion) == (action, found.standing.champion):
        return about[-1] if about[-1].document_sha256 == document_hash(decision) else None
    return None


def check_unchanged(found: Found, judged: Standing) -> None:
    """Whether the champion is still the one that a decision was made against.

    Raises:
        OvertakenError: It is not.
    """
    since = found.standing.since
    if since != judged.since and since is not None:
        raise OvertakenError(
            f"line {found.trail.line}: while the challenger was judged against "
            f"{_named(judged.champion)}, {since.by} {phrase(since)} at {since.at}. Nothing was changed here; "
            "run the command again to judge against what serves now"
        )


def check_anchor(line: str, found: Found) -> None:
    """Whether the trail is as long as it was when its last decision was carried out.

    Raises:
        CheckFailedError: Entries are missing, or others stand in their place.
    """
    if not found.anchor:
        return
    number, _, digest = found.anchor.partition(" ")
    entries = found.trail.entries
    there = number.isdecimal() and 0 < int(number) <= len(entries) and entries[int(number) - 1].sha256 == digest
    if not there:
        raise CheckFailedError(
            f"line {line}: {model_name(line)} knows of {number} decisions, but they are not in the audit trail, "
            f"which has {len(entries)}: the trail was cut off or replaced. Restore MLflow's database from a backup"
        )


def align(client: MlflowClient, line: str) -> None:
    """Bring the aliases to where the trail wants them, until both agree and nothing was added meanwhile."""
    name = model_name(line)
    for _ in range(50):
        found = read_line(client, line)
        for alias, (wanted, _) in found.wrong_aliases.items():
            _point(client, line, alias, wanted)
        if found.aliases.get(CHALLENGER) in {found.standing.champion, found.standing.candidate} - {None}:
            _point(client, line, CHALLENGER, None)
        head, unfinished = found.trail.head, found.trail.unfinished
        end = "" if head is None else f"{head.number} {head.sha256}"
        if found.anchor not in {None, end}:
            client.set_registered_model_tag(name, _ANCHOR, end)
        if not found.wrong_aliases:
            # What was added since this reading is for those who added it: nothing is set here any more.
            if unfinished is not None:
                trail_store.finish(client, found.trail, unfinished)
            return
    raise OvertakenError(f"line {line}: others keep deciding about it; see `morphad history {line}`, then run again")


def _point(client: MlflowClient, line: str, alias: str, number: int | None) -> None:
    try:
        if number is None:
            client.delete_registered_model_alias(model_name(line), alias)
        else:
            client.set_registered_model_alias(model_name(line), alias, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        if number is not None:
            raise CheckFailedError(
                f"line {line}: version {number} should be {alias}, but MLflow no longer has it; {_remedy(line)}"
            ) from None


def _abandoned(entry: Entry) -> bool:
    """Whether nobody is at work on it: its process is dead, or it is this one, which then failed in the middle."""
    return entry.alive is False or entry.process == f"{socket.gethostname()}:{os.getpid()}"


def differences(client: MlflowClient, line: str, found: Found) -> list[str]:
    """Where trail and aliases differ, in sentences."""
    said = []
    for alias, (wanted, there) in found.wrong_aliases.items():
        gone = wanted is not None and not versions.exists(client, line, wanted)
        if gone:
            said.append(f"by its records version {wanted} is {alias}, but MLflow no longer has that version")
        elif not found.trail.entries:
            said.append(f"MLflow's alias {alias} names version {there}, but no decision about the line is on record")
        else:
            said.append(f"by its records {_named(wanted)} is {alias}, but MLflow's alias names {_named(there)}")
    return said


def _difference(client: MlflowClient, line: str, found: Found) -> CheckFailedError:
    said = differences(client, line, found) or ["records and aliases differ"]
    return CheckFailedError(f"line {line}: {'; '.join(said)}. {_remedy(line)}")


def _remedy(line: str) -> str:
    return f"See what can be done: morphad registry repair {line}"


def _named(number: int | None) -> str:
    return "no version" if number is None else f"version {number}"


def choices(numbers: Sequence[int]) -> str:
    """Version numbers for a message."""
    return ", ".join(str(number) for number in sorted(numbers)) or "none"


def bad_choice(line: str, number: int, why: str, numbers: Sequence[int]) -> BadInputError:
    """The error for a version that cannot be meant."""
    return BadInputError(f"line {line}: version {number} {why}; versions that can be named: {choices(numbers)}")
