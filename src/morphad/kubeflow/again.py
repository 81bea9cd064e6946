"""`morphad pipeline again`: what was interrupted is submitted anew, a bounded number of times a day.

That is the training of a line, or the prediction of a batch of images.

What was done is on record in Kubeflow alone: a run that was begun so says "again after RUN" as its reason.
"""

import argparse
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from morphad.base.errors import BadInputError, CheckFailedError, ServiceError
from morphad.base.verbs import Verbs
from morphad.base.wording import counted
from morphad.kubeflow.artifacts import open_store
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.compiling import BATCH
from morphad.kubeflow.finding import busy_with, duration, pipelines_there, runs_of
from morphad.kubeflow.inspecting import add_artifacts
from morphad.kubeflow.options import add_remote, open_kubeflow
from morphad.kubeflow.outcomes import Ending, Outcomes
from morphad.kubeflow.records import PipelineVersion, Run

_REASON = re.compile(r"^again after (?P<run>\S+)(?: \((?P<first>.*)\))?$", re.DOTALL)
_DAY = timedelta(hours=24)
_SETTLE_SECONDS = 2.0  # in which another that does the same at this moment shows


@dataclass(frozen=True)
class Work:
    """What a run does for a line; the newest run that did the same shows how that stands.

    Attributes:
        pipeline: By which pipeline.
        line: The line.
        images: The batch; "": a training.
        root: Where a batch's paths begin.
    """

    pipeline: str
    line: str
    images: str = ""
    root: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.line}, batch {self.images}" if self.images else self.line


@dataclass(frozen=True)
class Finding:
    """What is to become of some work.

    Attributes:
        work: The work.
        run: Its newest run.
        ending: How that ended.
        before: How often it was begun again within a day.
        submit: Whether it is submitted anew.
    """

    work: Work
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
        "submit anew what was interrupted by a node, memory, or a service that was away: lines and batch predictions",
        "--since 24h",
    )
    parser.add_argument(
        "--since", default="24h", metavar="TIME", help="only runs that began within it: 90m, 24h, 2d (default: 24h)"
    )
    parser.add_argument(
        "--at-most", type=int, default=2, metavar="N", help="so often a line, or a batch, within 24 hours (default: 2)"
    )
    parser.add_argument("--plan", action="store_true", help="say what would be submitted, and submit nothing")
    add_artifacts(parser)


def _again(options: argparse.Namespace) -> None:
    since = duration("--since", options.since)
    if options.at_most < 0:
        raise BadInputError(f"--at-most {options.at_most}: expected a number from 0")
    kubeflow = open_kubeflow(options)
    pipelines = pipelines_there(kubeflow)
    outcomes = Outcomes(kubeflow, open_store(options.artifacts, kubeflow.connection.namespace))
    now = datetime.now(UTC)
    recent = takewhile(lambda run: run.created >= now - max(since, _DAY), runs_of(kubeflow, pipelines))
    failed = {
        work: runs
        for work, runs in _by_work(recent, pipelines).items()
        if runs[0].created >= now - since and runs[0].state == "FAILED" and runs[0].stopped is None
    }
    findings = list(_findings(kubeflow, outcomes, failed, now - _DAY, options.at_most))
    for finding in findings:
        print(f"{finding.work.name}: {_said(finding, options.at_most, plan=options.plan)}", flush=True)
        if finding.submit and not options.plan:
            print(f"{finding.work.name}: {_submit(kubeflow, finding, now)}", flush=True)
    if not findings:
        print(f"no last run of a line or batch within {options.since} failed")
    left = [each.work.name for each in findings if each.ending.state == "interrupted" and not each.submit]
    if left:
        raise CheckFailedError(
            f"{'; '.join(left)}: interrupted again and again; see `morphad pipeline status RUN` and what it ran on, "
            "then submit it by hand"
        )


def _by_work(runs: Iterable[Run], pipelines: Mapping[str, str]) -> dict[Work, list[Run]]:
    """The runs that do the same work, in the order that they come."""
    found: dict[Work, list[Run]] = {}
    for run in runs:
        for work in _works(run, pipelines[run.pipeline_id]):
            found.setdefault(work, []).append(run)
    return found


def _works(run: Run, pipeline: str) -> list[Work]:
    if pipeline == BATCH:
        return [Work(pipeline, *(str(run.parameters.get(key) or "") for key in ("line", "images", "root")))]
    return [Work(pipeline, line) for line in run.lines]


def _findings(
    kubeflow: Kubeflow, outcomes: Outcomes, failed: Mapping[Work, list[Run]], day: datetime, at_most: int
) -> Iterator[Finding]:
    """What is to become of work.

    Args:
        kubeflow: Where.
        outcomes: Of runs.
        failed: The runs of each work whose newest run failed, the newest first.
        day: When the day began in which it is submitted a bounded number of times.
        at_most: That number.
    """
    endings: dict[str, list[Ending]] = {}
    for work, runs in failed.items():
        newest = runs[0]
        if newest.id not in endings:
            endings[newest.id] = outcomes.of(kubeflow.run(newest.id), work.pipeline)
        for ending in endings[newest.id]:
            if ending.line == work.line and ending.state != "done":
                before = sum(_is_again(run) and run.created >= day for run in runs)
                submit = ending.state == "interrupted" and before < at_most and bool(newest.version_id)
                yield Finding(work, newest, ending, before, submit)


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
    """Begin work again with the settings that it had; give what was done in words."""
    run, work = finding.run, finding.work
    asked = time.time()
    if work.pipeline != BATCH and (busy := next(busy_with(kubeflow, run.pipeline_id, {work.line}), None)):
        return f"run {busy.id} is under way; not again"
    given = str(run.parameters.get("reason") or "")
    first = match["first"] or "" if (match := _REASON.match(given)) else given
    reason = f"again after {run.id}{f' ({first})' if first else ''}"
    parameters = {**run.parameters, "reason": reason}
    if work.pipeline != BATCH:
        items = [item for item in run.parameters["lines"] if item.get("line") == work.line]
        parameters |= {"lines": items, "free_at": asked}
    version = PipelineVersion(run.pipeline_id, run.version_id, "")
    try:
        made = kubeflow.create_run(f"{work.line} {now:%Y-%m-%d %H:%M:%S}", run.experiment_id, version, parameters)
    except ServiceError as error:
        raise ServiceError(f"{work.name}: {error}; what is above was submitted; run it again to go on") from error
    time.sleep(_SETTLE_SECONDS)
    alike = busy_with(kubeflow, run.pipeline_id, {work.line})
    twins = [each for each in alike if each.parameters.get("reason") == reason]
    oldest = min(twins, key=lambda each: (each.created, each.id), default=None)
    if oldest is not None and oldest.id != made:
        kubeflow.end_run(made)
        return f"run {oldest.id}, which another command submitted at the same time; run {made} is ended"
    return f"run {made}"
