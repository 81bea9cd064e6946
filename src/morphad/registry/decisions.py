"""What can be decided about a line: promotion, refusal, approval, rollback, withdrawal. Repair is beside it.

All functions run within a session of the connection. They raise CheckFailedError where trail and aliases differ, and
OvertakenError where somebody else decided in the meantime; then nothing was changed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlflow.tracking import MlflowClient

from morphad.base.errors import CheckFailedError
from morphad.base.text import masked_settings
from morphad.registry import changes, versions
from morphad.registry.changes import Found
from morphad.registry.connection import Connection
from morphad.registry.records import Actor, Version, model_name
from morphad.registry.standing import Standing
from morphad.registry.trail import Action, Entry

Decision = dict[str, Any]


@dataclass(frozen=True)
class Desk:
    """Where decisions about a line are made.

    Attributes:
        connection: With a session open.
        client: Of that session.
        line: The line.
        actor: Who decides.
    """

    connection: Connection
    client: MlflowClient
    line: str
    actor: Actor

    def promote(self, number: int, decision: Decision, judged: Standing | None = None) -> Entry | None:
        """Put a version in service; None if it is there already.

        Args:
            number: The version.
            decision: The gate's, with `reasons`.
            judged: The line when the gate judged; None: as it is now.
        """
        found = self._settled(judged)
        if found.standing.champion == number:
            return None
        version = self._free(found, number)
        return self.decide(found, "promoted", version, decision, champion=number)

    def propose(self, number: int, decision: Decision, judged: Standing | None = None) -> Entry | None:
        """Let a version that passed the gate await approval; None if it does already, judged against this champion."""
        found = self._settled(judged)
        waiting = found.standing.proposal
        if waiting is not None and (waiting.version, waiting.champion) == (number, found.standing.champion):
            return None
        version = self._free(found, number)
        return self.decide(found, "proposed", version, decision, champion=found.standing.champion)

    def refuse(self, number: int, decision: Decision, judged: Standing | None = None) -> Entry | None:
        """Put on record that the gate said no; None if the same was the last word about the version."""
        found = self._settled(judged)
        version = versions.one_version(self.client, self.line, number)
        if (
            changes.repeated(found, "refused", number, masked_settings(self._whole(decision, found.standing.champion)))
            is not None
        ):
            return None
        return self.decide(found, "refused", version, decision, champion=found.standing.champion)

    def approve(self, why: str, check: Callable[[Version], None], meant: int | None = None) -> Entry:
        """Put the candidate in service.

        Args:
            why: The reason.
            check: Raises if a version cannot be loaded.
            meant: The version that was reviewed; None: whichever waits.

        Raises:
            CheckFailedError: There is none or another one, it was judged against another champion, or who approves has
                trained it.
        """
        found = self._settled()
        version = self._candidate(found, meant)
        proposal = found.standing.proposal
        if proposal is not None and proposal.champion != found.standing.champion:
            raise CheckFailedError(
                f"line {self.line}: version {version.number} was judged against {named(proposal.champion)}, but "
                f"{named(found.standing.champion)} serves now; run `morphad promote {self.line}` again"
            )
        if not self.actor.differs_from(version.trained_by):
            raise CheckFailedError(
                f"line {self.line}: version {version.number} was trained by {version.trained_by}, and four eyes "
                "need somebody else to approve it; let another account do it"
            )
        check(version)  # it may have waited for weeks
        passed = list(proposal.reasons) if proposal is not None else []
        decision = {"reasons": [why, *passed], "holdout_id": proposal.holdout_id if proposal else "", "why": why}
        return self.decide(found, "approved", version, decision, champion=version.number)

    def decline(self, why: str, meant: int | None = None) -> Entry:
        """Send the candidate away; as `approve` otherwise.

        Raises:
            CheckFailedError: There is none, or another one.
        """
        found = self._settled()
        version = self._candidate(found, meant)
        return self.decide(found, "declined", version, {"reasons": [why]}, champion=found.standing.champion)

    def rollback(self, to: int | None, why: str, check: Callable[[Version], None]) -> Entry:
        """Put an earlier champion back in service.

        Args:
            to: Which; None: the one before.
            why: The reason.
            check: Raises if a version cannot be loaded.

        Raises:
            CheckFailedError: There is no champion before this one, or the last change was a rollback already.
            BadInputError: `to` was never in service.
        """
        found = self._settled()
        standing = found.standing
        there = {number for number in standing.served if versions.exists(self.client, self.line, number)}
        possible = there - {standing.champion}
        if to is None:
            to = self._one_back(found, possible)
        if to == standing.champion:
            raise CheckFailedError(f"line {self.line}: version {to} is champion already")
        if to not in possible:
            why_not = "is no longer in MLflow" if to in standing.served else "was never in service"
            raise changes.bad_choice(self.line, to, why_not, list(possible))
        target = versions.one_version(self.client, self.line, to)
        check(target)
        bad = None if standing.champion is None else versions.one_version(self.client, self.line, standing.champion)
        return self.decide(found, "rolled back", bad, {"reasons": [why]}, champion=to)

    def withdraw(self, why: str) -> Entry:
        """Take the champion out of service; the line has none then.

        Raises:
            CheckFailedError: It has none now.
        """
        found = self._settled()
        if found.standing.champion is None:
            raise CheckFailedError(f"line {self.line}: no version of {model_name(self.line)} is in service")
        bad = versions.one_version(self.client, self.line, found.standing.champion)
        return self.decide(found, "taken out of service", bad, {"reasons": [why]}, champion=None)

    def decide(
        self, found: Found, action: Action, version: Version | None, decision: Decision, *, champion: int | None
    ) -> Entry:
        """Decide about the line as it was found."""
        decision = masked_settings(self._whole(decision, champion))
        return changes.decide(
            self.client,
            self.connection,
            found,
            action,
            version,
            actor=self.actor,
            decision=decision,
            champion=champion,
        )

    def _whole(self, decision: Decision, champion: int | None) -> Decision:
        """With what the threshold of the version in service after it promises."""
        promise = "" if champion is None else versions.one_version(self.client, self.line, champion).guarantee
        return {**decision, "guarantee": promise}

    def _settled(self, judged: Standing | None = None) -> Found:
        found = changes.settled(self.client, self.line)
        if judged is not None:
            changes.check_unchanged(found, judged)
        return found

    def _free(self, found: Found, number: int) -> Version:
        """A version that nothing speaks against: it is not being removed, no twin of it was taken out of service."""
        version = versions.one_version(self.client, self.line, number)
        removal = found.trail.removal(number, version.created_at)
        if removal is not None:
            raise CheckFailedError(
                f"line {self.line}: version {number} is being removed for good: {removal.by} decided so at "
                f"{removal.at} ({' '.join(removal.reasons)}). When it is gone (morphad prune {self.line} "
                f"--apply --why ...), register the model anew: morphad register {self.line}"
            )
        reason = blocked(found.standing, version)
        if reason is not None:
            raise CheckFailedError(f"line {self.line}: {reason}")
        return version

    def _candidate(self, found: Found, meant: int | None) -> Version:
        if found.standing.candidate is None:
            raise CheckFailedError(
                f"line {self.line}: no version awaits approval; `morphad promote {self.line}` proposes one where "
                "the line's settings say promote.mode: four-eyes"
            )
        if meant not in {None, found.standing.candidate}:
            raise CheckFailedError(
                f"line {self.line}: version {found.standing.candidate} awaits approval, not version {meant}; review "
                f"that one: morphad history {self.line}"
            )
        return versions.one_version(self.client, self.line, found.standing.candidate)

    def _one_back(self, found: Found, possible: set[int]) -> int:
        standing = found.standing
        name = model_name(self.line)
        if standing.since is None:
            raise CheckFailedError(f"line {self.line}: nothing to roll back, no version of {name} is champion")
        if standing.since.action == "rolled back":
            raise CheckFailedError(
                f"line {self.line}: {standing.since.by} rolled back to version {standing.champion} at "
                f"{standing.since.at}; to go further, name the version: --to VERSION, one of "
                f"{changes.choices(list(possible))}"
            )
        if standing.previous is None:
            raise CheckFailedError(
                f"line {self.line}: no previous champion to go back to; {named(standing.champion)} stays champion. "
                f"Promote another version, or take this one out of service: morphad withdraw {self.line} --why ..."
            )
        return standing.previous


def blocked(standing: Standing, version: Version) -> str | None:
    """Why a version may not serve again: this very detector was taken out of service."""
    entry = standing.blocked.get(version.detector_hash) if version.detector_hash else None
    if entry is None:
        return None
    other = "" if entry.version == version.number else f", the same detector as version {version.number},"
    return (
        f"{entry.by} took version {entry.version}{other} out of service at {entry.at} ({' '.join(entry.reasons)}). "
        "Figures on the holdout do not undo that; train and register a new version, or put it back by name: "
        f"morphad rollback LINE --to {entry.version} --why ..."
    )


def named(number: int | None) -> str:
    """A version in a sentence."""
    return "no version" if number is None else f"version {number}"
