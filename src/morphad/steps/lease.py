"""The lease of a line: one run at a time works on what is kept of it between runs."""

import errno
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from morphad.base.errors import BadInputError, CheckFailedError, MorphadError, OutageError
from morphad.base.files import cannot_write, read_json, remove_leftovers, write_json

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


@dataclass(frozen=True)
class Silence:
    """How long a run may give no sign of life before another takes its line over, in seconds.

    Attributes:
        heartbeat: Between two signs of life while a step runs.
        in_step: While a step runs: twenty heartbeats. A file server that restarts is away for less.
        between_steps: Before the next step begins, when nobody can give a sign: Kubeflow waits for a node, starts one
            with a GPU, and fetches an image of some gigabytes.
        ending: While a step runs of a run that Kubeflow knows as over: three heartbeats. Its pods may have half a
            minute left, and one on a node that Kubeflow has lost may live; that gives signs of life.
    """

    heartbeat: float = 30.0
    ending: float = 90.0
    in_step: float = 600.0
    between_steps: float = 3600.0


@dataclass(frozen=True)
class Lease:
    """Which run has a line.

    Attributes:
        run: Its name.
        step: The step that runs, or ran last.
        state: "in" the step, "after" it and before the next, or "over": the run has let go.
        since: When it came to that state, seconds since 1970.
        heartbeat: Its last sign of life, seconds since 1970.
    """

    run: str
    step: str
    state: Literal["in", "after", "over"]
    since: float
    heartbeat: float


