"""`morphad pipeline again`: lines whose run was interrupted are submitted anew, a bounded number of times a day.

What was done is on record in Kubeflow alone: a run that was begun so says "again after RUN" as its reason.
"""

import argparse
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from morphad.base.errors import BadInputError, CheckFailedError, ServiceError
from morphad.base.verbs import Verbs
from morphad.base.wording import counted
from morphad.kubeflow.artifacts import open_store
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.compiling import NAMES, TRAINING
from morphad.kubeflow.finding import busy_with, duration, runs_of
from morphad.kubeflow.inspecting import add_artifacts
from morphad.kubeflow.options import add_remote, open_kubeflow
from morphad.kubeflow.outcomes import Ending, Outcomes
from morphad.kubeflow.records import PipelineVersion, Run

_REASON = re.compile(r"^again after (?P<run>\S+)(?: \((?P<first>.*)\))?$", re.DOTALL)
_DAY = timedelta(hours=24)
_SETTLE_SECONDS = 2.0  # in which another that does the same at this moment shows


@dataclass(frozen=True)
class Finding:
    """What is to become of a line.

    Attributes:
        line: The line.
        run: Its newest run.
        ending: How that ended.
        before: How often it was begun again within a day.
        submit: Whether it is submitted anew.
    """

    line: str
    run: Run
    ending: Ending
    before: int
    submit: bool


def add_verbs(verbs: Verbs) -> None:
    """Add `pipeline again`."""
    parser = add_remote(
        verbs,
        "again",
        _again,
        "submit lines anew whose run was interrupted: by a node, memory, or a service that was away",
        "--since 24h",
    )
    parser.add_argument(
        "--since", default="24h", metavar="TIME", help="only runs that began within it: 90m, 24h, 2d (default: 24h)"
    )
    parser.add_argument(
        "--at-most", type=int, default=2, metavar="N", help="so often a line within 24 hours (default: 2)"
    )
    parser.add_argument("--plan", action="store_true", help="say what would be submitted, and submit nothing")
    add_artifacts(parser)


def _again(options: argparse.Namespace) -> None:
    since = duration("--since", options.since)
    if options.at_most < 0:
        raise BadInputError(f"--at-most {options.at_most}: expected a number from 0")
    kubeflow = open_kubeflow(options)
    pipeline_id = kubeflow.pipeline_id(NAMES[TRAINING])
    outcomes = Outcomes(kubeflow, open_store(options.artifacts, kubeflow.connection.namespace))
    now = datetime.now(UTC)
    runs = runs_of(kubeflow, {pipeline_id} if pipeline_id else set())
    recent = takewhile(lambda run: run.created >= now - max(since, _DAY), runs)
    failed = {
        line: of_line
        for line, of_line in _by_line(recent).items()
        if of_line[0].created >= now - since and of_line[0].state == "FAILED" and of_line[0].stopped is None
    }
    findings = list(_findings(kubeflow, outcomes, failed, now - _DAY, options.at_most))
    for finding in findings:
        print(f"{finding.line}: {_said(finding, options.at_most, plan=options.plan)}", flush=True)
        if finding.submit and not options.plan:
            print(f"{finding.line}: {_submit(kubeflow, finding, now)}", flush=True)
    if not findings:
        print(f"no line's last run within {options.since} failed")
    left = [each.line for each in findings if each.ending.state == "interrupted" and not each.submit]
    if left:
        raise CheckFailedError(
            f"{', '.join(left)}: interrupted again and again; see `morphad pipeline status RUN` and what it ran on, "
            "then `morphad pipeline submit`"
        )


def _by_line(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each line, in the order that they come."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        for line in run.lines:
            found.setdefault(line, []).append(run)
    return found


def _findings(
    kubeflow: Kubeflow, outcomes: Outcomes, failed: dict[str, list[Run]], day: datetime, at_most: int
) -> Iterable[Finding]:
    """What is to become of lines.

    Args:
        kubeflow: Where.
        outcomes: Of runs.
        failed: The runs of each line whose newest run failed, the newest first.
        day: When the day began in which a line is submitted a bounded number of times.
        at_most: That number.
    """
    endings: dict[str, list[Ending]] = {}
    for line, runs in failed.items():
        newest = runs[0]
        if newest.id not in endings:
            endings[newest.id] = outcomes.of(kubeflow.run(newest.id), TRAINING)
        for ending in endings[newest.id]:
            if ending.line == line and ending.state != "done":
                before = sum(_is_again(run) and run.created >= day for run in runs)
                submit = ending.state == "interrupted" and before < at_most and bool(newest.version_id)
                yield Finding(line, newest, ending, before, submit)


def _is_again(run: Run) -> bool:
    return _REASON.match(str(run.parameters.get("reason"))) is not None


def _said(finding: Finding, at_most: int, *, plan: bool) -> str:
    ended = f"run {finding.run.id} {finding.ending.state}: {finding.ending.how}"
    if finding.submit:
        return f"{ended}; {'would be submitted' if plan else 'submitted'} again ({finding.before + 1} of {at_most})"
    if finding.ending.state != "interrupted":
        return f"{ended}; not again"
    if not finding.run.version_id:
        return f"{ended}; it has no uploaded version; not again"
    return f"{ended}; was submitted again {counted(finding.before, 'time')} within 24 hours; not again"


def _submit(kubeflow: Kubeflow, finding: Finding, now: datetime) -> str:
    """Begin a line's run again with the settings that it had; give what was done in words."""
    run, line = finding.run, finding.line
    given = str(run.parameters.get("reason") or "")
    first = match["first"] or "" if (match := _REASON.match(given)) else given
    reason = f"again after {run.id}{f' ({first})' if first else ''}"
    items = [item for item in run.parameters["lines"] if item.get("line") == line]
    version = PipelineVersion(run.pipeline_id, run.version_id, "")
    parameters = {**run.parameters, "lines": items, "reason": reason}
    try:
        made = kubeflow.create_run(f"{line} {now:%Y-%m-%d %H:%M:%S}", run.experiment_id, version, parameters)
    except ServiceError as error:
        raise ServiceError(f"{line}: {error}; what is above was submitted; run it again to go on") from error
    time.sleep(_SETTLE_SECONDS)
    twins = [each for each in busy_with(kubeflow, run.pipeline_id, {line}) if each.parameters.get("reason") == reason]
    oldest = min(twins, key=lambda each: (each.created, each.id), default=None)
    if oldest is not None and oldest.id != made:
        kubeflow.end_run(made)
        return f"run {oldest.id}, which another command submitted at the same time; run {made} is ended"
    return f"run {made}"
