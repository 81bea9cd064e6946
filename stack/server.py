"""A server process that outlives the one that started it, found again by its pid file and ended by pid."""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import psutil

from morphad.base.errors import ServiceError
from morphad.base.files import cannot_write, sha256_json
from stack.ports import HOST, check_free

_MARK = "MORPHAD_STACK"
# What the person who starts a server has set for clients must not lead the server elsewhere.
_NOT_INHERITED = ("AWS_", "MLFLOW_", "PG", "WEED_")


class Server(ABC):
    """One server on loopback, with its data, log and pid file in one folder.

    Every process of the server carries a mark in its environment. So a pid file that a crash or a reboot left behind
    never leads to a stranger that has the number now, and workers are found when only their parent was killed.

    As a context manager it is started, and stopped in order at the end.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path, port: int) -> None:
        """Choose the folder, which need not exist, and the port. Nothing is started yet."""
        self.folder = folder.absolute()
        self.port = port
        self.log = self.folder / f"{self.name}.log"
        self._pid_file = self.folder / f"{self.name}.pid"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where clients go, such as http://127.0.0.1:15000."""
        return f"http://{HOST}:{self.port}"

    @property
    def ports(self) -> Sequence[int]:
        """Every port that the server listens on."""
        return (self.port,)

    @property
    def user(self) -> str | None:
        """The user that it runs as, where that is not the one who starts it."""
        return None

    @property
    def data(self) -> Path:
        """Where its data are; also its working folder."""
        return self.folder / "data"

    def prepare(self) -> None:
        """Make what must be there before the first start.

        Raises:
            BadInputError: The server is not installed, or the folder is of no use.
        """
        self.data.mkdir(mode=0o700, exist_ok=True)

    @abstractmethod
    def command(self) -> list[str]:
        """Program and arguments; no secrets, which every user of the machine could read."""

    @abstractmethod
    def settings(self) -> Mapping[str, str]:
        """Environment variables for the server; secrets go here."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it does its work now."""

    @property
    def running(self) -> bool:
        """Whether a process of the server is alive."""
        return bool(self.processes())

    def check(self) -> None:
        """Find out before anything is started whether this server can be.

        Raises:
            BadInputError: It is not installed.
            ServiceError: A port is in use, or it is running with other settings.
        """
        fingerprint = self._fingerprint()
        if not self.running:
            check_free(self.name, self.ports)
        elif self._pid_file.read_text(encoding="ascii").split()[1:] != [fingerprint]:
            raise ServiceError(
                f"{self.name}: it is running with other settings, such as another port; stop it before it is changed"
            )

    def start(self, seconds: float = 120.0) -> bool:
        """Start the server, unless it is running, and wait until it answers.

        Args:
            seconds: How long to wait.

        Returns:
            True if it was not running.

        Raises:
            BadInputError: It is not installed, or its folder is of no use.
            ServiceError: A port is in use, it is running with other settings, or it does not come up in time; then it
                is stopped, unless it was running before.
        """
        self.check()
        if self.running:
            self._wait(seconds)
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.prepare()
            self._launch()
        except OSError as error:
            raise cannot_write(Path(error.filename or self.folder), error) from error
        try:
            self._wait(seconds)
        except BaseException:  # the user's Ctrl-C too
            self.stop()
            raise
        return True

    def stop(self, seconds: float = 30.0) -> bool:
        """End the server in order, or by force after `seconds`; True if it was running."""
        processes = self.processes()
        self.signal(self.stop_signal)
        _, alive = psutil.wait_procs(processes, timeout=seconds)
        if alive:
            self.kill()
        self._pid_file.unlink(missing_ok=True)
        return bool(processes)

    def kill(self) -> None:
        """End every process of the server as a power cut would (SIGKILL); the pid file stays behind."""
        processes = self.processes()
        with suppress(IndexError, psutil.NoSuchProcess):
            processes += processes[0].children(recursive=True)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's processes, such as SIGSTOP for one that hangs."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def processes(self) -> list[psutil.Process]:
        """The server's process group as far as it is alive, its leader first; empty if the server is not running."""
        # A child that has ended is a zombie until somebody asks; one that has just begun does not show its mark yet.
        child = self._child.pid if self._child is not None and self._child.poll() is None else None
        try:
            group = int(self._pid_file.read_text(encoding="ascii").split()[0])
        except (OSError, ValueError, IndexError):
            return []
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if os.getpgid(process.pid) == group and (process.pid == child or self._is_marked(process)):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid != group)

    def _is_marked(self, process: psutil.Process) -> bool:
        return process.environ().get(_MARK) == str(self._pid_file)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        command = self.command()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        with self.log.open("wb") as log:
            try:
                self._child = subprocess.Popen(
                    command,
                    cwd=self.data,
                    env={**inherited, **self.settings(), _MARK: str(self._pid_file)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    user=self.user,
                    group=self.user,
                    extra_groups=None if self.user is None else (),
                )
            except OSError as error:
                raise ServiceError(f"{self.name}: cannot start {command[0]} ({error.strerror})") from error
        self._pid_file.write_text(f"{self._child.pid} {self._fingerprint()}\n", encoding="ascii")

    def _fingerprint(self) -> str:
        """What the server would be started with, without the secrets in it."""
        return sha256_json([self.command(), dict(self.settings())])

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.answers():
            ended = not self.running
            if ended or time.monotonic() > deadline:
                what = "ended while it started" if ended else f"did not answer at port {self.port} in {seconds:g} s"
                raise ServiceError(f"{self.name} {what}; the end of {self.log}:\n{self._last_words()}")
            time.sleep(0.1)

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
