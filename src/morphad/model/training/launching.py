"""A training in several processes of this machine: started by torch's launcher, watched, and never left behind."""

import ctypes
import logging
import math
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.files import cannot_write, read_json, write_json
from morphad.base.progress import Progress, silent

_WORKER = "morphad.model.training.worker"
_SECONDS = 1.0  # between two reports
_IMAGES, _GIVEN, _TRAINED, _JOB, _RESULT, _PROGRESS = (
    "images", "given.safetensors", "trained.safetensors", "job.json", "result.json", "progress.json"
)  # fmt: skip


def train_together(
    network: nn.Module, images: Tensor, job: dict[str, Any], count: int, progress: Progress = silent
) -> dict[str, Any]:
    """Let `count` processes train a network, and give it the weights that come of it.

    Args:
        network: Trained in place.
        images: [N, C, H, W] uint8; the processes read them from one file, of which the system keeps one copy in memory.
        job: Anything JSON can hold, for the processes.
        count: How many.
        progress: Called as the training goes on.

    Returns:
        What the first process left with `leave`.

    Raises:
        BadInputError: As in `launch`, or there is no space for the images in the folder for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
        folder = Path(scratch)
        try:
            images.numpy().tofile(folder / _IMAGES)
            save_file(_plain(network), folder / _GIVEN)
        except (OSError, SafetensorError) as error:
            raise cannot_write(folder, error if isinstance(error, OSError) else OSError(str(error))) from error
        share = {
            "shape": list(images.shape),
            "parent": os.getpid(),
            "threads": max(1, torch.get_num_threads() // count),
        }
        write_json(folder / _JOB, {**job, **share})
        with _following(folder / _PROGRESS, progress):
            launch(_WORKER, folder, count)
        network.load_state_dict(load_file(folder / _TRAINED))
        result: dict[str, Any] = read_json(folder / _RESULT)
    return result


def take(folder: Path) -> tuple[dict[str, Any], Tensor, dict[str, Tensor]]:
    """Within a process of `train_together`: job, images and weights that it was given."""
    job = read_json(folder / _JOB)
    follow_parent(job["parent"])
    torch.set_num_threads(job["threads"])
    size = math.prod(job["shape"])
    images = torch.from_file(str(folder / _IMAGES), shared=False, size=size, dtype=torch.uint8)
    return job, images.reshape(job["shape"]), load_file(folder / _GIVEN)


def forget(folder: Path) -> None:
    """Within the first process of `train_together`, once all have joined: remove what all of them have taken.

    A run that is killed then leaves nothing large behind; images stay mapped.
    """
    for name in (_IMAGES, _GIVEN):
        (folder / name).unlink()


def leave(folder: Path, network: nn.Module, result: dict[str, Any]) -> None:
    """Within the first process of `train_together`: hand over the trained weights and what else is to be known."""
    save_file(_plain(network), folder / _TRAINED)
    write_json(folder / _RESULT, result)


def reporter(folder: Path) -> Progress:
    """Within the first process of `train_together`: a callback that lets the parent know how far the training is."""
    said = 0.0

    def report(stage: str, done: int, total: int) -> None:
        nonlocal said
        if done == total or time.monotonic() - said >= _SECONDS:
            said = time.monotonic()
            write_json(folder / _PROGRESS, [stage, done, total])

    return report


@contextmanager
def _following(file: Path, progress: Progress) -> Iterator[None]:
    """Pass on what the first process reports, for a block."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(_SECONDS):
            if file.exists():
                progress(*read_json(file))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _plain(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}


def launch(module: str, folder: Path, count: int) -> None:
    """Run `python -m MODULE FOLDER` in `count` processes by torch's launcher, and wait for them.

    When one ends badly the others are ended; when this process is asked to end, so are they, and when it is killed
    they end by themselves (`follow_parent`).

    Args:
        module: What to run.
        folder: What they read and write; their errors go there too.
        count: How many.

    Raises:
        BadInputError: One of them did (`tell_failure`).
        ServiceError: One of them was killed.
        RuntimeError: One of them met another error; the message holds its traceback.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(str(folder / "logs"), dict.fromkeys(range(1, count), Std.ALL)),
    )
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        with _quiet_launcher():
            elastic_launch(config, sys.executable)("-m", module, str(folder))
    except ChildFailedError as error:
        raise _root_cause(error, folder, count) from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.sigval) from None
    finally:
        _restore(handlers)


def follow_parent(parent: int) -> None:
    """End this process when its parent is killed, which could then not end it (Linux).

    Args:
        parent: The parent's process id; it may be gone already.
    """
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def tell_failure(folder: Path, error: BaseException, text: str) -> None:
    """Within a process that `launch` started: leave word of what it failed of."""
    refused = isinstance(error, BadInputError)
    write_json(folder / f"failure-{os.environ['RANK']}.json", {"refused": refused, "text": text})


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # those that torch's launcher handles


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@contextmanager
def _quiet_launcher() -> Iterator[None]:
    """Keep torch's launcher off the terminal for a block: what it has to say comes as an exception."""
    # Each of its loggers has a level of its own, so the one above them all decides nothing.
    names = [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]
    loggers = [logger for logger in map(logging.getLogger, names) if not logger.disabled]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger in loggers:
            logger.disabled = False


def _root_cause(error: ChildFailedError, folder: Path, count: int) -> Exception:
    """What went wrong first: when one process ends, the others fail of missing it."""
    told = {rank: folder / f"failure-{rank}.json" for rank in error.failures}
    words = {rank: read_json(path) for rank, path in told.items() if path.exists()}
    for word in words.values():
        if word["refused"]:
            return BadInputError(word["text"])
    for rank, failure in error.failures.items():
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # which the launcher sends to the others
            name = signal.Signals(-failure.exitcode).name
            return ServiceError(  # from outside, as a pod that is killed: it may be run again as it is
                f"training process {rank} of {count} was ended by {name}; where nobody did that, memory may not "
                "suffice: lower train.processes or train.optimiser.batch_size. Run it again: it goes on from its "
                "checkpoint"
            )
    for rank, word in words.items():
        return RuntimeError(f"training process {rank} of {count} failed:\n{word['text']}")
    rank, failure = next(iter(error.failures.items()))
    log = Path(failure.error_file).with_name("stderr.log")
    text = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    return RuntimeError(f"training process {rank} of {count} ended with exit code {failure.exitcode}\n{text}")
