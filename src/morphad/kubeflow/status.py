"""Runs in Kubeflow in words: which lines, which steps, how each ended and why, and where to look further."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from morphad.kubeflow.outcomes import Ending, step_names
from morphad.kubeflow.records import Run, Task

_WORDS = {
    "": "not run",
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "SKIPPED": "left out",
    "FAILED": "FAILED",
    "CANCELING": "being ended",
    "CANCELED": "ended by hand",
    "PAUSED": "paused",
}

# A pod that waits for less has nothing to say: each does in its first seconds.
_PATIENCE = timedelta(minutes=1)
# So long no end takes. What is still being ended then has no workflow, and Kubeflow will show it so for ever.
_LONGEST_END = timedelta(minutes=10)

_WIDE = 140  # characters of a reason in a list


def listed(
    runs: Iterable[Run],
    pipelines: Mapping[str, str],
    now: datetime,
    endings: Callable[[Run, str], Sequence[Ending]],
) -> list[str]:
    """A table of runs, one in a row, and below each that is over how its lines ended.

    Args:
        runs: The runs, with their tasks where they are over.
        pipelines: Which pipeline each identifier in Kubeflow is.
        now: For the time that runs under way took.
        endings: Gives how the lines of a run of a pipeline ended.
    """
    found = list(runs)
    head = ("run", "pipeline", "began (UTC)", "state", "took", "by", "lines")
    rows = [
        (
            run.id,
            pipelines[run.pipeline_id],
            f"{run.created:%Y-%m-%d %H:%M:%S}",
            state_of(run, now),
            span(run.created, run.ended or now),
            _by(run),
            ", ".join(run.lines) or "all lines",
        )
        for run in found
    ]
    if not rows:
        return ["no runs yet; start them with `morphad pipeline submit`"]
    first, *lines = _table([head, *rows])
    said = [first]
    for run, line in zip(found, lines, strict=True):
        said.append(line)
        for ending in endings(run, pipelines[run.pipeline_id]) if run.is_over else ():
            if ending.how:
                text = f"  {ending.line or 'all lines'}: {ending.state}: {ending.how}"
                said.append(text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}…")
    return said


def described(
    run: Run, pipeline: str, now: datetime, namespace: str | None, endings: Sequence[Ending] = ()
) -> list[str]:
    """A run of a pipeline step by step, and how each line ended.

    Args:
        run: With its tasks.
        pipeline: Which it is of.
        now: For the time that it took, where it is under way.
        namespace: Where its pods are.
        endings: Of its lines.
    """
    lines = [
        f"{run.name}: {state_of(run, now)}",
        f"  run {run.id}, began {run.created:%Y-%m-%d %H:%M:%S} UTC by {_by(run)}, "
        f"took {span(run.created, run.ended or now)}",
        f"  lines: {', '.join(run.lines) or 'all of the compiled pipeline'}",
    ]
    if reason := run.parameters.get("reason"):
        lines.append(f"  reason: {reason}")
    if run.error:
        lines.append(f"  Kubeflow says: {run.error}")
    lines += ["", *_table([("step", "state", "took"), *(_step(run, name, now) for name in step_names(pipeline))])]
    rows = [(each.line or "all", each.state, "" if each.code is None else str(each.code), each.how) for each in endings]
    if rows:
        lines += ["", *_table([("line", "end", "code", "how"), *rows])]
    pods = f"kubectl -n {namespace or 'kubeflow'} {{}} -l pipeline/runid={run.id}"
    waiting = [task.waiting for task in run.tasks if task.waiting and now - task.waiting > _PATIENCE]
    if waiting and not run.is_over:
        long = span(min(waiting), now)
        lines += [
            "",
            f"A pod waits for {long}: for a node, an image, a volume or a secret: {pods.format('describe pods')}",
        ]
    if run.state == "FAILED":
        logs = pods.format("logs") + " --all-containers --prefix --tail=30"
        lines += ["", f"More: morphad pipeline logs {run.id}; where that has none: {logs}"]
    return lines


def is_gone(run: Run, now: datetime) -> bool:
    """Whether a run is being ended for so long that it has no workflow any more, and so no pods."""
    return run.state == "CANCELING" and run.stopped is not None and now - run.stopped > _LONGEST_END


def state_of(run: Run, now: datetime) -> str:
    """The state of a run in words."""
    if is_gone(run, now):
        return "ended by hand (its workflow is gone)"
    return "ended by hand" if run.is_over and run.stopped and run.state != "SUCCEEDED" else _word(run.state)


def _by(run: Run) -> str:
    return "schedule" if run.recurring_run_id else "hand"


def _step(run: Run, step: str, now: datetime) -> tuple[str, str, str]:
    tasks = [task for task in run.tasks if task.name == step]
    if not any(task.state for task in tasks):
        drivers = [task.state for task in run.tasks if task.name == f"{step}-driver" and task.state]
        if "FAILED" in drivers:
            return step, "FAILED before it began (its driver)", ""
        return step, "beginning" if drivers else ("not run" if run.ended else "to come"), ""
    counts = Counter(_step_word(run, task) for task in tasks)
    state = ", ".join(f"{n} {word}" for word, n in sorted(counts.items())) if len(tasks) > 1 else next(iter(counts))
    began = [task.started for task in tasks if task.started is not None and task.state]
    ended = [task.ended or run.ended or now for task in tasks if task.state]
    return step, state, span(min(began), max(ended)) if began else ""


def _step_word(run: Run, task: Task) -> str:
    cut_off = run.stopped is not None and task.ended is not None and task.ended > run.stopped
    return "ended by hand" if task.state == "FAILED" and cut_off else _word(task.state)


def _word(state: str) -> str:
    return _WORDS.get(state, state.lower())


def span(begin: datetime, end: datetime) -> str:
    """A time that passed, in words."""
    seconds = max(0, round((end - begin).total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours = seconds // 60 % 60, seconds // 3600
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds % 60:02} s"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
