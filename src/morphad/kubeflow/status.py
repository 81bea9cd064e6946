"""Runs in Kubeflow in words: which lines, which steps, how each ended, and where to look further."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from morphad.kubeflow.client import Run
from morphad.kubeflow.cluster import BATCH_STEPS, STEPS, Step
from morphad.kubeflow.compiling import BATCH, TRAINING

_STEPS: dict[str, tuple[Step, ...]] = {TRAINING: STEPS, BATCH: BATCH_STEPS}

_WORDS = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "SKIPPED": "left out",
    "FAILED": "FAILED",
    "CANCELING": "being ended",
    "CANCELED": "ended by hand",
    "PAUSED": "paused",
}


def listed(runs: Iterable[Run], pipelines: Mapping[str, str], now: datetime) -> list[str]:
    """A table of runs, one in a row.

    Args:
        runs: The runs.
        pipelines: Which pipeline each identifier in Kubeflow is.
        now: For the time that runs under way took.
    """
    rows = [("run", "pipeline", "began (UTC)", "state", "took", "by", "lines")]
    rows += [
        (
            run.id,
            pipelines[run.pipeline_id],
            f"{run.created:%Y-%m-%d %H:%M:%S}",
            _word(run.state),
            _span(run.created, run.ended or now),
            "schedule" if run.recurring_run_id else "hand",
            ", ".join(lines_of(run)) or "all lines",
        )
        for run in runs
    ]
    return _table(rows) if len(rows) > 1 else ["no runs yet; start them with `morphad pipeline submit`"]


def told(run: Run, pipeline: str, now: datetime, namespace: str | None) -> list[str]:
    """A run of a pipeline step by step.

    Kubeflow's API tells of tasks neither the line nor why one failed: with several lines in a run their steps are
    counted, and the way to the logs is shown.
    """
    who = f"schedule {run.recurring_run_id}" if run.recurring_run_id else "hand"
    took = _span(run.created, run.ended or now)
    lines = [
        f"{run.name}: {_word(run.state)}",
        f"  run {run.id}, began {run.created:%Y-%m-%d %H:%M:%S} UTC by {who}, took {took}",
        f"  lines: {', '.join(lines_of(run)) or 'all of the compiled pipeline'}",
    ]
    if run.error:
        lines.append(f"  Kubeflow says: {run.error}")
    names = [step.replace("_", "-") for step in _STEPS[pipeline]]  # as Kubeflow has them
    lines += ["", *_table([("step", "state", "took"), *(_step(run, name, now) for name in names)])]
    pods = f"kubectl -n {namespace or 'kubeflow'} {{}} -l pipeline/runid={run.id}"
    if any(task.name.startswith("executor") and task.state == "PENDING" for task in run.tasks):
        lines += ["", f"A pod waits for a node, an image, a volume or a secret: {pods.format('describe pods')}"]
    if run.state == "FAILED":
        logs = pods.format("logs") + " --all-containers --prefix --tail=30"
        table = "the summary of step notify in Kubeflow's pages tells it for each line; or: "
        lines += ["", f"Why: {table if pipeline == TRAINING else ''}{logs}"]
    return lines


def lines_of(run: Run) -> list[str]:
    """The lines of a run; none: it was started with the pipeline's own."""
    if "line" in run.parameters:  # a batch prediction's
        return [str(run.parameters["line"])]
    items = run.parameters.get("lines") or []
    return [str(item.get("line")) for item in items if isinstance(item, dict)]


def _step(run: Run, step: str, now: datetime) -> tuple[str, str, str]:
    tasks = [task for task in run.tasks if task.name == step]
    if not tasks:
        drivers = [task.state for task in run.tasks if task.name == f"{step}-driver"]
        if "FAILED" in drivers:
            return step, "FAILED before it began (its driver)", ""
        return step, "beginning" if drivers else ("not run" if run.ended else "to come"), ""
    counts = Counter(_word(task.state) for task in tasks)
    state = ", ".join(f"{n} {word}" for word, n in sorted(counts.items())) if len(tasks) > 1 else next(iter(counts))
    began = [task.started for task in tasks if task.started is not None]
    ended = [task.ended or run.ended or now for task in tasks]
    return step, state, _span(min(began), max(ended)) if began else ""


def _word(state: str) -> str:
    return _WORDS.get(state, state.lower())


def _span(begin: datetime, end: datetime) -> str:
    seconds = max(0, round((end - begin).total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours = seconds // 60 % 60, seconds // 3600
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds % 60:02} s"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
