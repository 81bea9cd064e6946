"""How a run of a line on a cluster goes and how it ended, kept on storage that outlives its pods."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from morphad.base.errors import BadInputError, MorphadError, ending_process
from morphad.base.files import read_json, write_json
from morphad.base.text import masked
from morphad.settings import LINE_NAME


class LineState:
    """One line's folder on storage that outlives pods. One run of a line at a time may use it.

    Args:
        root: Where that storage is mounted; one folder a line.
        line: The line's name.
    """

    def __init__(self, root: str | Path, line: str) -> None:
        self.root = Path(root)
        self.line = line

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

    @property
    def progress(self) -> Path:
        """How far the last run came, JSON: run, step, state (running, failed, done), message, code (its exit code)."""
        return self.folder / "progress.json"

    @contextmanager
    def step(self, name: str, run: str | None = None) -> Iterator[None]:
        """Keep on record that a step runs and how it failed; end the process with the error's message and exit code.

        Args:
            name: The step.
            run: The run that begins with this step; None: the run that began last.
        """
        with ending_process(f"{name} {self.line}"):
            begun = {"run": run} if run is not None else {"run": self._read().get("run", "")}
            write_json(self.progress, {**begun, "step": name, "state": "running", "message": ""})
            try:
                yield
            except Exception as error:
                said, code = masked(f"{type(error).__name__}: {error}"), 1
                if isinstance(error, MorphadError):
                    said, code = str(error), error.exit_code
                write_json(self.progress, {**begun, "step": name, "state": "failed", "message": said, "code": code})
                raise

    def finish(self, run: str, message: str, code: int = 0) -> None:
        """Put on record that the run came to its end: the gate decided; code 1: it said no."""
        write_json(self.progress, {"run": run, "step": "promote", "state": "done", "message": message, "code": code})

    def end(self, run: str) -> tuple[bool, str]:
        """Whether a run of the line came to its end, and how, in words."""
        try:
            progress = self._read()
        except BadInputError as error:
            return False, str(error)
        if progress.get("run") != run:
            return False, "did not start"
        if progress.get("state") == "done":
            return True, str(progress.get("message"))
        reason = progress.get("message") or "see the log of that step's last attempt"
        return False, f"failed in {progress.get('step')}: {reason}"

    def code(self, run: str) -> int | None:
        """The exit code that a run of the line ended with; None: its last pod was killed, or the run did not start."""
        try:
            progress = self._read()
        except BadInputError as error:
            return error.exit_code
        code = progress.get("code") if progress.get("run") == run else None
        return code if isinstance(code, int) else None

    def _read(self) -> dict[str, Any]:
        if not self.progress.exists():
            return {}
        read = read_json(self.progress)
        return read if isinstance(read, dict) else {}


def ends(root: str | Path, lines: Sequence[str], run: str) -> tuple[bool, str]:
    """Whether every line of a run came to its end, and a Markdown table that tells how each did."""
    told = [(line, *LineState(root, line).end(run), LineState(root, line).code(run)) for line in lines]
    rows = [
        f"| {line} | {'done' if done else '**failed**'} | {'' if code is None else code} | "
        f"{' '.join(text.replace('|', '/').split())} |"
        for line, done, text, code in told
    ]
    done = sum(finished for _, finished, _, _ in told)
    head = f"{done} of {len(told)} lines came to their end.\n\n| line | end | code | how |\n|---|---|---|---|\n"
    return done == len(told), head + "\n".join(rows) + "\n"
