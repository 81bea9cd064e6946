"""morphad against MLflow with PostgreSQL and S3 behind it, through crashes of all three."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ruamel.yaml import YAML

from exhaustive import minutes_long
from morphad.cli import main
from morphad.registry import Registry, detector_hash
from morphad.settings import RegisterSettings
from morphad.steps.paths import LinePaths
from stack.__main__ import main as stack_main
from stack.stack import Stack
from stack.tracking import BUCKET
from tiny import TRAIN

LINE = "weave"
SETTINGS: dict[str, Any] = {
    "ingest": {"path": "camera"},
    "train": TRAIN,
    "calibrate": {"false_reject_rate": 0.2},
    "evaluate": {"bootstrap": 100},
    "register": {"timeout_seconds": 20, "retries": 1},
    "promote": {"bootstrap": 100, "min_auroc": 0.5},
}


def _run(*verbs: str) -> list[int]:
    return [main([verb, LINE]) for verb in verbs]


def _objects(stack: Stack) -> list[str]:
    pages = stack.store.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


@pytest.fixture(scope="module")
def project(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory, make_set: Callable[..., Path]
) -> Iterator[LinePaths]:
    """A line on its way to a champion, as a client that knows MLflow's address and nothing of S3."""
    root = tmp_path_factory.mktemp("project")
    make_set(root / "camera")
    YAML().dump({"lines": {LINE: SETTINGS}}, root / "params.yaml")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(root):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            patch.setenv(name, stack.environment[name])
        assert boto3.Session().get_credentials() is None
        verbs = ("ingest", "validate", "split", "train", "calibrate", "evaluate", "register", "promote")
        assert _run(*verbs) == [0] * len(verbs)
        yield LinePaths.checkout(root, LINE)


@pytest.fixture
def registry(project: LinePaths) -> Registry:
    return Registry(RegisterSettings(timeout_seconds=20, retries=1))


def test_champion_is_in_postgresql_and_its_files_in_the_bucket(
    stack: Stack, project: LinePaths, registry: Registry, tmp_path: Path
) -> None:
    champion = registry.champion(LINE)
    assert champion is not None
    assert detector_hash(registry.download(champion, tmp_path / "champion")) == detector_hash(project.detector)
    assert "/presigned/" not in stack.tracking.log.read_text()  # which would lead the client to S3
    keys = _objects(stack)
    for end in ("/detector/network.safetensors", "/report/index.html"):
        assert [key for key in keys if key.endswith(end)], keys
    with contextlib.closing(stack.database._connect("mlflow")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version FROM model_versions WHERE name = %s", (f"morphad-{LINE}",))
        assert cursor.fetchall() == [(1,)]


LOAD_TWICE = """
import os, pathlib, sys, mlflow
for setting in ({"MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false"}, {}):
    os.environ.pop("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", None)
    os.environ.update(setting)
    mlflow.pyfunc.load_model(sys.argv[1])
    print("/presigned/" in pathlib.Path(sys.argv[2]).read_text())
"""


@minutes_long
def test_plain_mlflow_loads_the_champion_through_the_server_if_it_is_told_to(stack: Stack, project: LinePaths) -> None:
    """What the README says of services: left to itself, MLflow's client goes to S3 under the server's name for it."""
    words = [sys.executable, "-P", "-c", LOAD_TWICE, f"models:/morphad-{LINE}@champion", str(stack.tracking.log)]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(words, env=environment, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["False", "True"]), done.stderr


def test_up_again_says_that_it_runs_and_changes_nothing(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    kept = stack.environment_file.read_text()
    before = [server.processes()[0].pid for server in stack.servers]
    up = ["up", "--folder", str(stack.folder)]
    assert stack_main(up) == 0
    assert capsys.readouterr().out.count("already running") == 3
    assert stack_main([*up, "--mlflow-port", "0"]) == 3
    assert "mlflow: it is running with other settings, such as another port; stop it" in capsys.readouterr().err
    assert [server.processes()[0].pid for server in stack.servers] == before
    assert stack.environment_file.read_text() == kept
    secret = [stack.environment_file, stack.folder / "env.admin", stack.folder / "settings.json"]
    for path in [*secret, stack.folder / "mlflow" / "basic_auth.ini"]:
        assert path.stat().st_mode & 0o777 == 0o600


@minutes_long
def test_crash_while_a_model_is_registered(
    stack: Stack, project: LinePaths, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow is killed in the middle of it, then the S3 server too; started again, the same command ends it."""
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("false_reject_rate: 0.2", "false_reject_rate: 0.1"))
    assert _run("calibrate", "evaluate") == [0, 0]
    before = len(_objects(stack))

    def kill() -> None:
        deadline = time.monotonic() + 60
        while len(_objects(stack)) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        stack.tracking.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    capsys.readouterr()
    assert _run("register") == [3]
    killer.join()
    assert stack.tracking.endpoint in capsys.readouterr().err
    assert len(_objects(stack)) >= before + 2  # it had begun
    stack.store.kill()

    folder = ["--folder", str(stack.folder)]
    assert stack_main(["status", *folder]) == 1
    assert "postgres: running" in capsys.readouterr().out
    assert stack_main(["down", *folder]) == 0
    assert capsys.readouterr().out == "mlflow: was not running\npostgres: stopped\ns3: was not running\n"
    assert stack_main(["up", *folder]) == 0
    assert capsys.readouterr().out.count("started in") == 3

    assert _run("register", "register", "promote") == [0, 0, 0]
    champion = registry.champion(LINE)
    assert champion is not None
    assert champion.number == len(registry.history(LINE)) == 2
    assert detector_hash(registry.download(champion, tmp_path / "champion")) == detector_hash(project.detector)
