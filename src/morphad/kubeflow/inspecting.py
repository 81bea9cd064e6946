"""`morphad pipeline status`, `logs` and `end`: what runs do and did, and an end to one."""

import argparse
from datetime import UTC, datetime
from itertools import islice, takewhile

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.verbs import Verbs
from morphad.base.wording import did_you_mean
from morphad.kubeflow.artifacts import VARIABLE, open_store
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.compiling import TRAINING
from morphad.kubeflow.finding import duration, find_run, pipelines_there, runs_of
from morphad.kubeflow.nodes import StepRun
from morphad.kubeflow.options import add_remote, open_kubeflow
from morphad.kubeflow.outcomes import MORE, Outcomes, Seen, readable, step_names
from morphad.kubeflow.records import Run
from morphad.kubeflow.status import described, listed, state_of


def add_verbs(verbs: Verbs) -> None:
    """Add `pipeline status`, `logs` and `end`."""
    status = add_remote(
        verbs,
        "status",
        _status,
        "list runs and how their lines ended, or the steps of one run",
        "--since 24h",
    )
    status.add_argument("run", metavar="RUN", nargs="?", help="a run's identifier, or how it begins")
    status.add_argument("--limit", type=int, default=20, metavar="N", help="list at most so many runs (default: 20)")
    status.add_argument("--since", metavar="TIME", help="list runs that began within it: 90m, 24h, 2d")
    logs = add_remote(verbs, "logs", _logs, "what a step of a run wrote, also when its pod is gone", "4f1c2a train")
    logs.add_argument("run", metavar="RUN", help="a run's identifier, or how it begins")
    logs.add_argument("step", metavar="STEP", nargs="?", help="default: what failed, else what runs")
    logs.add_argument("--line", metavar="LINE", help="only this line's, in a run of several")
    end = add_remote(verbs, "end", _end, "end a run; what its lines have come to stays", "4f1c2a")
    end.add_argument("run", metavar="RUN", help="a run's identifier, or how it begins")
    for parser in (status, logs):
        add_artifacts(parser)


def add_artifacts(parser: argparse.ArgumentParser) -> None:
    """Give a verb the option that names Kubeflow's artifacts."""
    parser.add_argument(
        "--artifacts",
        metavar="S3_URL",
        help=f"Kubeflow's bucket, for what its API has no longer: s3://mlpipeline, with AWS_*; default: {VARIABLE}",
    )


def _run_of(options: argparse.Namespace) -> tuple[Kubeflow, Run, str]:
    """The run that a verb is about, with its tasks, and which pipeline it is of."""
    kubeflow = open_kubeflow(options)
    pipelines = pipelines_there(kubeflow)
    run = find_run(kubeflow, options.run, pipelines)
    return kubeflow, run, pipelines.get(run.pipeline_id, TRAINING)


def _outcomes(kubeflow: Kubeflow, options: argparse.Namespace) -> Outcomes:
    return Outcomes(kubeflow, open_store(options.artifacts, kubeflow.connection.namespace))


def _status(options: argparse.Namespace) -> None:
    if options.limit < 1:
        raise BadInputError(f"--limit {options.limit}: expected a number above 0")
    since = None if options.since is None else datetime.now(UTC) - duration("--since", options.since)
    if options.run is not None:
        kubeflow, run, pipeline = _run_of(options)
        endings = readable(_outcomes(kubeflow, options), run, pipeline)
        lines = described(run, pipeline, datetime.now(UTC), kubeflow.connection.namespace, endings)
    else:
        kubeflow = open_kubeflow(options)
        pipelines, outcomes = pipelines_there(kubeflow), _outcomes(kubeflow, options)
        runs = takewhile(lambda run: since is None or run.created >= since, runs_of(kubeflow, pipelines))
        whole = (kubeflow.run(run.id) if run.is_over else run for run in islice(runs, options.limit))
        lines = listed(whole, pipelines, datetime.now(UTC), lambda run, pipeline: readable(outcomes, run, pipeline))
    print("\n".join(lines))


