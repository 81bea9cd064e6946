"""How each line of a run ended and why: from the table of step `notify`, else from what Argo and the logs say."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from morphad.base.errors import BadInputError, ServiceError
from morphad.kubeflow.artifacts import VARIABLE, ArtifactStore
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.cluster import BATCH_STEPS, STEPS, Step
from morphad.kubeflow.compiling import BATCH, TRAINING
from morphad.kubeflow.nodes import StepRun, Workflow
from morphad.kubeflow.records import Run

State = Literal["under way", "done", "failed", "interrupted", "ended by hand", "not known"]

PIPELINE_STEPS: dict[str, tuple[Step, ...]] = {TRAINING: STEPS, BATCH: BATCH_STEPS}

# A run of a service that was away, or of a pod that was killed: nothing is wrong with the line.
_INTERRUPTED = (3, 128 + 9, 128 + 15)

MORE = f"where the artifact store has more, name it: --artifacts s3://mlpipeline, or {VARIABLE}"

_ROW = re.compile(
    r"^\| (?P<line>\S+) \| (?P<end>done|\*\*failed\*\*) \| (?P<code>\d*) \| (?P<how>.*) \|$", re.MULTILINE
)
# How Kubeflow's launcher says that a step's own process ended.
_EXIT = re.compile(r"(?:exit status (\d+)|signal: (killed|terminated))")
_SIGNALS = {"killed": 128 + 9, "terminated": 128 + 15}

_LARGE = 300_000  # bytes of parameters; a workflow holds them several times, and at most 1 MiB


@dataclass(frozen=True)
class Ending:
    """How a line ended in a run.

    Attributes:
        line: The line; "": all of a run that names none.
        state: In a word.
        code: The exit code of what failed, 0: nothing did; None: it is not known, or the line is under way.
        how: In words.
    """

    line: str
    state: State
    code: int | None
    how: str

    @property
    def exit_code(self) -> int:
        """What a command that waits for the line ends with: a pod that was lost is a service that went away."""
        if self.code in {0, 1, 2, 3}:
            return self.code
        return {"done": 0, "interrupted": 3, "ended by hand": 1}.get(self.state, 1)


def step_names(pipeline: str) -> list[str]:
    """The steps of a pipeline as Kubeflow has them."""
    return [step.replace("_", "-") for step in PIPELINE_STEPS[pipeline]]


@dataclass(frozen=True)
class Seen:
    """A run that is looked into.

    Attributes:
        run: With its tasks.
        pipeline: Which it is of.
    """

    run: Run
    pipeline: str

    @cached_property
    def workflow(self) -> Workflow:
        """Its steps."""
        return Workflow(self.run)

    @cached_property
    def failed_driver(self) -> str:
        """A task of Kubeflow's own, before a step, that failed; "": none did."""
        failed = (task.name for task in self.run.tasks if task.state == "FAILED")
        return next((name for name in failed if name.endswith("-driver")), "")

    @cached_property
    def parameter_bytes(self) -> int:
        """How large its parameters are."""
        return len(json.dumps(self.run.parameters))


