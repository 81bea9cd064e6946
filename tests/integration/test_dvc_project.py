"""A project in git as its users treat it: a first run that fails, an experiment aside, a registry that is lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from exhaustive import minutes_long
from tiny import TRAIN

REPO = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


class Project:
    """A folder in git with DVC, and one line of drawn images."""

    def __init__(self, root: Path, images: Path) -> None:
        self.root = root
        root.mkdir()
        self.run("git", "init", "--quiet")
        for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
            shutil.copy(REPO / name, root)
        (root / ".dvc").mkdir()
        for name in (".gitignore", "config"):
            shutil.copy(REPO / ".dvc" / name, root / ".dvc")
        self.settings = {
            "seed": 0,
            "defaults": {
                "validate": {"min_good": 100_000},
                "train": TRAIN,
                "calibrate": {"false_reject_rate": 0.2},
                "evaluate": {"bootstrap": 100},
                "promote": {"bootstrap": 100, "min_auroc": 0},
            }
            | {section: {} for section in ("ingest", "split", "register")},
            "lines": {"weave": {"ingest": {"source": "folder", "path": str(images)}}},
        }
        self.set("validate", "min_good", 100_000)

    def set(self, section: str, key: str, value: object) -> None:
        self.settings["defaults"][section][key] = value  # type: ignore[index]
        YAML().dump(self.settings, self.root / "params.yaml")

    def run(self, *command: str, code: int = 0) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
        }
        done = subprocess.run(command, cwd=self.root, env=environment, text=True, capture_output=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def commit(self) -> list[str]:
        """Commit all that git takes; the files that it has then."""
        self.run("git", "add", "--all")
        anna = ("-c", "user.name=anna", "-c", "user.email=anna@example.org")
        self.run("git", *anna, "commit", "-q", "--allow-empty", "-m", "-")
        return self.run("git", "ls-files").split()

    def summary(self) -> str:
        return self.run("morphad", "summary")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, make_set: Callable[..., Path]) -> Project:
    """After a first run that failed, was committed, was mended, and went well."""
    folder = tmp_path_factory.mktemp("plant")
    project = Project(folder / "project", make_set(folder / "images"))
    assert "the data breaks its contract" in project.run("dvc", "repro", code=255)
    assert not [path for path in project.commit() if path.startswith(("data/", "reports/", "models/"))]
    project.set("validate", "min_good", 20)
    project.run("dvc", "repro")
    return project


def test_a_first_run_that_failed_leaves_nothing_to_git_that_dvc_keeps(project: Project) -> None:
    files = project.commit()
    assert [path for path in files if path.startswith(("data/", "reports/", "models/"))] == ["data/weave/holdout.json"]
    assert "dvc.lock" in files
    assert "mlflow.db" not in files


@minutes_long
def test_an_experiment_aside_changes_no_version_until_it_is_taken_in(project: Project) -> None:
    project.commit()
    before = project.run("morphad", "history", "weave")
    told = project.run(
        "dvc", "exp", "run", "--temp", "--name", "tried", "-S", "defaults.calibrate.false_reject_rate=0.3"
    )
    assert "weave: not registered: experiment tried ran aside" in told
    assert project.run("morphad", "history", "weave") == before
    project.run("dvc", "exp", "apply", "tried")
    told = project.summary()
    assert "Not decided: experiment tried ran aside" in told
    assert "Version 1 is champion now." in told
    project.run("dvc", "repro")
    assert json.loads((project.root / "models/weave/registration.json").read_text())["version"] == 2
    assert "Version 2" in project.summary()


@minutes_long
def test_a_registry_that_is_lost_comes_back_with_the_next_run(project: Project) -> None:
    (project.root / "mlflow.db").unlink()
    shutil.rmtree(project.root / "mlartifacts")
    picture = str(next((project.root / "data/weave/images").rglob("*.png")))
    assert "there is no registry at sqlite:" in project.run("morphad", "predict", "weave", picture, code=2)
    assert "there is no registry at sqlite:" in project.summary()
    assert not (project.root / "mlflow.db").exists()
    project.run("dvc", "repro")
    assert picture in project.run("morphad", "predict", "weave", picture)
    assert "Version 1 is champion." in project.summary()