def _logs(options: argparse.Namespace) -> None:
    kubeflow, run, pipeline = _run_of(options)
    seen = Seen(run, pipeline)
    chosen = _chosen(seen, options.step, options.line)
    outcomes, found = _outcomes(kubeflow, options), False
    for step in chosen:
        written = outcomes.log(seen, step)
        for number, (pod, text) in enumerate(written, 1):
            head = f"{step.name}{_of_line(run, step)}, attempt {number} of {len(written)}, pod {pod}"
            print(f"== {head}: {'' if text is not None else 'no log is left'}".rstrip(" :"))
            if text is not None:
                print(text.rstrip("\n"))
                found = True
    if not found:
        pods = f"kubectl -n {kubeflow.connection.namespace or 'kubeflow'} get pods -l pipeline/runid={run.id}"
        raise BadInputError(
            f"run {run.id}: its pods are gone, or were never there, and Kubeflow has no log of them; {MORE}; "
            f"see also: {pods}"
        )


def _chosen(seen: Seen, name: str | None, line: str | None) -> list[StepRun]:
    """The steps whose logs are wanted."""
    run, names = seen.run, step_names(seen.pipeline)
    if line is not None and line not in run.lines:
        raise BadInputError(f"--line {line}: run {run.id} has {', '.join(run.lines) or 'no lines of its own'}")
    number = run.lines.index(line) if line is not None and "line" not in run.parameters else None
    steps = [
        step for step in seen.workflow.steps(names) if step.pods and (number is None or step.line in {number, None})
    ]
    there = ", ".join(name for name in names if any(step.name == name for step in steps)) or "nothing yet"
    wanted = None if name is None else name.replace("_", "-")
    if wanted is not None:
        if wanted not in names:
            meant = did_you_mean(wanted, names)
            raise BadInputError(
                f"run {run.id} has no step {name!r}; {f'{meant} ' if meant else ''}It has: {', '.join(names)}"
            )
        chosen = [step for step in steps if step.name == wanted]
    else:
        states = [[step for step in steps if step.task.state == state] for state in ("FAILED", "RUNNING")]
        chosen = states[0] or states[1]
    if not chosen:
        what = f"step {name} has not begun" if name else "nothing failed and nothing runs; name a step"
        raise BadInputError(f"run {run.id}: {what}. There are logs of: {there}")
    return chosen


def _of_line(run: Run, step: StepRun) -> str:
    if step.line is None:
        return ""
    if "line" in run.parameters:  # of a batch prediction: what it loops over are parts of the images
        return f", part {step.line + 1}"
    return f" of {run.lines[step.line]}" if step.line < len(run.lines) else ""


def _end(options: argparse.Namespace) -> None:
    kubeflow, run, pipeline = _run_of(options)
    if run.is_over:
        print(f"{run.name}: is over already: {state_of(run, datetime.now(UTC))}")
        return
    where = "; ".join(f"{each.line or 'all lines'}: {each.how}" for each in Outcomes(kubeflow).of(run, pipeline))
    print(f"{run.name}: {where}")
    try:
        kubeflow.end_run(run.id)
    except ServiceError as error:
        # It is marked before its workflow is asked for, and there may be none any more.
        if kubeflow.run(run.id).state not in {"CANCELING", "CANCELED"}:
            raise
        print(f"run {run.id}: is marked as ended, but Kubeflow could not end its workflow: {error}")
        print(
            "If the workflow is gone, nothing of the run works any more, though Kubeflow goes on to show it as being "
            "ended; ten minutes from now a new run of its lines is accepted."
        )
        return
    print(f"run {run.id}: is being ended; its pods get half a minute")
    if pipeline == TRAINING:
        print(
            "What is left: versions that were registered, the lines' holdout and state, and the checkpoint of a "
            "training, from which the line's next run goes on. `notify` still writes how each line ended, and then its "
            "lines are free."
        )
