"""A Kubeflow that is away, refuses or is something else: a message with a remedy, soon, and exit code 3."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from fake_kubeflow import FakeKubeflow

from morphad.base.errors import BadInputError, ServiceError
from morphad.kubeflow import connection
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.connection import Connection, NotFoundError

Command = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KFP_HOST", "KFP_TOKEN", "KFP_NAMESPACE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def answering(status: int, content: bytes, **headers: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def refusal(host: str, namespace: str | None = None) -> str:
    with pytest.raises(ServiceError) as refused:
        Kubeflow(Connection(host, namespace)).experiment_id("morphad")
    return str(refused.value)


def test_nothing_there_is_told_at_once_with_exit_code_3(
    command: Command, fake: FakeKubeflow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    waited: list[float] = []  # seconds between tries: what a command works takes as long as the machine is busy
    monkeypatch.setattr(time, "sleep", waited.append)
    for words in (("pipeline", "status"), ("schedule", "plan"), ("schedule", "apply"), ("pipeline", "upload")):
        before = len(caplog.records)
        code, said = command(*words, "--host", nobody)
        assert code == 3
        assert sum(waited) < 1
        assert len(caplog.records) - before <= 1  # of urllib3: one call, tried twice at most
        assert nobody in said
        assert "Connection refused" in said
        assert "port-forward" in said
        assert "Traceback" not in said
    assert fake.requests == []


@pytest.mark.parametrize("listens", [True, False], ids=["says nothing", "does not accept"])
def test_a_silent_host_does_not_hold_the_command_up(listens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_FIRST_WAIT", (1, 1))
    with socket.socket() as silent, socket.socket() as taken:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8 if listens else 0)
        if not listens:  # the one place in the queue is taken
            taken.connect(silent.getsockname())
        began = time.monotonic()
        said = refusal(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 4
    assert "timed out" in said
    assert "run it again" in said


def test_a_missing_token_and_a_stale_one_are_told_apart_and_never_shown(
    command: Command, fake: FakeKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.token = "right"  # noqa: S105
    code, said = command("pipeline", "status")
    assert code == 3
    assert "set KFP_TOKEN" in said
    monkeypatch.setenv("KFP_TOKEN", "s3cret-but-wrong")
    code, said = command("pipeline", "status")
    assert code == 3
    assert "the token in KFP_TOKEN may have run out" in said
    assert "s3cret" not in said
    monkeypatch.setenv("KFP_TOKEN", "right\n")
    assert command("pipeline", "upload")[0] == 0


def test_what_is_not_allowed_names_namespace_and_role(command: Command, fake: FakeKubeflow) -> None:
    fake.forbidden = "/pipelines"
    code, said = command("pipeline", "upload", "--namespace", "plant")
    assert code == 3
    assert "not allowed in namespace plant" in said
    assert "kubeflow-edit" in said
    assert "is not authorized" in said


def test_an_error_of_the_server_is_one_line(command: Command, fake: FakeKubeflow) -> None:
    fake.broken = "/pipelines"
    code, said = command("pipeline", "status")
    assert code == 3
    assert "the database is away" in said
    assert "try again later" in said
    assert "long story" not in said


def test_profiles_need_a_namespace(command: Command, fake: FakeKubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.multi_user = True
    code, said = command("pipeline", "upload")
    assert code == 2
    assert "--namespace" in said
    monkeypatch.setenv("KFP_NAMESPACE", "plant")
    assert command("pipeline", "upload")[0] == 0
    assert {pipeline["namespace"] for pipeline in fake.pipelines.values()} == {"plant"}


def test_another_server_is_not_taken_for_kubeflow() -> None:
    page = b"<html>Log in, runs, experiments</html>"
    with answering(200, page, Content_Type="text/html") as host:
        assert "set KFP_TOKEN if it shows a login page" in refusal(host)
    with answering(302, b"", Location="/dex/auth") as host:
        assert "what answers is not Kubeflow's API" in refusal(host)
    with answering(404, b"no such page", Content_Type="text/plain") as host:
        assert "/apis/v2beta1/healthz" in refusal(host)
    with answering(200, b'{"experiments": 7}', Content_Type="application/json") as host:
        assert "what answers is not Kubeflow's API" in refusal(host)


def test_a_certificate_of_the_plants_own_is_a_matter_of_a_file(tmp_path: object) -> None:
    with answering(200, b"{}") as host:
        said = refusal(host.replace("http:", "https:"))
    assert "SSL_CERT_FILE" in said


@pytest.mark.parametrize(
    ("host", "names"),
    [
        (None, "give --host or set KFP_HOST"),
        ("localhost:8888", "http://localhost:8888"),
        ("ftp://kubeflow", "expected an address"),
        ("http://", "expected an address"),
    ],
)
def test_a_host_that_is_none_is_wrong_use(host: str | None, names: str) -> None:
    with pytest.raises(BadInputError) as refused:
        Connection(host)
    assert names in str(refused.value)


@pytest.mark.parametrize("address", ["https://me:pa55@kubeflow.plant", "http://me:1/pa55@k", "http://k?token=pa55"])
def test_a_password_in_the_address_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(BadInputError) as refused:
        Connection(address)
    assert "KFP_TOKEN" in str(refused.value)
    assert "pa55" not in str(refused.value)


def test_making_a_connection_leaves_the_home_folder_alone(
    fake: FakeKubeflow, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Connection(fake.address)
    assert not list(tmp_path.iterdir())  # type: ignore[attr-defined]


def test_what_is_gone_is_a_kind_of_its_own(fake: FakeKubeflow) -> None:
    with pytest.raises(NotFoundError, match="Run nonesuch not found"):
        Kubeflow(Connection(fake.address)).run("nonesuch")
