"""Tasks on this machine as processes that begin with everything imported.

kfp.local starts a Python for each task, and each imports torch, MLflow and Great Expectations anew: for a small line
that is most of a run. Here one process imports them once, and every task is a fork of it.
"""

import inspect
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kfp import local
from kfp.dsl import executor_main
from kfp.local import subprocess_task_handler as kfps

from morphad.base.errors import BadInputError
from morphad.steps.reads import READS

_IMPORTED = [
    "morphad.kubeflow.processes",
    "morphad.registry",
    "morphad.steps.line_state",
    *(f"morphad.steps.{step}" for step in (*READS, "rerun", "reference")),
]


@contextmanager
def processes() -> Iterator[Any]:
    """A runner for kfp.local whose tasks are such processes.

    Raises:
        BadInputError: This kfp starts its tasks in another way.
    """
    before = kfps.run_local_subprocess
    if list(inspect.signature(before).parameters) != ["full_command", "env_vars"]:
        raise BadInputError("this version of kfp runs tasks in another way than 2.17; install kfp 2.17")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)

    def run(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        """Run a task, show what it says, and give its exit code."""
        source, words = full_command[3], full_command[4:]  # after: sh -ec SCRIPT
        reader, writer = context.Pipe(duplex=False)
        task = context.Process(target=_task, args=(source, words, env_vars or {}, writer))
        task.start()
        writer.close()
        with reader, open(reader.fileno(), errors="replace", closefd=False) as said:
            for line in said:
                print(line, end="")
        print("\n")
        task.join()
        return 1 if task.exitcode is None else task.exitcode

    kfps.run_local_subprocess = run
    try:
        yield local.SubprocessRunner(use_venv=False)
    finally:
        kfps.run_local_subprocess = before


def _task(source: str, words: list[str], environment: dict[str, str], writer: Connection) -> None:
    """What kfp's command of a task does: put the component's source into a file, and run its function."""
    for stream in (1, 2):
        os.dup2(writer.fileno(), stream)
    writer.close()
    os.environ.update(environment)
    with suppress(OSError):
        Path("/proc/self/comm").write_text(words[-1], encoding="utf-8")  # how `ps` calls it
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "ephemeral_component.py"
        module.write_text(source, encoding="utf-8")
        sys.argv = ["executor_main", "--component_module_path", str(module), *words]
        executor_main.executor_main()
