"""What follows from the audit trail of a line: which version serves, which served before, and which may not again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from morphad.registry.trail import CHANGES, Entry

# After these the champion before is one to go back to; after the others it is gone or was found wanting.
_FOLLOWED = frozenset({"adopted", "promoted", "approved", "repaired"})
_ENDING = CHANGES | {"declined"}  # no candidate waits after these


@dataclass(frozen=True)
class Standing:
    """A line as its audit trail has it.

    Attributes:
        champion: The version in service; None for none.
        since: The entry that put it in service, or took the last one out; None before the first.
        former: Champions that were replaced by better ones, oldest first: what a rollback goes back to.
        candidate: The version that passed the gate and awaits approval.
        proposal: The entry that proposed it.
        blocked: Hashes of detectors that were taken out of service, with the entry that did so.
        served: Every version that was ever in service and that MLflow still has.
    """

    champion: int | None = None
    since: Entry | None = None
    former: tuple[int, ...] = ()
    candidate: int | None = None
    proposal: Entry | None = None
    blocked: Mapping[str, Entry] = field(default_factory=dict)
    served: frozenset[int] = frozenset()

    @property
    def previous(self) -> int | None:
        """The version that a rollback goes back to."""
        return self.former[-1] if self.former else None

    @property
    def aliases(self) -> dict[str, int]:
        """The aliases that follow from it."""
        named = {"champion": self.champion, "previous": self.previous, "candidate": self.candidate}
        return {alias: version for alias, version in named.items() if version is not None}


def standing(entries: Iterable[Entry]) -> Standing:
    """Where a line stands after its decisions, in their order. Clocks play no part in it."""
    champion: int | None = None
    since: Entry | None = None
    former: list[int] = []
    proposal: Entry | None = None
    blocked: dict[str, Entry] = {}
    served: dict[int, str] = {}
    for entry in entries:
        if entry.action == "proposed":
            proposal = entry
        elif entry.action in _ENDING or _refuses(entry, proposal):
            proposal = None
        former = [number for number in former if number not in entry.gone]
        for number in entry.gone:
            served.pop(number, None)
        if entry.action not in CHANGES:
            continue
        if entry.action in {"rolled back", "taken out of service"} and entry.detector:
            blocked[entry.detector] = entry
        if (
            entry.action == "adopted" and entry.replaced is not None
        ):  # what served before that, before there was a trail
            champion = entry.replaced
            served[champion] = ""
        if entry.champion in former:
            del former[former.index(entry.champion) :]  # back to it, and to what was before it
        elif champion is not None and champion in served and champion != entry.champion and entry.action in _FOLLOWED:
            former.append(champion)
        champion, since = entry.champion, entry
        if champion is not None:
            served.setdefault(champion, entry.detector if entry.version == champion else "")
            blocked.pop(served[champion], None)
    return Standing(
        champion,
        since,
        tuple(former),
        None if proposal is None else proposal.version,
        proposal,
        blocked,
        frozenset(served),
    )


def _refuses(entry: Entry, proposal: Entry | None) -> bool:
    return entry.action == "refused" and proposal is not None and proposal.version == entry.version
