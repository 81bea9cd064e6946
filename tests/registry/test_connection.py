"""An MLflow that is away, slow, strange, or asked for by a wrong address."""

import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from morphad.base.errors import BadInputError, OutageError, ServiceError
from morphad.registry import Registry
from morphad.registry.connection import Connection, masked
from morphad.settings import RegisterSettings


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def closed_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield int(server.getsockname()[1])


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """A server that answers everything with 401."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _failure(uri: str, **limits: int) -> tuple[ServiceError, float]:
    registry = Registry(RegisterSettings(tracking_uri=uri, **limits))
    start = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        registry.champion("a-line")
    return caught.value, time.monotonic() - start


def test_refused_connection_is_told_in_seconds(closed_port: int) -> None:
    error, seconds = _failure(f"http://127.0.0.1:{closed_port}")
    assert error.exit_code == 3
    assert f"http://127.0.0.1:{closed_port}" in str(error)
    assert "Connection refused" in str(error)
    assert "start the server or correct `register.tracking_uri`" in str(error)
    assert isinstance(error, OutageError)
    assert "\n" not in str(error)
    assert seconds < 15
    assert not list(Path.cwd().iterdir())


def test_server_that_never_answers_is_given_up(silent_port: int) -> None:
    error, seconds = _failure(f"http://127.0.0.1:{silent_port}", timeout_seconds=1, retries=1)
    assert "timed out" in str(error)
    assert isinstance(error, OutageError)
    assert seconds < 10


def test_long_limits_do_not_make_the_first_contact_long(monkeypatch: pytest.MonkeyPatch, silent_port: int) -> None:
    monkeypatch.setattr("morphad.registry.connection._CONTACT_TIMEOUT_SECONDS", 1)
    _, seconds = _failure(f"http://127.0.0.1:{silent_port}", timeout_seconds=600, retries=10)
    assert seconds < 15


def test_database_server_that_is_away_is_told_in_seconds(closed_port: int) -> None:
    error, seconds = _failure(f"postgresql+psycopg2://anna:s3cret@127.0.0.1:{closed_port}/mlflow")
    assert "Connection refused" in str(error)
    assert "s3cret" not in str(error)
    assert isinstance(error, OutageError)
    assert seconds < 5


def test_a_database_is_reached_by_the_driver_that_is_installed(closed_port: int) -> None:
    host = f"postgresql://anna:s3cret@127.0.0.1:{closed_port}/mlflow"
    assert Registry(RegisterSettings(tracking_uri=host))._connection.uri == host.replace("://", "+psycopg2://", 1)
    # In this form SQLAlchemy itself finds host and port, and MLflow would try for 100 s.
    error, seconds = _failure(f"postgresql:///mlflow?host=127.0.0.1&port={closed_port}&user=anna&password=s3cret")
    assert "Connection refused" in str(error)
    assert "s3cret" not in str(error)
    assert seconds < 5


@pytest.mark.parametrize(
    "uri", ["mssql+pyodbc:///?odbc_connect=UID%3Danna%3BPWD%3Ds3cret", "postgresql+pg8000://anna:s3cret@h/mlflow"]
)
def test_a_database_whose_driver_is_not_there_is_told(uri: str) -> None:
    with pytest.raises(BadInputError, match=r"pip install (pyodbc|pg8000)") as caught:
        Registry(RegisterSettings(tracking_uri=uri))
    assert "s3cret" not in str(caught.value)


def test_refused_login_asks_for_credentials(refusing_server: str) -> None:
    error, _ = _failure(refusing_server)
    assert "MLFLOW_TRACKING_USERNAME" in str(error)
    assert not isinstance(error, OutageError)  # waiting does not help


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///file:a.db?uri=true",
        "./mlruns",
        "file:///tmp/mlruns",
        "ftp://host/x",
        "databricks",
        "http://",
        "http://h:port",
        "sqlite://",
        "",
    ],
)
def test_address_that_mlflow_cannot_use_is_bad_input(uri: str) -> None:
    with pytest.raises(BadInputError, match=r"register\.tracking_uri"):
        Registry(RegisterSettings(tracking_uri=uri))


def test_credentials_are_masked() -> None:
    registry = Registry(RegisterSettings(tracking_uri="https://anna:s3cret@mlflow.plant.example/x"))
    assert registry.uri == "https://***@mlflow.plant.example/x"
    assert masked("to 'postgresql://h/d?user=a&password=s3cret'") == "to 'postgresql://h/d?user=a&password=***'"


@pytest.mark.parametrize(
    "uri",
    [
        "http://anna:hush/hush@mlflow.plant",
        "http://anna:12/hush@mlflow.plant",
        "http://anna:hu[sh@mlflow.plant",
        "postgresql://anna:hu@sh@mlflow.plant/mlflow",
        "postgresql://anna:hush@sh:1@mlflow.plant/mlflow",
    ],
)
def test_a_password_that_would_be_taken_for_the_host_is_refused_with_a_remedy(uri: str) -> None:
    with pytest.raises(
        BadInputError, match=r"\*\*\*@mlflow\.plant.*write / as %2F.*MLFLOW_TRACKING_PASSWORD"
    ) as caught:
        Registry(RegisterSettings(tracking_uri=uri))
    assert "hu" not in str(caught.value)
    assert "anna" not in str(caught.value)


def test_credentials_are_masked_in_failures(closed_port: int) -> None:
    error, _ = _failure(f"http://anna:s3cret@127.0.0.1:{closed_port}", retries=0)
    assert "s3cret" not in str(error)
    assert error.__cause__ is None


def test_environment_wins_and_stays_as_it_was(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ)
    registry = Registry(RegisterSettings(tracking_uri="http://192.0.2.1"))
    assert registry.champion("nobody") is None
    assert dict(os.environ) == before
    assert not list(tmp_path.iterdir())


def test_relative_file_is_that_of_the_folder_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(RegisterSettings(tracking_uri="sqlite:///my runs.db"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert registry.uri == f"sqlite:///{tmp_path / 'my runs.db'}"


def test_new_database_is_made_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Connection(RegisterSettings()).session(make=True) as client:
        assert client.search_registered_models() == []
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_model_that_was_pickled_is_refused(
    store: Path, pickled: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    model, ran = pickled
    connection = Connection(RegisterSettings(tracking_uri=f"sqlite:///{store / 'mlflow.db'}"))
    with pytest.raises(ServiceError, match="Deserializing model using pickle is disallowed"), connection.session():
        mlflow.pyfunc.load_model(str(model))
    assert not ran.exists()
    mlflow.pyfunc.load_model(str(model))  # elsewhere, what the environment says holds
    assert ran.exists()
