"""Servers as processes: found again, told apart from strangers, ended whatever they do. With a small real server."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from morphad.base.errors import BadInputError, ServiceError
from stack.ports import free_port
from stack.server import Server

SERVE = """
import http.server, os, signal, sys
if os.environ.get("STUBBORN"): signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.environ.get("WORKER") and os.fork(): signal.pause()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.BaseHTTPRequestHandler).serve_forever()
"""


class Small(Server):
    name = "small"

    def __init__(self, folder: Path, program: str = SERVE, **settings: str) -> None:
        super().__init__(folder, free_port())
        self.program = program
        self.wanted = settings

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.program, str(self.port)]

    def settings(self) -> Mapping[str, str]:
        return self.wanted

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=2).close()  # noqa: S310
        except urllib.error.HTTPError:  # 501: it has no pages, but it is there
            return True
        except OSError:
            return False
        return True


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Small]:
    server = Small(tmp_path / "small")
    yield server
    server.kill()


def test_started_once_and_found_again_by_another(server: Small) -> None:
    assert server.start() is True
    assert server.start() is False
    again = Small(server.folder)
    again.port = server.port
    assert again.start() is False
    assert [process.pid for process in again.processes()] == [process.pid for process in server.processes()]
    assert again.stop() is True
    assert (server.running, again.stop()) == (False, False)


def test_a_stale_pid_file_does_not_lead_to_a_stranger(server: Small) -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        server.folder.mkdir()
        (server.folder / "small.pid").write_text(f"{stranger.pid} 0\n")
        assert not server.running
        assert server.stop() is False
        (server.folder / "small.pid").write_text(f"{stranger.pid} 0\n")
        assert server.start() is True
        server.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", ["", "no number", "4194304999"])
def test_a_damaged_pid_file_is_no_server(server: Small, content: str) -> None:
    server.folder.mkdir()
    (server.folder / "small.pid").write_text(content)
    assert not server.running
    assert server.start() is True


def test_a_worker_whose_parent_was_killed_is_found_and_ended(server: Small) -> None:
    server.wanted = {"WORKER": "1"}
    server.start()
    assert len(server.processes()) == 2
    os.kill(server.processes()[0].pid, signal.SIGKILL)
    time.sleep(0.2)
    assert len(server.processes()) == 1
    assert server.stop() is True
    assert server.start() is True  # the port is free again


def test_one_that_ends_at_once_is_told_with_its_last_words(server: Small) -> None:
    server.program = "import sys; sys.exit('the disk is on fire')"
    with pytest.raises(ServiceError, match=r"small ended while it started; the end of .*small.log:\nthe disk is on fi"):
        server.start()


def test_one_that_never_answers_is_stopped(server: Small) -> None:
    server.program = "import time; time.sleep(60)"
    with pytest.raises(ServiceError, match=rf"small did not answer at port {server.port} in 0.5 s"):
        server.start(seconds=0.5)
    assert not server.running


def test_one_that_does_not_heed_is_ended_by_force(server: Small) -> None:
    server.wanted = {"STUBBORN": "1"}
    server.start()
    assert server.stop(seconds=0.5) is True
    assert not server.running


def test_other_settings_while_it_runs_are_refused(server: Small) -> None:
    server.start()
    server.wanted = {"COLOUR": "blue"}
    with pytest.raises(ServiceError, match="small: it is running with other settings, such as another port; stop it"):
        server.start()
    assert server.running


def test_what_is_set_for_clients_does_not_reach_it(server: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "AWS_PROFILE", "PGHOST", "WEED_X"):
        monkeypatch.setenv(name, "elsewhere")
    server.start()
    assert not {"MLFLOW_TRACKING_URI", "AWS_PROFILE", "PGHOST", "WEED_X"} & set(server.processes()[0].environ())


def test_a_program_that_is_not_there(server: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Small, "command", lambda _: ["/no/such/program"])
    with pytest.raises(ServiceError, match=r"small: cannot start /no/such/program \(No such file or directory\)"):
        server.start()


def test_a_folder_that_cannot_be_made(server: Small) -> None:
    server.folder.write_text("a file")
    with pytest.raises(BadInputError, match=f"{server.folder}: cannot write"):
        server.start()
