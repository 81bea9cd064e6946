"""Accounts that cannot be made, told before anything is asked of a server, or by it."""

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.__main__ import main


@pytest.fixture(autouse=True)
def _no_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def plain_server() -> Iterator[str]:
    """A server that knows nothing of accounts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["admin", "morphad", "", "../anna", "a b", "a:b", "x" * 65, "größe"])
def test_names_that_cannot_be_accounts(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["account", name, "--role", "reader", "--folder", str(tmp_path)]) == 2
    assert "expected letters, digits and . _ @ -" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_other_server_needs_its_administrator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["account", "anna", "--role", "reader", "--folder", str(tmp_path), "--uri"]
    assert main([*words, "http://127.0.0.1:9"]) == 2
    assert "MLFLOW_TRACKING_PASSWORD in the environment must be its administrator's" in capsys.readouterr().err


@pytest.mark.parametrize("away", [True, False])
def test_server_that_is_away_or_has_no_accounts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, plain_server: str, away: bool
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-password-of-mine")
    uri = "http://127.0.0.1:9" if away else plain_server
    assert main(["account", "anna", "--role", "reader", "--folder", str(tmp_path), "--uri", uri]) == 3
    err = capsys.readouterr().err
    assert uri in err
    assert ("start it, or correct its address" if away else "mlflow server --app-name basic-auth") in err
    assert "a-password-of-mine" not in err
    assert not list(tmp_path.iterdir())


def test_stack_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["account", "anna", "--role", "reader", "--folder", str(tmp_path / "none")]) == 2
    assert "start one: python -m stack up" in capsys.readouterr().err
