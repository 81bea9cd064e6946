"""docker/mlflow_server.py: how the container leads MLflow to its accounts."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest
from mlflow.server.auth.config import read_auth_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def entry() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mlflow_server", ROOT / "docker" / "mlflow_server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    values = {
        "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg2://mlflow:p%40ss@postgres:5432/mlflow",
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow/artifacts",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "a" * 40,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "b" * 40,
    }
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    # What the entry sets is taken back with these.
    for name in ("MLFLOW_AUTH_CONFIG_PATH", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return values


def test_accounts_lie_with_the_records_and_the_rules_are_asked(entry: ModuleType, given: dict[str, str]) -> None:
    entry.set_accounts()
    path = Path(os.environ["MLFLOW_AUTH_CONFIG_PATH"])
    assert path.stat().st_mode & 0o777 == 0o600
    read = read_auth_config()
    assert read.database_uri == given["MLFLOW_BACKEND_STORE_URI"]
    assert read.default_permission == "READ"
    assert read.authorization_function == "mlflow_access:authenticate"
    assert read.auth_cache_ttl_seconds == 60
    assert read.admin_password == "a" * 40
    assert "a" * 40 not in path.read_text()


def test_secrets_of_webhooks_outlive_a_restart(entry: ModuleType, given: dict[str, str]) -> None:
    from cryptography.fernet import Fernet

    entry.set_accounts()
    first = os.environ.pop("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY")
    entry.set_accounts()
    assert Fernet(os.environ["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"]).decrypt(Fernet(first).encrypt(b"x")) == b"x"


@pytest.mark.parametrize("name", ["MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"])
def test_without_secrets_it_does_not_start(
    entry: ModuleType, given: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(SystemExit, match=f"mlflow-server: {name} not set in the environment"):
        entry.main()
