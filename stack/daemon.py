"""A server process that outlives the one that started it, found again by its pid file and ended by pid."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from morphad.errors import ServiceError

HOST = "127.0.0.1"
_MARK = "MORPHAD_STACK_DAEMON"


class Daemon:
    """One server: a process group of its own, a log, and a pid file that does not mistake a stranger for it.

    Every process of the group carries a mark in its environment, so a pid file that was left behind by a crash or a
    reboot never leads to the process that has its number now, and workers are found when only their parent was killed.
    """

    def __init__(self, name: str, folder: Path) -> None:
        """Name the server; its log and pid file lie in `folder`, which need not exist."""
        self.name = name
        self.log = folder / f"{name}.log"
        self._pid_file = folder / f"{name}.pid"
        self._mark = str(self._pid_file.absolute())
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
        """Start `command` with `environment` added to this process's own; the log begins anew.

        Raises:
            ServiceError: The program cannot be started.
        """
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            try:
                self._child = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env={**os.environ, **environment, _MARK: self._mark},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                raise ServiceError(f"{self.name}: cannot start {command[0]} ({error.strerror})") from error
        self._pid_file.write_text(f"{self._child.pid}\n", encoding="ascii")

    def processes(self) -> list[psutil.Process]:
        """Those of the server's processes that are alive; none if it is not running."""
        if self._child is not None:
            self._child.poll()  # a child that has ended is a zombie until somebody asks
        try:
            group = int(self._pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return []
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if os.getpgid(process.pid) == group and process.environ().get(_MARK) == self._mark:
                    found.append(process)
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self, seconds: float = 20.0) -> bool:
        """End the server in order, or by force after `seconds`; True if it was running."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=seconds)
        if alive:
            self.kill()
        self._pid_file.unlink(missing_ok=True)
        return bool(processes)

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL); its pid file stays behind."""
        processes = self.processes()
        self.signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=10)

    def last_words(self, lines: int = 8) -> str:
        """The end of the server's log, for an error message."""
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


class Patience:
    """A time limit on a server's coming up: `while ...: patience.wait()`."""

    def __init__(self, daemon: Daemon, seconds: float) -> None:
        """Start the clock: `seconds` from now."""
        self._daemon = daemon
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def wait(self) -> None:
        """Sleep for a moment.

        Raises:
            ServiceError: The server has ended, or its time is up; the message holds the end of its log.
        """
        daemon = self._daemon
        ended = not daemon.processes()
        if ended or time.monotonic() > self._deadline:
            what = "ended while it started" if ended else f"did not answer within {self._seconds:.0f} s"
            raise ServiceError(f"{daemon.name} {what}; the end of {daemon.log}:\n{daemon.last_words()}")
        time.sleep(0.1)


def is_free(port: int) -> bool:
    """Whether a server of ours could listen on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: closed connections do not hold it
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def check_free(name: str, ports: Sequence[int]) -> None:
    """Refuse ports that somebody listens on.

    Raises:
        ServiceError: A port is taken; the message names it and, where this user may know, by whom.
    """
    for port in ports:
        if not is_free(port):
            raise ServiceError(f"{name}: port {port} of {HOST} is taken{_by_whom(port)}; free it, or choose another")


def _by_whom(port: int) -> str:
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                with suppress(psutil.Error):
                    return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""


def free_port(also: Sequence[int] = ()) -> int:
    """A port that is free, as are those at the offsets `also` from it; below those that outgoing connections take.

    Raises:
        ServiceError: None found.
    """
    for _ in range(200):
        port = random.randrange(10_240, 22_000)  # noqa: S311
        if all(is_free(port + offset) for offset in (0, *also)):
            return port
    raise ServiceError("found no free loopback ports between 10240 and 32000")
