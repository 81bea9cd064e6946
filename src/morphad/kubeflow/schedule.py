"""`morphad schedule plan` and `apply`: the recurring runs in Kubeflow follow pipelines/schedules.yaml."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from morphad.base.errors import CheckFailedError
from morphad.base.verbs import Verbs
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.cluster import load_cluster
from morphad.kubeflow.compiling import TRAINING
from morphad.kubeflow.lines import check_size, line_items
from morphad.kubeflow.options import add_remote, add_sources, open_compiled, open_kubeflow
from morphad.kubeflow.project import project_file
from morphad.kubeflow.reach import check_lines
from morphad.kubeflow.reconcile import Change, Reconciler, Wanted, name_of, plan, under_way
from morphad.kubeflow.records import PipelineVersion, Trigger
from morphad.kubeflow.schedules import COMPILED_VERSION, ScheduleFile, load_schedules
from morphad.kubeflow.uploads import find_version, make_experiment
from morphad.settings import ProjectSettings
from morphad.settings.reading import load_settings

_SHOWN = 12  # differences of one schedule; after an upgrade of morphad there can be many

_SIGNS = {"keep": "=", "create": "+", "recreate": "~", "enable": ">", "disable": "|", "delete": "-"}


def add_verbs(verbs: Verbs) -> None:
    """Add `schedule plan` and `schedule apply`."""
    planning = add_remote(
        verbs, "plan", _plan, "show what apply would make, make anew and delete; change nothing", "--check"
    )
    planning.add_argument("--check", action="store_true", help="exit code 1 if apply would change anything")
    applying = add_remote(
        verbs,
        "apply",
        _apply,
        "show the plan, then make the recurring runs follow the schedules",
        "--host http://localhost:8888",
    )
    for parser in (planning, applying):
        add_sources(parser)
        parser.set_defaults(pipeline=TRAINING)
        parser.add_argument(
            "--schedules",
            type=Path,
            default=project_file("schedules.yaml"),
            metavar="FILE",
            help="which lines retrain when",
        )


@dataclass(frozen=True)
class Opened:
    """All that a plan is made from.

    Attributes:
        file: The schedules.
        project: The settings.
        items: Each line of the schedules with its settings, as runs take it.
        version: Of the pipeline.
        reconciler: The way to Kubeflow.
    """

    file: ScheduleFile
    project: ProjectSettings
    items: Mapping[str, dict[str, str]]
    version: PipelineVersion
    reconciler: Reconciler

    def wanted(self, *, make: bool = False) -> list[Wanted]:
        """The recurring runs that the schedules ask for; experiments that are not there are made, if `make`."""
        found = experiments(self.reconciler.kubeflow, self.file, make=make)
        return wanted_runs(self.file, self.project, self.items, self.version, found)


def _plan(options: argparse.Namespace) -> None:
    if _show_plan(_open(options)) and options.check:
        raise CheckFailedError("Kubeflow differs from the schedules; run `morphad schedule apply`")


def _apply(options: argparse.Namespace) -> None:
    opened = _open(options)
    _show_plan(opened)
    wanted = opened.wanted(make=True)
    opened.reconciler.apply(wanted, datetime.now(UTC))
    enabled = sum(run.enabled for run in wanted)
    print(f"{len(wanted)} recurring runs follow {options.schedules}, {enabled} of them enabled")


def _open(options: argparse.Namespace) -> Opened:
    """Schedules, settings, version and the way to Kubeflow; all that can be wrong here is found before a call."""
    project = load_settings(options.params)
    file = load_schedules(options.schedules, project)
    scheduled = {line: name_of(line, name) for name in file.schedules for line in file.lines_of(name, project)}
    check_lines(project, scheduled, load_cluster(options.cluster))
    items = {item["line"]: item for item in line_items(project, scheduled)}
    for line, item in items.items():
        remedy = f"make the settings of line {line} shorter, or split it into lines with schedules of their own"
        check_size(f"recurring run {scheduled[line]}", {"lines": [item]}, remedy)
    compiled = open_compiled(options)
    pinned = file.pipeline_version != COMPILED_VERSION
    kubeflow = open_kubeflow(options)
    version = find_version(kubeflow, TRAINING, file.pipeline_version if pinned else compiled.version)
    _say(f"{options.schedules} at {kubeflow.connection.host}, owner {file.owner}, pipeline version {version.name}")
    return Opened(file, project, items, version, Reconciler(kubeflow, file.owner, _say))


def _show_plan(opened: Opened) -> int:
    """Print what there is to do, and give how many changes that are."""
    kubeflow = opened.reconciler.kubeflow
    changes = plan(opened.wanted(), opened.reconciler.actual())
    waiting = {id(change): _waits_for(kubeflow, change) for change in changes}
    todo = sum(change.kind != "keep" and not waiting[id(change)] for change in changes)
    for change in changes:
        for line in told(change, opened.file, waiting[id(change)]):
            _say(line)
    _say(f"{todo} to change, {sum(change.kind == 'keep' for change in changes)} as they should be")
    return todo


def _say(text: str) -> None:
    print(text, flush=True)


def wanted_runs(
    file: ScheduleFile,
    project: ProjectSettings,
    items: Mapping[str, dict[str, str]],
    version: PipelineVersion,
    experiment_ids: Mapping[str, str],
) -> list[Wanted]:
    """The recurring runs that the schedules ask for: one for each line of each schedule.

    Args:
        file: The schedules.
        project: The settings.
        items: Each line with its settings, as runs take it; they are costly, and the same for each schedule.
        version: Of the pipeline.
        experiment_ids: The identifiers of the experiments.
    """
    return [
        Wanted(
            owner=file.owner,
            schedule=name,
            line=line,
            enabled=schedule.enabled,
            trigger=Trigger(
                cron=schedule.cron,
                start=schedule.start,
                end=schedule.end,
                max_concurrency=schedule.max_concurrency,
                catch_up=schedule.catch_up,
                experiment_id=experiment_ids[schedule.experiment],
                pipeline_id=version.pipeline_id,
                version_id=version.id,
                parameters={
                    "lines": [items[line]],
                    "seed": project.seed if schedule.seed is None else schedule.seed,
                    "reason": f"schedule {name}",
                },
            ),
        )
        for name, schedule in file.schedules.items()
        for line in file.lines_of(name, project)
    ]


def experiments(kubeflow: Kubeflow, file: ScheduleFile, make: bool = False) -> dict[str, str]:
    """The identifiers of the schedules' experiments; those that are not there are made, or have an empty one."""
    names = sorted({schedule.experiment for schedule in file.schedules.values()})
    return {name: make_experiment(kubeflow, name) if make else kubeflow.experiment_id(name) or "" for name in names}


