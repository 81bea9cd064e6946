"""A run on this machine that is interrupted or loses a task: what is kept, what goes on, what is not done twice.

In processes; and in containers where MORPHAD_TEST_IMAGE names an image of this code, with the torch that is here.
"""

import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from ruamel.yaml import YAML

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from docker.client import DockerClient

from exhaustive import minutes_long
from morphad.cli import main
from morphad.registry import Registry
from morphad.settings import RegisterSettings
from tiny import TRAIN

REPO = Path(__file__).resolve().parents[2]
STEPS = 60
SLOW = {**TRAIN["optimiser"], "steps": STEPS, "batch_size": 16}
IMAGE = os.environ.get("MORPHAD_TEST_IMAGE", "") if os.environ.get("DOCKER_HOST") else ""
FIGURES = ("metrics.json", "roc.json", "predictions.csv")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def make_project(tmp_path_factory: pytest.TempPathFactory, make_set: Callable[..., Path]) -> Callable[[], Path]:
    def make() -> Path:
        folder = tmp_path_factory.mktemp("project")
        for code in ("components", "pipelines"):
            (folder / code).symlink_to(REPO / code)
        make_set(folder / "camera", good=60)
        line = {
            "ingest": {"path": "camera"},
            "train": {**TRAIN, "checkpoint_seconds": 0, "image_size": [48, 48], "optimiser": SLOW},
            "calibrate": {"false_reject_rate": 0.1},
            "evaluate": {"bootstrap": 100},
            "promote": {"bootstrap": 100, "min_auroc": 0.5},
        }
        YAML().dump({"seed": 3, "lines": {"weave": line, "twin": line}}, folder / "params.yaml")
        return folder

    return make


@pytest.fixture(scope="module")
def project(make_project: Callable[[], Path]) -> Path:
    return make_project()


class Run:
    """A run under way."""

    def __init__(self, project: Path, lines: str, runner: str = "subprocess") -> None:
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        self.runner, self.state = runner, project / runner / "state"
        self.log = project / f"{time.monotonic_ns()}.log"
        words = ["pipeline", "run", "--runner", runner, "--lines", lines, "--out", runner]
        with self.log.open("w") as stream:
            self.process = psutil.Popen(
                [sys.executable, "-m", "morphad.cli", *words],
                cwd=project, env=environment | {"MORPHAD_IMAGE": IMAGE}, stdout=stream, stderr=stream,
            )  # fmt: skip

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.send_signal(signal.SIGINT)
        self.process.wait()

    def await_(self, condition: Callable[[], Any]) -> Any:
        """What a condition gives, once that is true."""
        for _ in range(9000):
            if value := condition():
                return value
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError("waited 3 minutes for nothing")

    def task(self, step: str) -> Any:
        """The process or container of a step, once it is there."""
        return self.await_(lambda: self._container(step) if self.runner == "docker" else self._process(step))

    def _process(self, step: str) -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in self.process.children(recursive=True):
                if child.name() == step:
                    return child
        return None

    def _container(self, step: str) -> Any:
        found = DockerClient.from_env(timeout=300).containers.list(filters={"label": f"morphad.state={self.state}"})
        return next((container for container in found if container.attrs["Config"]["Cmd"][-1] == step), None)

    def end(self) -> tuple[int, str]:
        """Its exit code and all that it said."""
        return self.process.wait(), self.log.read_text()


def versions(project: Path) -> int:
    """How many model versions MLflow's file holds."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{project / 'mlflow.db'}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM model_versions").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0


@pytest.fixture(params=["subprocess", "docker"])
def runner(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        if not IMAGE:
            pytest.skip("MORPHAD_TEST_IMAGE names no image of this code, or DOCKER_HOST no engine")
        ask = ["python", "-c", "import torch; print(torch.__version__)"]
        there = DockerClient.from_env(timeout=300).containers.run(IMAGE, ask, remove=True).decode().strip()
        if there != torch.__version__:
            pytest.skip(f"{IMAGE} has torch {there}, here is {torch.__version__}: figures would not be equal")
    return str(request.param)


def test_killed_tasks_go_on_and_end_as_if_they_had_not_been_killed(
    make_project: Callable[[], Path], runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project()
    state = project / runner / "state" / "weave"
    with Run(project, "weave", runner) as run:
        training = run.task("train")
        run.await_((state / "checkpoint.safetensors").exists)
        training.kill()
        code, said = run.end()
    assert code == 1, said
    assert "| weave | **failed** |  | failed in train:" in said
    assert (state / "checkpoint.safetensors").exists()
    holdout = (state / "holdout.json").read_bytes()

    with Run(project, "weave", runner) as run:
        run.await_(lambda: versions(project))
        run.task("register").kill()
        code, said = run.end()
    assert code == 1, said
    assert "weave: went on from the checkpoint after step " in said
    assert "| weave | **failed** |  | failed in register:" in said
    assert not (state / "checkpoint.safetensors").exists()
    assert (state / "holdout.json").read_bytes() == holdout
    (resumed,) = (project / runner).glob("*/*-iteration-0/evaluate/report")
    assert versions(project) == 1

    # Done again, by the verbs and without interruption, it is the same detector: the version that is there is found.
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for verb in ("ingest", "validate", "split", "train", "calibrate", "evaluate", "register", "promote"):
        assert main([verb, "weave"]) == 0
    for name in FIGURES:
        assert (resumed / name).read_bytes() == (project / "reports" / "weave" / name).read_bytes(), name
    champion = Registry(RegisterSettings(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")).champion("weave")
    assert champion is not None
    assert champion.number == versions(project) == 1


@minutes_long
def test_an_interruption_ends_the_run_with_all_that_it_began(project: Path) -> None:
    with Run(project, "twin,weave") as run:
        first = run.task("ingest")
        began = time.monotonic()
        run.process.send_signal(signal.SIGINT)  # to the run alone, not to its tasks
        code, said = run.end()
    assert code == 130, said
    assert time.monotonic() - began < 10
    assert "interrupted" in said
    assert "Traceback" not in said
    psutil.wait_procs([first], timeout=5)
    assert not first.is_running() or first.status() == psutil.STATUS_ZOMBIE
    for line in ("twin", "weave"):  # the first step had begun, or not yet; no other has
        assert not (project / "subprocess" / "state" / line / "holdout.json").exists()


@minutes_long
def test_a_second_run_on_the_same_state_is_refused(project: Path) -> None:
    with Run(project, "twin") as run:
        run.task("ingest")
        with Run(project, "weave") as second:
            code, said = second.end()
    assert code == 2
    assert "another run is at work" in said
