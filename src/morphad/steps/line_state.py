"""How a run of a line on a cluster goes and how it ended, kept on storage that outlives its pods."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from morphad.base.errors import BadInputError, MorphadError, ending_process
from morphad.base.files import read_json, write_json
from morphad.base.patience import outages_of, wait_out
from morphad.base.text import masked
from morphad.settings import LINE_NAME
from morphad.steps.lease import LineLease, Silence

# Environment variable that says in a pod which run it is of. A parameter would be another one each run, and Kubeflow's
# cache would never find a step that was done before.
RUN = "MORPHAD_RUN"

T = TypeVar("T")


class End(NamedTuple):
    """How a run of a line ended.

    Attributes:
        done: Whether it came to its end.
        code: Its exit code; None: its last pod was killed, or it did not start.
        how: In words.
    """

    done: bool
    code: int | None
    how: str


class Patiently(Protocol):
    """Does work that may be begun again at any time, and waits while what it needs is away."""

    def __call__(self, work: Callable[[], T]) -> T:
        """What the work gives."""


class LineState:
    """One line's folder on storage that outlives pods. One run of a line at a time may use it.

    Args:
        root: Where that storage is mounted; one folder a line.
        line: The line's name.
        silence: As in `LineLease`; so is `clock`.
    """

    def __init__(
        self,
        root: str | Path,
        line: str,
        *,
        silence: Silence | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.root = Path(root)
        self.line = line
        self._silence, self._clock = silence, clock

    @property
    def folder(self) -> Path:
        """The line's folder.

        Raises:
            BadInputError: The line's name is none that can be a folder.
        """
        if not LINE_NAME.fullmatch(self.line):
            raise BadInputError(
                f"line {self.line!r}: a line's name holds a-z, 0-9 and inner hyphens, at most 63 characters"
            )
        return self.root / self.line

    @cached_property
    def lease(self) -> LineLease:
        """Which run has the line."""
        return LineLease(self.folder, self._silence, self._clock)

    @property
    def progress(self) -> Path:
        """How far the last run came, JSON: run, step, state (running, failed, done), message, code (its exit code)."""
        return self.folder / "progress.json"

    @contextmanager
    def step(self, name: str, run: str | None = None, free_at: float = 0.0) -> Iterator[Patiently]:
        """Run a step of a run that has the line; end the process with an error's message and exit code.

        On record are that the step runs and how it failed. While it runs, it gives signs of life.

        Args:
            name: The step.
            run: The run that begins with this step; None: the one that MORPHAD_RUN names, else that has the line.
            free_at: As in `LineLease.begin`.

        Yields:
            What does the step's work: it waits while a service or the state's volume is away, and begins again.
        """
        what = f"{name} {self.line}"

        def patiently(work: Callable[[], T]) -> T:
            return wait_out(work, what, volume=self.root)

        with ending_process(what):
            begun = patiently(lambda: self._enter(name, run, free_at))
            try:
                with self.lease.beating(begun, name):
                    yield patiently
            except BaseException as error:
                # Nothing is waited for any more; what ended the step is to be seen, not what came after.
                with suppress(MorphadError, OSError):
                    if isinstance(error, MorphadError):
                        self._note(begun, name, "failed", str(error), error.exit_code)
                    elif isinstance(error, Exception):
                        self._note(begun, name, "failed", masked(f"{type(error).__name__}: {error}"), 1)
                    self.lease.leave(begun, name)
                raise
            patiently(lambda: self.lease.leave(begun, name))

    def finish(self, run: str, message: str, step: str = "promote", code: int = 0) -> None:
        """Put on record that the run came to its end: the gate decided, or there was nothing new to decide on.

        The line is free then.

        Args:
            run: The run.
            message: How it ended.
            step: Its last step.
            code: 1 where the gate said no.
        """
        self._note(run, step, "done", message, code)
        self.lease.let_go(run)

    def _enter(self, step: str, run: str | None, free_at: float) -> str:
        """The run that the step is of, once it has the line."""
        if run is None:
            run = self.lease.go_on(os.environ.get(RUN) or None, step)
        else:
            self.lease.begin(run, step, free_at)
        self._note(run, step, "running", "")
        return run

    def _note(self, run: str, step: str, state: str, message: str, code: int | None = None) -> None:
        with self.lease.held(run):
            known = {"run": run, "step": step, "state": state, "message": message}
            write_json(self.progress, known if code is None else {**known, "code": code})

    def end(self, run: str) -> End:
        """How a run of the line ended, or how far it came."""
        try:
            with outages_of(self.root.absolute()):
                progress, lease = self._read(), self.lease.read()
        except BadInputError as error:
            return End(False, error.exit_code, str(error))
        if progress.get("run") != run:
            other = lease is not None and lease.run != run and lease.state != "over"
            return End(False, None, f"did not start: {self.lease.words(lease)}" if lease and other else "did not start")
        code = progress["code"] if isinstance(progress.get("code"), int) else None
        if progress.get("state") == "done":
            return End(True, code, str(progress.get("message")))
        reason = progress.get("message") or "see the log of that step's last attempt"
        return End(False, code, f"failed in {progress.get('step')}: {reason}")

    def _read(self) -> dict[str, Any]:
        if not self.progress.exists():
            return {}
        read = read_json(self.progress)
        return read if isinstance(read, dict) else {}


def free_lines(root: Path) -> None:
    """Let go of all lines, whoever had them; only where no run can be alive."""
    for folder in filter(Path.is_dir, root.iterdir()):
        LineLease(folder).file.unlink(missing_ok=True)


def close(root: str | Path, lines: Sequence[str], run: str) -> tuple[bool, str]:
    """Let go of the lines of a run that is over, and say how each came to its end.

    Waits while the state's volume is away.

    Returns:
        Whether all did, and a Markdown table.
    """
    return wait_out(lambda: _close(root, lines, run), "notify")


def _close(root: str | Path, lines: Sequence[str], run: str) -> tuple[bool, str]:
    ends = []
    for line in lines:
        state = LineState(root, line)
        ends.append((line, state.end(run)))
        with suppress(BadInputError), outages_of(state.root.absolute()):  # the table says what is wrong
            state.lease.let_go(run)
    rows = [
        f"| {line} | {'done' if end.done else '**failed**'} | {'' if end.code is None else end.code} | "
        f"{' '.join(end.how.replace('|', '/').split())} |"
        for line, end in ends
    ]
    done = sum(end.done for _, end in ends)
    head = f"{done} of {len(ends)} lines came to their end.\n\n| line | end | code | how |\n|---|---|---|---|\n"
    return done == len(ends), head + "\n".join(rows) + "\n"
