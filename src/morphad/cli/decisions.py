"""The verbs by which people decide what serves on a line, what stays in its registry, and set the registry right."""

import argparse

from morphad.base.errors import BadInputError
from morphad.base.verbs import Verbs
from morphad.cli.shared import actor, add_actor, add_why, open_line, open_registry


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
    for parser in (approve, decline):
        parser.add_argument(
            "--version", type=int, metavar="VERSION", help="the one that was reviewed; refused where another one waits"
        )
    for parser in (rollback, approve, decline, withdraw):
        add_why(parser, required=True)
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
    add_why(prune, "; needed with --apply")
    add_actor(prune)
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
    repair.add_argument("--accept", action="store_true", help="accept the version that MLflow's alias names now")
    repair.add_argument("--to", type=int, metavar="VERSION", help="choose this version, of those that served before")
    add_why(repair, "; needed with --apply")
    add_actor(repair)


def _rollback(options: argparse.Namespace) -> None:
    version = open_registry(options).rollback(options.line, options.why, actor(options), options.to)
    print(f"{options.line}: version {version.number} is champion again")
    _follow(options)


def _approve(options: argparse.Namespace) -> None:
    version = open_registry(options).approve(options.line, options.why, actor(options), options.version)
    print(f"{options.line}: version {version.number} is champion")
    _follow(options)


def _decline(options: argparse.Namespace) -> None:
    number = open_registry(options).decline(options.line, options.why, actor(options), options.version)
    print(f"{options.line}: version {number} was declined")


def _withdraw(options: argparse.Namespace) -> None:
    number = open_registry(options).withdraw(options.line, options.why, actor(options))
    print(f"{options.line}: version {number} is out of service; no version of this line decides now")
    _follow(options)


def _prepare(options: argparse.Namespace) -> None:
    open_registry(options).prepare(options.line)
    print(f"{options.line}: ready for versions and decisions")


def _repair(options: argparse.Namespace) -> None:
    registry = open_registry(options)
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
    from morphad.registry.sentences import listed

    if min(options.newest, options.former, options.days) < 0:
        raise BadInputError("--newest, --former and --days: expected 0 or more")
    if options.apply and not options.why:
        raise BadInputError("--apply needs --why: what is removed for good is a decision on record")
    registry, retention = open_registry(options), Retention(options.newest, options.former, options.days)
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
