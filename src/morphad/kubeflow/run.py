"""`morphad pipeline run`: the training pipeline on this machine, each task a process or a container."""

import argparse
import fcntl
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from kfp import local

from morphad.base.errors import BadInputError, CheckFailedError, MorphadError
from morphad.base.files import cannot_write
from morphad.base.verbs import Verbs
from morphad.kubeflow.cluster import load_cluster
from morphad.kubeflow.docker_runner import Engine
from morphad.kubeflow.lines import line_items
from morphad.kubeflow.processes import processes
from morphad.kubeflow.project import project_file
from morphad.settings import LineSettings
from morphad.settings.reading import load_settings
from morphad.steps.line_state import free_lines
from pipelines.training import training_pipeline


def add_verbs(verbs: Verbs) -> None:
    """Add `pipeline run`."""
    parser = verbs.add_for_project(
        "run",
        run,
        "Run the training pipeline here, without a cluster: the same steps, the same figures.",
        "--lines pv-mono",
    )
    parser.add_argument(
        "--runner",
        choices=("subprocess", "docker"),
        default="subprocess",
        help="tasks are processes of this environment, or containers of Docker or podman (DOCKER_HOST)",
    )
    parser.add_argument("--lines", metavar="A,B", help="only these lines of the settings")
    parser.add_argument(
        "--cluster", type=Path, default=project_file("cluster.yaml"), metavar="FILE", help="images and limits of steps"
    )
    parser.add_argument("--out", type=Path, default=Path("pipeline-runs"), metavar="FOLDER", help="artifacts of runs")
    parser.add_argument("--state", type=Path, default=None, metavar="FOLDER", help="lasting state; default: OUT/state")
    parser.add_argument("--force", action="store_true", help="train although nothing is new since the last decision")
    parser.add_argument("--network", default="host", metavar="NAME", help="docker: the network that tasks are in")


def run(options: argparse.Namespace) -> int:
    """Run the pipeline and give the exit code 0 when every line came to its end.

    Raises:
        CheckFailedError: A line did not come to its end; the others did.
        BadInputError: Wrong settings, an image or a package is missing, or another run is under way.
        ServiceError: The container engine or MLflow did not answer.
    """
    project = load_settings(options.params)
    names = list(project.lines) if options.lines is None else list(dict.fromkeys(options.lines.split(",")))
    lines = line_items(project, names)
    cluster = load_cluster(options.cluster).for_one_machine()
    pipeline = training_pipeline(cluster)
    out = options.out.resolve()
    state = (options.state or options.out / "state").resolve()
    settings = [project.line(name) for name in names]
    if options.runner == "docker":
        engine = Engine(cluster, out, state)
        engine.check(pipeline, options.network)
        tasks = _containers(engine, settings, options.network)
    else:
        tasks = _processes()
    if options.runner != "docker" or options.network == "host":
        _check_registries(names, settings)
    with _alone_on(state), tasks as runner:
        earlier = set(out.glob(f"{pipeline.name}-*"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that limits of pods have no effect here
            local.init(runner=runner, pipeline_root=str(out), enable_caching=True)
            try:
                given = {"lines": lines, "seed": project.seed, "reason": "manual", "force": options.force}
                pipeline(**given, state_root=str(state))
                failed = False
            except RuntimeError:  # what kfp.local raises when a task failed
                failed = True
    folder = max(set(out.glob(f"{pipeline.name}-*")) - earlier, default=out)
    told = "the table above says how each ended" if (folder / "notify" / "summary").exists() else "see above"
    if failed:
        raise CheckFailedError(f"not every line came to its end; {told}. Run it again to go on; artifacts: {folder}")
    for number, name in enumerate(names):
        print(f"{name}: {next(folder.glob(f'*-iteration-{number}'), folder)}")
    return 0


def _check_registries(names: Iterable[str], lines: Iterable[LineSettings]) -> None:
    """See that MLflow's servers answer before a line is trained, not after. Files are made when needed."""
    from morphad.registry import Registry  # noqa: PLC0415 - mlflow takes a second

    registries = {
        (found := Registry(line.register_)).uri: (found, name) for name, line in zip(names, lines, strict=True)
    }
    for uri, (registry, name) in registries.items():
        if not uri.startswith("sqlite:"):
            registry.champion(name)


@contextmanager
def _alone_on(state: Path) -> Iterator[None]:
    """Hold the lasting state for this run: two trainings of one line would write the same checkpoint."""
    lock = state / ".lock"
    try:
        state.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    except OSError as error:
        raise cannot_write(lock, error) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInputError(f"{state}: another run is at work on this state; wait for its end, or end it") from None
        free_lines(state)  # of runs that were killed here: with the lock, none of them is alive
        yield


@contextmanager
def _processes() -> Iterator[Any]:
    with _ended_by_signals(_kill_children), processes() as runner:
        yield runner


@contextmanager
def _containers(engine: Engine, lines: Iterable[LineSettings], network: str) -> Iterator[Any]:
    if left := engine.remove_leftovers():
        print(f"removed {left} container(s) of an earlier run that was killed")
    with _ended_by_signals(engine.stop), engine.runner(lines, network) as runner:
        yield runner


@contextmanager
def _ended_by_signals(end_tasks: Callable[[], object]) -> Iterator[None]:
    """Let an interruption end the whole run: kfp.local would go through all other lines before it lets go."""

    def end(number: int, _frame: object) -> None:
        with suppress(MorphadError):
            end_tasks()
        sys.stderr.write("morphad pipeline: interrupted; run it again to go on\n")  # kfp makes print indent
        with suppress(RuntimeError):  # in the middle of a print
            sys.stdout.flush()
        os._exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill_children() -> None:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
