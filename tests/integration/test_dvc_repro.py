"""The local pipeline as a user runs it: `dvc repro` for two lines on a small part of the real demonstration images."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tiny import TRAIN

REPO = Path(__file__).resolve().parents[2]
STEPS = ("settings", "ingest", "validate", "split", "train", "calibrate", "evaluate", "register", "promote")
LINES = ("pv-mono", "pv-poly")
LOOKS = [
    f"{step}@{line}" for step in ("settings", "ingest", "register") for line in LINES
]  # whatever else there is to do

pytestmark = pytest.mark.slow


def dvc(project: Path, *arguments: str) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def change(project: Path, line: str, section: str, **values: object) -> None:
    yaml = YAML()
    settings = yaml.load(project / "params.yaml")
    settings["lines"][line].setdefault(section, {}).update(values)
    yaml.dump(settings, project / "params.yaml")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip(
        "elpv_dataset", reason="the demonstration images are not installed: pip install 'morphad[demo]'"
    )
    folder = tmp_path_factory.mktemp("project")
    dvc(folder, "init", "--no-scm", "--quiet")
    shutil.copy(REPO / "dvc.yaml", folder)
    shutil.copytree(REPO / ".dvc" / "plots", folder / ".dvc" / "plots", dirs_exist_ok=True)
    yaml = YAML()
    settings = yaml.load(REPO / "params.yaml")
    settings["defaults"]["ingest"]["limit"] = 60
    settings["defaults"]["train"] = dict(TRAIN)
    settings["defaults"]["calibrate"]["false_reject_rate"] = 0.2
    settings["defaults"]["promote"]["min_auroc"] = 0.5
    yaml.dump(settings, folder / "params.yaml")
    return folder


@pytest.fixture(scope="module")
def first_run(project: Path) -> list[str]:
    return ran(dvc(project, "repro"))


def test_every_step_of_every_line_runs_and_each_line_has_a_champion_and_a_page(
    project: Path, first_run: list[str]
) -> None:
    assert sorted(first_run) == sorted(f"{step}@{line}" for step in STEPS for line in LINES)
    for line in LINES:
        metrics = json.loads((project / "reports" / line / "metrics.json").read_text())
        assert metrics["image_auroc"] > 0.6  # far from chance although hardly trained, on 32 x 32 px
        assert "<html" in (project / "reports" / line / "index.html").read_text()
        decision = json.loads((project / "models" / line / "decision.json").read_text())
        assert decision["promote"], decision["reasons"]


def test_nothing_runs_twice(project: Path, first_run: list[str]) -> None:
    started = time.monotonic()
    output = dvc(project, "repro")
    # Ingest looks whether something came, register whether it is still there.
    assert sorted(ran(output)) == sorted(LOOKS)
    assert output.count("0 new, 0 changed, 0 gone") == 2
    seconds = [float(taken) for taken in re.findall(r" \((\d+\.\d) s\)$", output, re.MULTILINE)]
    assert len(seconds) == 4  # of ingest and register, of two lines
    assert sum(seconds) < 60
    assert time.monotonic() - started < 120  # 20 s on a quiet machine


def test_the_champion_serves_in_a_fresh_process(project: Path, first_run: list[str], tmp_path: Path) -> None:
    script = (
        "import sys, glob, mlflow, pandas as pd\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model('models:/morphad-pv-mono@champion')\n"
        "files = sorted(glob.glob(sys.argv[2] + '/data/pv-mono/images/**/*.png', recursive=True))[:3]\n"
        "rows = model.predict(pd.DataFrame({'image': [open(file, 'rb').read() for file in files]}))\n"
        "assert list(rows.columns) == ['score', 'rejected', 'p_value', 'threshold'], rows.columns\n"
        "assert len(rows) == 3 and rows['p_value'].between(0, 1).all()\n"
    )
    uri = f"sqlite:///{project / 'mlflow.db'}"
    done = subprocess.run(
        [sys.executable, "-c", script, uri, str(project)], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_metrics_and_plots_show_something_useful(project: Path, first_run: list[str]) -> None:
    shown = dvc(project, "metrics", "show")
    assert "image_auroc" in shown
    assert all(line in shown for line in LINES)
    dvc(project, "plots", "show")
    page = (project / "dvc_plots" / "index.html").read_text()
    assert all(f"ROC {line}" in page for line in LINES)


def test_one_lines_threshold_rate_reruns_only_that_lines_calibration_and_after(
    project: Path, first_run: list[str]
) -> None:
    change(project, "pv-poly", "calibrate", false_reject_rate=0.25)
    output = dvc(project, "repro")
    # validate says whether the images can carry the rate, and knows the champion by now; the split stays as it is.
    expected = [*LOOKS, *(f"{step}@pv-poly" for step in ("validate", "split", "calibrate", "evaluate", "promote"))]
    assert sorted(ran(output)) == sorted(expected)


def test_an_unknown_value_stops_the_run_with_its_name(project: Path, first_run: list[str]) -> None:
    change(project, "pv-poly", "calibrate", false_reject_rate=2)
    done = subprocess.run(
        [sys.executable, "-m", "morphad.cli", "calibrate", "pv-poly"],
        cwd=project,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert "lines.pv-poly.calibrate.false_reject_rate = 2" in done.stderr
    assert "Traceback" not in done.stderr
    change(project, "pv-poly", "calibrate", false_reject_rate=0.25)
