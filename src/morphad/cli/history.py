"""The verbs that read the registry: what serves, since when, and who decided what."""

import argparse
import re
from typing import TYPE_CHECKING, Any

from morphad.base.errors import BadInputError, CheckFailedError, MorphadError
from morphad.base.verbs import Verbs
from morphad.cli.shared import open_registry

if TYPE_CHECKING:
    from datetime import datetime

    from morphad.registry import Entry, Trail


_DAY = re.compile(r"\d{4}-?\d\d-?\d\d|\d{4}-?W\d\d-?\d")


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    history = verbs.add_for_line(
        "history", _history, "list every decision about a line, oldest first", "pv-mono --json"
    )
    history.add_argument("--json", action="store_true", help="as JSON")
    champion = verbs.add_for_line(
        "champion", _champion, "which version decides, since when, and what it guarantees", "pv-mono --at 2026-03-01"
    )
    champion.add_argument("--at", metavar="DATE", help="then: 2026-03-01 (all of that day) or 2026-03-01T14:05 (UTC)")
    status = verbs.add_for_project("status", _status, "all lines of the registry in one table", "")
    status.add_argument("--json", action="store_true", help="as JSON")


def _history(options: argparse.Namespace) -> None:
    from morphad.registry.sentences import printable, sentence

    registry = open_registry(options)
    trail = registry.trail(options.line)
    versions = registry.history(options.line)
    if options.json:
        there = [
            {"version": v.number, "created_at": v.created_at, "aliases": v.aliases, "tags": v.tags} for v in versions
        ]
        decisions = [entry.to_json() for entry in trail.entries]
        _print_json({"line": options.line, "decisions": decisions, "versions": there})
        return
    if not versions and not trail.entries:
        print(f"{options.line}: no versions at {registry.uri}; run `dvc repro`")
        return
    for entry in trail.entries:
        print(f"{entry.number:>4}  {printable(sentence(entry))}")
        for reason in entry.reasons:
            print(f"      {printable(reason)}")
    for version in versions:
        aliases, by = ", ".join(version.aliases) or "-", printable(str(version.trained_by))
        print(
            f"version {version.number}  registered {version.created_at} by {by}  {aliases}  "
            f"data {version.data_version or version.data_hash[:12]}"
        )


def _champion(options: argparse.Namespace) -> None:
    from morphad.registry.sentences import printable

    registry = open_registry(options)
    start, end = (None, None) if options.at is None else _span(options.at)
    if start is None:
        registry.champion(options.line)  # raises where records and aliases differ
    for sentence in _served(registry.trail(options.line), start, end):
        print(f"{options.line}: {printable(sentence)}")


def _served(trail: "Trail", start: "datetime | None", end: "datetime | None") -> list[str]:
    """What was in service from start to end, in sentences; None: now."""
    from morphad.registry.trail import CHANGES, moments

    times = moments(trail.entries)
    changes = [(at, entry) for at, entry in zip(times, trail.entries, strict=True) if entry.action in CHANGES]
    if start is None or end is None:
        relevant = changes[-1:]
    else:
        before = [change for change in changes if change[0] <= start]
        relevant = before[-1:] + [change for change in changes if start < change[0] < end]
    if not relevant:
        return ["no version was in service; nothing was decided about the line by then"]
    return [_in_service(entry) for _, entry in relevant]


def _in_service(entry: "Entry") -> str:
    if entry.champion is None:
        return f"no version in service from {entry.at}, by {entry.by}: {' '.join(entry.reasons)}"
    promise = f"; {entry.guarantee}" if entry.guarantee else ""
    done = f"{entry.action} by {entry.by} (decision {entry.number})"
    return f"version {entry.champion} in service from {entry.at}, {done}{promise}"


def _span(text: str) -> "tuple[datetime, datetime]":
    """Start and end of a day, or a moment twice."""
    from datetime import UTC, datetime, timedelta

    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return moment, moment + timedelta(days=1 if _DAY.fullmatch(text) else 0)
    except (ValueError, OverflowError) as error:
        raise BadInputError(
            f"--at {text!r}: expected a day such as 2026-03-01 or a time such as 2026-03-01T14:05"
        ) from error


def _status(options: argparse.Namespace) -> None:
    from morphad.registry import Registry
    from morphad.settings.reading import load_settings

    project = load_settings(options.params)
    registries = {registry.uri: registry for registry in (Registry(line.register_) for line in project.lines.values())}
    rows: list[dict[str, Any]] = []
    failures: list[MorphadError] = []
    for registry in registries.values():
        try:
            rows += [_row(line, found) for line, found in registry.overview().items()]
        except MorphadError as error:  # the others are shown all the same
            failures.append(error)
    if failures and len(failures) == len(registries):
        raise failures[0]
    rows += [
        {"line": line, "champion": None, "note": "not known" if failures else "not in the registry"}
        for line in project.lines
        if line not in {row["line"] for row in rows}
    ]
    rows.sort(key=lambda row: str(row["line"]))
    if options.json:
        _print_json(rows)
    else:
        _print_table(rows)
    if wrong := [str(row["line"]) for row in rows if row.get("differs")]:
        raise CheckFailedError(
            f"records and MLflow's aliases differ on {', '.join(wrong)}; see what can be done: "
            f"morphad registry repair {wrong[0]}"
        )
    if failures:
        raise failures[0]


def _row(line: str, found: Any) -> dict[str, Any]:
    since, head = found.standing.since, found.trail.head
    about = found.trail.of_version(found.standing.champion or 0)  # the entry `since` of a rollback is about another
    return {
        "line": line,
        "champion": found.standing.champion,
        "since": None if since is None else since.at,
        "guarantee": "" if since is None or found.standing.champion is None else since.guarantee,
        "decided": None
        if head is None
        else {"what": head.action, "version": head.version, "at": head.at, "by": str(head.by)},
        "candidate": found.standing.candidate,
        "data": about[-1].data_version or about[-1].data_hash[:12] if about else "",
        "differs": bool(found.wrong_aliases) and found.trail.unfinished is None,
        "note": "",
    }


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(rows: list[dict[str, Any]]) -> None:
    from morphad.registry.sentences import printable

    head = ("line", "champion", "since", "last decision", "waits", "data", "guarantee")
    cells = [head]
    for row in rows:
        decided = row.get("decided")
        cells.append(
            (
                str(row["line"]) + (" !" if row.get("differs") else ""),
                "-" if row["champion"] is None else str(row["champion"]),
                (row.get("since") or "-")[:16],
                row["note"]
                or ("-" if decided is None else f"{decided['what']} {decided['version'] or ''} {decided['at'][:16]}"),
                "-" if row.get("candidate") is None else str(row["candidate"]),
                row.get("data") or "-",
                row.get("guarantee") or "-",
            )
        )
    widths = [max(len(cell[column]) for cell in cells) for column in range(len(head) - 1)]
    for cell in cells:
        row_text = "  ".join([*(text.ljust(width) for text, width in zip(cell, widths, strict=False)), cell[-1]])
        print(printable(row_text.rstrip()))