class LineLease:
    """The lease of one line: a file in the line's folder, changed only under a lock of the file system.

    Clocks of nodes should agree within minutes, as Kubernetes itself wants it. A node whose clock is wrong by more may
    take over a line from a run that lives; that run notices it at its next heartbeat and ends.

    Args:
        folder: The line's folder.
        silence: When a run counts as dead.
        clock: Seconds since 1970.
        lost: What to do with a message when the line was taken over while a step runs. By default the process ends at
            once with code 1: whatever it would still write would be in the way of the other run.
    """

    def __init__(
        self,
        folder: Path,
        silence: Silence | None = None,
        clock: Callable[[], float] = time.time,
        lost: Callable[[str], object] | None = None,
    ) -> None:
        self.file = folder / "lease.json"
        self._lock = folder / "lease.lock"
        self._silence = silence or Silence()
        self._clock = clock
        self._lost = lost or _end_process

    def read(self) -> Lease | None:
        """Which run has the line; None before the first.

        Raises:
            BadInputError: The file is damaged.
        """
        if not self.file.exists():
            return None
        try:
            return Lease(**read_json(self.file))
        except TypeError as error:
            raise BadInputError(f"{self.file}: no lease of a line; remove it, and submit the line again") from error

    def begin(self, run: str, step: str, free_at: float = 0.0) -> None:
        """Take the line for a run, whose first step this is.

        Args:
            run: The run.
            step: The step.
            free_at: When Kubeflow had no other run of the line under way, seconds since 1970; 0: nobody asked it. A
                run whose step began before that is over, however it ended. Still it keeps the line while it gives
                signs of life.

        Raises:
            CheckFailedError: Another run has the line, and is alive as far as can be known.
            OutageError: The run that has the line is over, but its last sign of life is too fresh: try again.
        """
        with self._locked():
            remove_leftovers(self.file)
            lease, now = self.read(), self._clock()
            if lease is not None and lease.run != run and lease.state != "over":
                if lease.heartbeat > now:  # a clock went back, and cannot say how long the run has been silent
                    lease = replace(lease, heartbeat=now)
                    self._write(lease)
                silent, is_over = now - lease.heartbeat, lease.since < free_at
                if is_over and lease.state == "in" and silent <= self._silence.ending:
                    raise OutageError(
                        f"{self.words(lease)} and is over, as Kubeflow knows; a pod of it gave a sign of life "
                        f"{silent:.0f} s ago; end that pod if it goes on"
                    )
                if not is_over and silent <= self._patience(lease):
                    raise CheckFailedError(self._refusal(lease))
                sys.stderr.write(
                    f"morphad {step}: takes the line over from run {lease.run}, which "
                    f"{'is over and ' if is_over else ''}gave no sign of life for {silent / 60:.0f} minutes, last in "
                    f"{lease.step}\n"
                )
            self._write(Lease(run, step, "in", now, now))

    def go_on(self, run: str | None, step: str) -> str:
        """Go on with a later step of a run.

        Args:
            run: The run; None where nobody has said: the one that has the line.
            step: The step.

        Returns:
            The run.

        Raises:
            CheckFailedError: Another run has taken the line over.
        """
        with self._locked():
            lease, now = self.read(), self._clock()
            if lease is not None and run not in {None, lease.run}:
                raise CheckFailedError(self._loss(run, lease))
            run = run or (lease.run if lease else "")
            self._write(Lease(run, step, "in", now, now))
        return run

    @contextmanager
    def held(self, run: str) -> Iterator[None]:
        """A block in which a run has the line for sure: nobody can take it over meanwhile. Keep it short.

        Raises:
            CheckFailedError: Another run has the line.
        """
        with self._locked():
            lease = self.read()
            if lease is not None and lease.run != run:
                raise CheckFailedError(self._loss(run, lease))
            yield

    @contextmanager
    def beating(self, run: str, step: str) -> Iterator[None]:
        """Give signs of life while a block runs, the work of a step."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(self._silence.heartbeat):
                try:
                    self._mark(run, step, "in")
                except CheckFailedError as error:
                    if not ended.is_set():
                        self._lost(f"{step}: {error}")
                    return
                except (OSError, MorphadError) as error:
                    sys.stderr.write(f"morphad {step}: no sign of life could be left: {error}\n")

        thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(self._silence.heartbeat)

    def leave(self, run: str, step: str) -> None:
        """Say that a step of a run has ended.

        Raises:
            CheckFailedError: Another run has taken the line over.
        """
        self._mark(run, step, "after")

    def let_go(self, run: str) -> None:
        """Let the line go, if the run has it."""
        if self.read() is None:
            return
        with self._locked():
            lease = self.read()
            if lease is not None and lease.run == run:
                self._write(replace(lease, state="over", since=self._clock()))

    def words(self, lease: Lease) -> str:
        """What a run does, such as "run 3f2a is in train since 14:02 UTC on 2026-11-29"."""
        at = f"{datetime.fromtimestamp(lease.since, UTC):%H:%M UTC on %Y-%m-%d}"
        how = {"in": "is in {} since {}", "after": "is between steps, after {}, since {}", "over": "ended in {}, {}"}
        return f"run {lease.run} {how[lease.state].format(lease.step, at)}"

    def _mark(self, run: str, step: str, state: Literal["in", "after"]) -> None:
        with self.held(run):
            lease, now = self.read(), self._clock()
            if lease is not None and lease.state == "over":  # the step has let go itself
                return
            since = lease.since if lease is not None and (lease.step, lease.state) == (step, state) else now
            self._write(Lease(run, step, state, since, now))

    def _patience(self, lease: Lease) -> float:
        return self._silence.in_step if lease.state == "in" else self._silence.between_steps

    def _refusal(self, lease: Lease) -> str:
        until = datetime.fromtimestamp(lease.heartbeat + self._patience(lease), UTC)
        return (
            f"{self.words(lease)}, and one run of a line goes at a time; wait for its end, or end it and start this "
            "one again with `morphad pipeline submit`, which asks Kubeflow what is over. Any other "
            f"finds the line free at {until:%H:%M} UTC, if there is no sign of life, or once you remove {self.file}"
        )

    def _loss(self, run: str | None, lease: Lease) -> str:
        return f"run {run} has lost the line: {self.words(lease)}; submit the line again when that has ended"

    def _write(self, lease: Lease) -> None:
        write_json(self.file, asdict(lease))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            stream = self._lock.open("a")
        except OSError as error:
            raise cannot_write(self._lock, error) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    raise BadInputError(
                        f"{self._lock}: the volume has no locks ({error.strerror}); use one that has, such as NFS 4.1 "
                        "or CephFS"
                    ) from error
                raise
            yield


def _end_process(message: str) -> None:
    sys.stderr.write(f"morphad {message}\n")
    sys.stderr.flush()
    os._exit(1)
