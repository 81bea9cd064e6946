"""A published version as what was published: its own code, decoding and threshold, in a process of its own.

This morphad may be newer or older than the one that published it; nothing of the one gets into the other.
"""

import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.files import read_json
from morphad.data.images import decode
from morphad.inspection import Answer
from morphad.registry import worker
from morphad.settings import Decoding

_START_SECONDS = 300  # a cold disk and a busy machine need minutes to import what a model needs
_CHUNK = 16  # images in one question, or
_CHUNK_BYTES = 64_000_000  # encoded, whichever is reached first
_AHEAD = 2  # questions under way: one is worked at while the next is read
_LARGEST = Decoding(max_megapixels=1000)  # of a heatmap: as large as any image that may be asked about
_OWN_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "PYTHONDONTWRITEBYTECODE": "1",  # the version's folder stays as it was published
}
_NOT_ITS_BUSINESS = ("MLFLOW_", "AWS_")  # the registry's address and everybody's credentials: it needs no service


class PublishedModel:
    """A version that was fetched, answering as it does when it is served; within its context its process runs.

    Args:
        folder: What `Registry.download_model` gave.
        name: What the version is called in messages, such as models:/morphad-pcb/3; the folder where nothing is given.

    Attributes:
        name: As above.
        threshold: The highest score that it accepts; None where it has no threshold.
        decoding: How it decodes, as far as this morphad knows the words; for who shows an image beside its answer.

    Raises:
        BadInputError: The folder holds no version that morphad published.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self.name = name or str(folder)
        self._folder = folder.absolute()
        if not (folder / "MLmodel").is_file():
            raise BadInputError(f"{folder}: not a published version (no MLmodel); fetch it from the registry")
        description = read_json(folder / "artifacts" / "detector" / "detector.json")
        try:
            self.threshold: float | None = (description["calibration"] or {}).get("threshold")
        except (LookupError, TypeError, AttributeError) as error:
            raise BadInputError(f"{folder}: not a version that morphad published ({error}); fetch another") from error
        self.decoding = _decoding(folder, description)
        self._numbers = count()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Start the process.

        Raises:
            ServiceError: It did not start: the version needs what is not installed here, or was too slow.
        """
        self._log = cast(BinaryIO, tempfile.TemporaryFile())
        # -P: nothing is imported from the folder of the script, where modules of this morphad lie.
        self._process = subprocess.Popen(
            [sys.executable, "-P", worker.__file__, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=self._folder,
            env=_environment(),
        )
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def predict(self, images: Iterable[bytes], *, heatmaps: bool = False) -> Iterator[Answer]:
        """An answer for each encoded image, in order, streamed; an image that cannot be read spoils no other.

        Args:
            images: Contents of image files; read a few dozen ahead.
            heatmaps: Whether answers have heatmaps.

        Raises:
            ServiceError: The process ended, or was never started.
        """
        under_way: list[int] = []
        for chunk in _chunks(images):
            number = next(self._numbers)
            self._ask({"number": number, "heatmaps": heatmaps}, chunk)
            under_way.append(number)
            if len(under_way) == _AHEAD:
                yield from self._answers(under_way.pop(0))
        for number in under_way:
            yield from self._answers(number)

    def _ask(self, facts: dict[str, Any], images: list[bytes]) -> None:
        try:
            worker.write_frame(self._running().stdin, facts, images)  # type: ignore[arg-type]  # a pipe
        except BrokenPipeError:
            raise self._ended() from None

    def _answers(self, number: int) -> Iterator[Answer]:
        facts, heatmaps = self._read()
        while facts["number"] != number:  # an answer that nobody waited for: the caller left off in the middle
            facts, heatmaps = self._read()
        for row, png in zip(facts["answers"], heatmaps, strict=True):
            if "error" in row:
                yield Answer(error=row["error"])
            else:
                heatmap = np.divide(decode(png, _LARGEST, grey=True).pixels, 255, dtype=np.float32) if png else None
                yield Answer.of(row["score"], row["rejected"], row["p_value"], heatmap, row["reason"])

    def _read(self) -> worker.Frame:
        frame = worker.read_frame(self._running().stdout)  # type: ignore[arg-type]  # a pipe
        if frame is None:
            raise self._ended()
        return frame

    def _wait(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._running().stdout, selectors.EVENT_READ)  # type: ignore[arg-type]  # a pipe
            if not selector.select(_START_SECONDS):
                raise ServiceError(f"{self.name}: did not start within {_START_SECONDS} s; {self._said()}{_AGAIN}")
        if failed := self._read()[0]["failed"]:
            raise ServiceError(f"{self.name}: cannot be loaded here ({failed}); {_MISSING}")

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise ServiceError(f"{self.name}: its process does not run; ask within its context")
        return self._process

    def _ended(self) -> ServiceError:
        """The error for a process that ended by itself."""
        code = self._running().wait()
        if code < 0:
            killed = "; the machine may be out of memory" if code == -signal.SIGKILL else ""
            how = f"was ended by {signal.Signals(-code).name}{killed}"
        else:
            how = f"ended (exit code {code})"
        return ServiceError(f"{self.name}: the process that scores with it {how}; {self._said()}{_AGAIN}")

    def _said(self) -> str:
        """The last that the process wrote on its standard error."""
        if self._log is None:
            return ""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4096))
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"its last words: {lines[-1].strip()[:300]}; " if lines else ""

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()  # it has nothing to put in order
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                with suppress(BrokenPipeError):  # of a question that was not sent whole
                    stream.close()  # type: ignore[union-attr]  # a pipe
        if self._log is not None:
            self._log.close()
        self._process = self._log = None


_AGAIN = "run it again, and if that does not help, promote or roll back to another version"
_MISSING = (
    "a version needs the packages of its requirements.txt: use the environment or image that it was published from, or "
    "train and promote a new one"
)


def _environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_ITS_BUSINESS)}
    return own | _OWN_ENVIRONMENT


def _decoding(folder: Path, description: dict[str, Any]) -> Decoding:
    """From the detector, or, up to its format 5, from MLflow's file."""
    rules = description.get("decoding")
    try:
        if rules is None:
            described = YAML(typ="safe").load(folder / "MLmodel")
            rules = described["flavors"]["python_function"].get("config") or {}
        return Decoding.model_validate({name: rules[name] for name in Decoding.model_fields if name in rules})
    except (YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise BadInputError(f"{folder}: not a version that morphad published ({error}); fetch another") from error


def _chunks(images: Iterable[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for image in images:
        chunk.append(image)
        size += len(image)
        if len(chunk) == _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