def _waits_for(kubeflow: Kubeflow, change: Change) -> tuple[str, ...]:
    """The runs that keep disabled recurring runs from being deleted."""
    if change.kind != "delete" or any(old.run.enabled for old in change.old):
        return ()
    busy = [under_way(kubeflow, old) for old in change.old]
    return tuple(run for runs in busy for run in runs) if all(busy) else ()


def told(change: Change, file: ScheduleFile, waits_for: Sequence[str] = ()) -> list[str]:
    """A change in words, for people."""
    name = f"{name_of(change.line, change.schedule):<32}"
    if waits_for:
        return [f"  {name} disabled; apply deletes it once run {', '.join(waits_for)} has ended"]
    word = {"keep": "as it should be", "create": "make", "recreate": "make anew"}.get(change.kind, change.kind)
    lines = [f"{_SIGNS[change.kind]} {name} {word}{_next_start(file, change)}"]
    lines += [f"    {why}" for why in change.why[:_SHOWN]]
    if len(change.why) > _SHOWN:
        lines.append(f"    and {len(change.why) - _SHOWN} more differences")
    return lines


def _next_start(file: ScheduleFile, change: Change) -> str:
    if change.wanted is None or change.kind in {"delete", "disable"}:
        return ""
    if not change.wanted.enabled:
        return ", disabled"
    start = file.schedules[change.schedule].next_start(datetime.now(ZoneInfo(file.time_zone)))
    return ", no further start: its end is over" if start is None else f", next start {start:%a %Y-%m-%d %H:%M:%S %Z}"
