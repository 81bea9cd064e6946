"""Who the server says a client is, where servers are strange; real servers are asked in tests/integration."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from mlflow.exceptions import MlflowException

from morphad.registry.account import authenticated_account
from morphad.registry.connection import Connection
from morphad.settings import RegisterSettings

Serve = Callable[[int, str], str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A server that answers everything with one status and text."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    running = []

    def start(status: int, text: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        running.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_database_has_no_accounts(settings: RegisterSettings) -> None:
    connection = Connection(settings)
    with connection.session():
        assert authenticated_account(connection.uri) is None


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (404, "Not Found"),
        (200, "<html>sign in</html>"),
        (200, "[]"),
        (200, "{}"),
        (200, json.dumps({"user": {"username": ""}})),
        (200, json.dumps({"user": {"username": 7}})),
    ],
)
def test_server_that_does_not_say_has_no_accounts(serve: Serve, status: int, text: str) -> None:
    assert authenticated_account(serve(status, text)) is None


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_server_that_refuses_is_no_server_without_accounts(serve: Serve, status: int) -> None:
    with pytest.raises(MlflowException, match=str(status)):
        authenticated_account(serve(status, json.dumps({"user": {"username": "eve"}})))


def test_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    start = time.monotonic()
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(MlflowException, match="timed out"):
            authenticated_account(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert time.monotonic() - start < 10
