"""The verbs for what serves on a line: who decided what, and the decisions that people take."""

import argparse
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from morphad.base.errors import BadInputError, CheckFailedError
from morphad.base.verbs import Verbs
from morphad.cli.shared import actor, add_actor, open_line

if TYPE_CHECKING:
    from morphad.registry import Entry, Registry, Trail


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    rollback = verbs.add_for_line(
        "rollback",
        _rollback,
        "put an earlier champion back in service",
        'pv-mono --why "rejects good parts since Monday"',
    )
    rollback.add_argument("--to", type=int, metavar="VERSION", help="which; default: the one before")
    approve = verbs.add_for_line(
        "approve",
        _approve,
        "put the version in service that passed the gate and waits",
        'pv-mono --why "heatmaps reviewed"',
    )
    decline = verbs.add_for_line(
        "decline",
        _decline,
        "send the version away that passed the gate and waits",
        'pv-mono --why "trained on a wrong lot"',
    )
    withdraw = verbs.add_for_line(
        "withdraw",
        _withdraw,
        "take the champion out of service; the line has none then",
        'pv-mono --why "the product has changed"',
    )
    for parser in (rollback, approve, decline, withdraw):
        parser.add_argument("--why", required=True, help="the reason, for the record")
        add_actor(parser)
    prune = verbs.add_for_line(
        "prune",
        _prune,
        "remove old versions for good; what is needed or wanted stays",
        'pv-mono --newest 5 --apply --why "disk space"',
    )
    for name, about in (
        ("newest", "youngest versions that stay"),
        ("former", "former champions that stay, to roll back to"),
        ("days", "what was in service so many days ago or later stays"),
    ):
        default = {"newest": 3, "former": 3, "days": 30}[name]
        prune.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{about}; default: {default}")
    prune.add_argument("--apply", action="store_true", help="do it; without this the plan is shown")
    prune.add_argument("--why", help="the reason, for the record; needed with --apply")
    add_actor(prune)
    history = verbs.add_for_line(
        "history", _history, "tell every decision about a line, oldest first", "pv-mono --json"
    )
    history.add_argument("--json", action="store_true", help="as JSON")
    champion = verbs.add_for_line(
        "champion", _champion, "which version decides, since when, and what it guarantees", "pv-mono --at 2026-03-01"
    )
    champion.add_argument("--at", metavar="DATE", help="then: 2026-03-01 (all of that day) or 2026-03-01T14:05 (UTC)")
    status = verbs.add_for_project("status", _status, "all lines of the registry in one table", "")
    status.add_argument("--json", action="store_true", help="as JSON")
    registry = verbs.group(
        "registry", "the registry itself: prepare a line, repair what was changed behind its back", "repair pv-mono"
    )
    registry.add_for_line("prepare", _prepare, "make what a new line needs; by an approver, where accounts have roles")
    repair = registry.add_for_line(
        "repair",
        _repair,
        "settle what differs between records and aliases",
        'pv-mono --apply --why "alias set by hand"',
    )
    repair.add_argument("--apply", action="store_true", help="do it; without this the plan is shown")
    repair.add_argument("--accept", action="store_true", help="take the version that MLflow's alias names now")
    repair.add_argument("--to", type=int, metavar="VERSION", help="take this version, of those that served before")
    repair.add_argument("--why", help="the reason, for the record; needed with --apply")
    add_actor(repair)


def _open(options: argparse.Namespace) -> "Registry":
    from morphad.registry import Registry

    return Registry(open_line(options)[1].register_)


def _rollback(options: argparse.Namespace) -> None:
    version = _open(options).rollback(options.line, options.why, actor(options), options.to)
    print(f"{options.line}: version {version.number} is champion again")
    _follow(options)


def _approve(options: argparse.Namespace) -> None:
    version = _open(options).approve(options.line, options.why, actor(options))
    print(f"{options.line}: version {version.number} is champion")
    _follow(options)


def _decline(options: argparse.Namespace) -> None:
    number = _open(options).decline(options.line, options.why, actor(options))
    print(f"{options.line}: version {number} was declined")


def _withdraw(options: argparse.Namespace) -> None:
    number = _open(options).withdraw(options.line, options.why, actor(options))
    print(f"{options.line}: version {number} is out of service; no version of this line decides now")
    _follow(options)


def _prepare(options: argparse.Namespace) -> None:
    _open(options).prepare(options.line)
    print(f"{options.line}: ready for versions and decisions")


def _repair(options: argparse.Namespace) -> None:
    registry = _open(options)
    plan = registry.plan_repair(options.line, accept=options.accept, to=options.to)
    if not plan.differences:
        print(f"{options.line}: records and MLflow's aliases agree; nothing is to be done")
        return
    for sentence in plan.differences:
        print(f"{options.line}: {sentence}")
    for sentence in plan.steps:
        print(f"  plan: {sentence}")
    if not options.apply:
        print(
            f"Nothing was changed. Do it: morphad registry repair {options.line} --apply --why ...; other ways: "
            "--to VERSION, --accept"
        )
        return
    if not options.why:
        raise BadInputError("--apply needs --why: a repair is a decision on record")
    registry.repair(options.line, options.why, actor(options), accept=options.accept, to=options.to)
    print(f"{options.line}: done, and on record")
    _follow(options)


