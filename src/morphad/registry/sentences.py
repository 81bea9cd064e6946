"""Decisions in words: one by one, and what they say about a version."""

from collections.abc import Sequence

from morphad.registry.standing import standing
from morphad.registry.trail import CHANGES, Entry


def sentence(entry: Entry) -> str:
    """One decision as a whole sentence."""
    before = "" if entry.replaced is None else f" Before it version {entry.replaced} was in service."
    done = {
        "adopted": f"put on record that {_serving(entry.champion)} is in service.{before}",
        "promoted": f"promoted version {entry.version}; it is in service.{before}",
        "refused": f"refused version {entry.version}; {_serving(entry.champion)} stays in service.",
        "proposed": f"found version {entry.version} fit; it awaits approval, {_serving(entry.champion)} is in service.",
        "approved": f"approved version {entry.version}; it is in service.{before}",
        "declined": f"declined version {entry.version}; {_serving(entry.champion)} stays in service.",
        "rolled back": f"put version {entry.champion} back in service in place of {_serving(entry.replaced)}.",
        "taken out of service": f"took version {entry.version} out of service; no version decides.",
        "repaired": f"repaired the records; {_serving(entry.champion)} is in service.",
        "pruned": f"removed {listed(entry.gone)} for good; {_serving(entry.champion)} stays in service.",
    }[entry.action]
    return f"{entry.at}: {entry.by} {done}"


def concerns(entry: Entry, number: int) -> bool:
    """Whether a decision is about a version, or put it in service or out of it."""
    changed = entry.action in CHANGES and entry.champion != entry.replaced
    return entry.version == number or number in entry.gone or (changed and number in (entry.champion, entry.replaced))


def state(number: int, entries: Sequence[Entry]) -> list[str]:
    """Where a version stands after these decisions: the state first, then when it was in service."""
    about = [entry for entry in entries if concerns(entry, number)]
    if not about:
        return [f"No decision about version {number} is on record."]
    now, times = standing(entries), _times(number, entries)
    said = [f"Version {number} {_where(number, about, now.champion, now.candidate)}"]
    said += [
        f"It was in service from {start} until {end}." if end else f"It is in service since {start}."
        for start, end in times
    ]
    if any(number in entry.gone for entry in about):
        said.append("It was removed from MLflow.")
    detector = next((entry.detector for entry in about if entry.version == number), "")
    blocking = now.blocked.get(detector) if detector else None
    if blocking is not None and blocking.version != number:
        said.append(f"The same detector, as version {blocking.version}, was taken out of service at {blocking.at}.")
    return said


def printable(text: str) -> str:
    """Text from elsewhere for a terminal or a text file: nothing in it steers either."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _where(number: int, about: Sequence[Entry], champion: int | None, candidate: int | None) -> str:
    last = about[-1]
    if champion == number:
        return "is in service."
    if candidate == number:
        return "passed the gate and awaits approval; it is not in service."
    ended = next((entry for entry in reversed(about) if entry.action in CHANGES and entry.replaced == number), None)
    if ended is not None:
        how = {
            "rolled back": f"was ROLLED BACK: {ended.by} put version {ended.champion} back in its place",
            "taken out of service": f"was TAKEN OUT OF SERVICE by {ended.by}",
        }.get(ended.action, f"was replaced by {_serving(ended.champion)} ({ended.action} by {ended.by})")
        why = f": {' '.join(ended.reasons)}" if ended.action in {"rolled back", "taken out of service"} else ""
        return f"is no longer in service. At {ended.at} it {how}{why}"
    return f"is not in service. The last decision about it: {last.action} at {last.at} by {last.by}."


def _times(number: int, entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """From when until when a version was in service; "" for now."""
    times: list[tuple[str, str]] = []
    for entry in entries:
        if entry.action not in CHANGES:
            continue
        serving = bool(times) and not times[-1][1]
        if entry.champion == number and not serving:
            times.append((entry.at, ""))
        elif entry.champion != number and serving:
            times[-1] = (times[-1][0], entry.at)
    return times


def _serving(number: int | None) -> str:
    return "no version" if number is None else f"version {number}"


def listed(numbers: tuple[int, ...]) -> str:
    """Version numbers for a sentence: "versions 1, 4"."""
    return f"version{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
