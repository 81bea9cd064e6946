"""A project in git as its users treat it: a first run that fails, an experiment aside, a registry that is lost.

Its line inspects a region of its pictures, and sees it in tiles, too.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from ruamel.yaml import YAML

from exhaustive import minutes_long
from morphad.model.detector import Detector
from morphad.registry import Registry
from morphad.settings import RegisterSettings
from tiny import TRAIN

REPO = Path(__file__).resolve().parents[2]
SIDE = 96
REGION = {"size": [SIDE, SIDE], "inspect": [[[0, 0], [95, 63]]]}  # the upper two thirds

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
            "lines": {
                "weave": {
                    "ingest": {"source": "folder", "path": str(images)},
                    "train": {"region": REGION, "resolution": {"smallest_defect": 8}},
                }
            },
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
    project = Project(folder / "project", make_set(folder / "images", side=SIDE))
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


def test_the_version_in_service_sees_the_region_alone_and_its_small_defects_in_tiles(
    project: Project, tmp_path: Path
) -> None:
    with Image.open(project.root / "data/weave/images/test/good/000.png") as picture:
        good = np.asarray(picture)
    asked = tmp_path / "asked"
    asked.mkdir()

    def spotted(row: int, column: int) -> NDArray[np.uint8]:
        return np.where(_disc(row, column), np.uint8(255), good)

    # Neither is near the middle of a place of the map of the whole, which are 16 x 24 px: (8 + 16 i, 12 + 24 j).
    spots = {"a": (16, 24), "b": (32, 48), "c": (48, 72)}
    outside = good.copy()
    outside[64:] = np.random.default_rng(0).integers(0, 256, (SIDE - 64, SIDE))
    pictures = {"good": good, "outside": outside} | {name: spotted(*spot) for name, spot in spots.items()}
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(asked / f"{name}.png")
    said = project.run("morphad", "predict", "weave", str(asked))
    rows = {Path(row.split("\t")[3]).stem: row.split("\t")[:3] for row in said.splitlines() if row.endswith(".png")}
    assert rows["outside"] == rows["good"]
    registry = Registry(RegisterSettings(tracking_uri=f"sqlite:///{project.root / 'mlflow.db'}"))
    version = registry.download_model(registry.serving("weave"), tmp_path / "fetched")
    detector = Detector.load(version / "artifacts" / "detector")
    for name, spot in spots.items():
        assert float(rows[name][2]) > float(rows["good"][2])
        (found,) = detector.predict([pictures[name]])
        assert f"{found.score:.4f}" == rows[name][2]
        hottest = np.unravel_index(found.heatmap.argmax(), found.heatmap.shape)
        np.testing.assert_allclose(hottest, spot, atol=5)


def test_figures_count_within_the_region_alone(project: Project) -> None:
    figures = json.loads((project.root / "reports/weave/metrics.json").read_text())
    masks = [np.asarray(Image.open(file)) > 0 for file in (project.root / "data/weave/images/masks").rglob("*.png")]
    outside = sum(not mask[:64].any() for mask in masks)
    assert 0 < outside < len(masks)
    assert figures["region"] == {"inspected": 64 / SIDE, "box": [64, SIDE], "masks_outside": outside}
    assert figures["n_masks"] == len(masks) - outside
    page = (project.root / "reports/weave/index.html").read_text()
    assert "The box around the region, 64 x 96 px, is seen whole at 32 x 32 px" in page
    assert "It is also seen in 1 tile cut from it at 64 x 96 px" in page


def _disc(row: int, column: int) -> NDArray[np.bool_]:
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.asarray((y - row) ** 2 + (x - column) ** 2 <= 16)


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