class Outcomes:
    """Finds out how lines ended.

    Args:
        kubeflow: Where.
        store: The artifact store, for what Kubeflow's API has no longer; None: it is not asked.
    """

    def __init__(self, kubeflow: Kubeflow, store: ArtifactStore | None = None) -> None:
        self._kubeflow = kubeflow
        self._store = store

    def of(self, run: Run, pipeline: str) -> list[Ending]:
        """The ending of each line of a run.

        Args:
            run: With its tasks.
            pipeline: Which it is of.
        """
        seen = Seen(run, pipeline)
        steps = seen.workflow.steps(step_names(pipeline))
        rows = self._rows(seen, steps) if run.is_over and pipeline == TRAINING else {}
        lines = run.lines or tuple(rows) or ("",)
        of_lines = _by_line(steps, len(lines))
        return [
            self._of_line(seen, line, rows.get(line), of_lines.get(number, [])) for number, line in enumerate(lines)
        ]

    def log(self, seen: Seen, step: StepRun) -> list[tuple[str, str | None]]:
        """What each pod of a step wrote: its name, and the text or None."""
        found = []
        for pod in step.pods:
            text = self._kubeflow.log(seen.run.id, pod)
            if text is None and self._store is not None:
                text = self._store.log(seen.run, seen.pipeline, step.name, seen.workflow.name, pod)
            found.append((pod.names[0], text))
        return found

    def _rows(self, seen: Seen, steps: Iterable[StepRun]) -> dict[str, Ending]:
        notify = [step for step in steps if step.name == "notify"]
        texts = [text for step in notify for _, text in self.log(seen, step)]
        if not any(text and _ROW.search(text) for text in texts) and notify and self._store is not None:
            texts.append(self._store.table(seen.run, seen.pipeline))
        rows = [row for text in texts if text for row in _ROW.finditer(text)]
        # A line without a record may have failed before there was one: its step's log tells more.
        return {row["line"]: _of_row(seen.run, row) for row in rows if row["how"] != "did not start"}

    def _of_line(self, seen: Seen, line: str, row: Ending | None, steps: list[StepRun]) -> Ending:
        """What the table says; of a pod that was killed, and so wrote no code, Argo and the logs may say more."""
        if row is not None and row.code is not None:
            return row
        other = self._without_row(seen, line, steps)
        return row if row is not None and other.state == "not known" else other

    def _without_row(self, seen: Seen, line: str, steps: list[StepRun]) -> Ending:
        """What Argo and the logs say, where the table says nothing."""
        run = seen.run
        began = [step for step in steps if step.pods]
        if not run.is_over:
            at = ", ".join(step.name for step in began if step.task.state in {"RUNNING", "PENDING"})
            return Ending(line, "under way", None, f"in {at}" if at else "between two steps")
        if run.stopped is not None or run.state == "CANCELED":
            return Ending(line, "ended by hand", None, f"in {began[-1].name}" if began else "before its first step")
        if run.state in {"SUCCEEDED", "SKIPPED"}:
            return Ending(line, "done", 0, "")
        failed = [step for step in steps if step.task.state == "FAILED"]
        if failed:
            # Of several shards of a batch, one with bad input counts more than one that was interrupted.
            endings = [self._of_step(seen, line, step) for step in failed]
            return next((ending for ending in reversed(endings) if ending.state == "failed"), endings[-1])
        return _without_step(seen, line, began[-1].name if began else "")

    def _of_step(self, seen: Seen, line: str, step: StepRun) -> Ending:
        """What the log of the step that failed says."""
        how = f"failed in {step.name}"
        if not step.pods:
            return Ending(line, "interrupted", None, f"{how}, before its own code began")
        code = self._code(seen, step)
        if code is None:
            return Ending(line, "not known", None, f"{how}; no log is left in Kubeflow ({MORE})")
        return Ending(line, "interrupted" if code in _INTERRUPTED else "failed", code, f"{how}, exit code {code}")

    def _code(self, seen: Seen, step: StepRun) -> int | None:
        """The exit code of a step's last attempt, out of its log."""
        for _, text in reversed(self.log(seen, step)):
            if text is not None:
                ends = _EXIT.findall(text)
                return (int(ends[-1][0]) if ends[-1][0] else _SIGNALS[ends[-1][1]]) if ends else 128 + 9
        return None


def readable(outcomes: Outcomes, run: Run, pipeline: str) -> list[Ending]:
    """The endings of a run; where logs may not be read, that is what is said of each line."""
    try:
        return outcomes.of(run, pipeline)
    except (BadInputError, ServiceError) as error:
        return [Ending(line, "not known", None, str(error)) for line in run.lines or ("",)]


def _by_line(steps: Iterable[StepRun], lines: int) -> dict[int | None, list[StepRun]]:
    """The steps of each line; of a run with one line also those whose place is not certain."""
    found: dict[int | None, list[StepRun]] = {}
    for step in steps:
        if step.name != "notify":
            found.setdefault(step.line if lines > 1 else 0, []).append(step)
    return found


def _of_row(run: Run, row: re.Match[str]) -> Ending:
    code, how = int(row["code"]) if row["code"] else None, row["how"]
    if row["end"] == "done":
        return Ending(row["line"], "done", code or 0, how)
    if run.stopped is not None and code is None:
        return Ending(row["line"], "ended by hand", None, how)
    return Ending(row["line"], "interrupted" if code is None or code in _INTERRUPTED else "failed", code, how)


def _without_step(seen: Seen, line: str, last: str) -> Ending:
    """A run that failed, though none of the line's steps did: Kubeflow or Argo could not go on after `last`."""
    run = seen.run
    said = f"{f'failed after {last}' if last else 'no step began'}{f': {run.error}' if run.error else ''}"
    if "Too long" in run.error or (not last and seen.parameter_bytes > _LARGE):
        return Ending(
            line,
            "failed",
            2,
            f'{said}; Argo stores a workflow of at most 1 MiB ("Too long: may not be more than 1048576 bytes"), and '
            f"this run has {seen.parameter_bytes / 1000:,.0f} kB of parameters: give a run fewer lines, at best one",
        )
    if seen.failed_driver:
        return Ending(line, "interrupted", None, f"{said}; Kubeflow's own {seen.failed_driver} failed")
    return Ending(line, "interrupted", None, f"{said}; Argo could not store or start it: see its controller's log")