def _prune(options: argparse.Namespace) -> None:
    from morphad.registry import Retention
    from morphad.registry.wording import listed

    if min(options.newest, options.former, options.days) < 0:
        raise BadInputError("--newest, --former and --days: expected 0 or more")
    if options.apply and not options.why:
        raise BadInputError("--apply needs --why: what is removed for good is a decision on record")
    registry, retention = _open(options), Retention(options.newest, options.former, options.days)
    if options.apply:
        plan = registry.prune(options.line, retention, options.why, actor(options))
    else:
        plan = registry.plan_prune(options.line, retention)
    for number, why in plan.kept.items():
        print(f"{options.line}: version {number} stays: it {why}")
    if not plan.removed:
        print(f"{options.line}: no version is to go")
        return
    gone = listed(plan.removed)
    if options.apply:
        print(
            f"{options.line}: {gone} removed; decisions, reports and data stay on record. The files go when MLflow's "
            "administrator runs `mlflow gc`"
        )
    else:
        print(f"{options.line}: {gone} would go. Do it: morphad prune {options.line} --apply --why ...")


def _follow(options: argparse.Namespace) -> None:
    """Bring the data that new images are compared with in line with the champion."""
    from morphad.steps.reference import follow_champion

    _, settings, paths = open_line(options)
    if warning := follow_champion(settings, paths):
        print(f"{options.line}: warning: {warning}")


def _history(options: argparse.Namespace) -> None:
    from morphad.registry.wording import sentence

    registry = _open(options)
    trail = registry.trail(options.line)
    versions = registry.history(options.line)
    if options.json:
        there = [
            {"version": v.number, "created_at": v.created_at, "aliases": v.aliases, "tags": v.tags} for v in versions
        ]
        decisions = [entry.to_json() for entry in trail.entries]
        print(
            json.dumps({"line": options.line, "decisions": decisions, "versions": there}, indent=2, ensure_ascii=False)
        )
        return
    if not versions and not trail.entries:
        print(f"{options.line}: no versions at {registry.uri}; run `dvc repro`")
        return
    for entry in trail.entries:
        print(f"{entry.number:>4}  {sentence(entry)}")
        for reason in entry.reasons:
            print(f"      {reason}")
    for version in versions:
        aliases = ", ".join(version.aliases) or "-"
        print(
            f"version {version.number}  registered {version.created_at} by {version.trained_by}  {aliases}  "
            f"data {version.data_version or version.data_hash[:12]}"
        )


def _champion(options: argparse.Namespace) -> None:
    registry = _open(options)
    start, end = (None, None) if options.at is None else _span(options.at)
    if start is None:
        registry.champion(options.line)  # raises where records and aliases differ
    for sentence in _served(registry.trail(options.line), start, end):
        print(f"{options.line}: {sentence}")


def _served(trail: "Trail", start: datetime | None, end: datetime | None) -> list[str]:
    """What was in service from start to end, in sentences; None: now."""
    from morphad.registry.trail import CHANGES

    changes = [entry for entry in trail.entries if entry.action in CHANGES]
    if start is None or end is None:
        relevant = changes[-1:]
    else:
        before = [entry for entry in changes if _time(entry.at) <= start]
        relevant = before[-1:] + [entry for entry in changes if start < _time(entry.at) < end]
    if not relevant:
        return ["no version was in service; nothing was decided about the line by then"]
    return [_in_service(entry) for entry in relevant]


def _in_service(entry: "Entry") -> str:
    if entry.champion is None:
        return f"no version in service from {entry.at}, by {entry.by}: {' '.join(entry.reasons)}"
    promise = f"; {entry.guarantee}" if entry.guarantee else ""
    done = f"{entry.action} by {entry.by} (decision {entry.number})"
    return f"version {entry.champion} in service from {entry.at}, {done}{promise}"


def _span(text: str) -> tuple[datetime, datetime]:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInputError(
            f"--at {text!r}: expected a day such as 2026-03-01 or a time such as 2026-03-01T14:05"
        ) from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment, moment + (timedelta(days=1) if len(text) == len("2026-03-01") else timedelta())


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _status(options: argparse.Namespace) -> None:
    from morphad.registry import Registry
    from morphad.settings.reading import load_settings

    project = load_settings(options.params)
    rows: list[dict[str, Any]] = []
    for settings in {line.register_.tracking_uri: line.register_ for line in project.lines.values()}.values():
        rows += [_row(line, found) for line, found in Registry(settings).overview().items()]
    rows += [
        {"line": line, "champion": None, "note": "not in the registry"}
        for line in project.lines
        if line not in {row["line"] for row in rows}
    ]
    rows.sort(key=lambda row: str(row["line"]))
    if options.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _print_table(rows)
    if wrong := [str(row["line"]) for row in rows if row.get("differs")]:
        raise CheckFailedError(
            f"records and MLflow's aliases differ on {', '.join(wrong)}; see what can be done: "
            f"morphad registry repair {wrong[0]}"
        )


def _row(line: str, found: Any) -> dict[str, Any]:
    since, head = found.standing.since, found.trail.head
    return {
        "line": line,
        "champion": found.standing.champion,
        "since": None if since is None else since.at,
        "guarantee": "" if since is None or found.standing.champion is None else since.guarantee,
        "decided": None
        if head is None
        else {"what": head.action, "version": head.version, "at": head.at, "by": str(head.by)},
        "candidate": found.standing.candidate,
        "data": "" if since is None else since.data_version or since.data_hash[:12],
        "differs": bool(found.wrong_aliases) and found.trail.unfinished is None,
        "note": "",
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
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
        print("  ".join([*(text.ljust(width) for text, width in zip(cell, widths, strict=False)), cell[-1]]).rstrip())
