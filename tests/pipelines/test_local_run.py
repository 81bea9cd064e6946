"""The whole training pipeline on this machine: real images, real tasks, the same figures as the verbs give."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")
pytest.importorskip("elpv_dataset", reason="the demonstration images are not installed: pip install 'morphad[demo]'")

from morphad.registry import Registry
from morphad.settings import RegisterSettings
from tiny import hardly_trained

REPO = Path(__file__).resolve().parents[2]
LINES = ("pv-mono", "pv-poly")
VERBS = ("ingest", "validate", "split", "train", "calibrate", "evaluate")
# The line that fails runs between the two others.
ORDER = ("pv-mono", "broken", "pv-poly")

pytestmark = pytest.mark.slow


def morphad(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, "-m", "morphad.cli", *arguments],
        cwd=project, env=environment, text=True, capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for code in ("components", "pipelines"):
        (folder / code).symlink_to(REPO / code)
    yaml = YAML()
    settings = hardly_trained(yaml.load(REPO / "params.yaml"))
    settings["seed"] = 5
    settings["lines"]["broken"] = {"ingest": {"source": "folder", "path": "no-such-folder"}}
    yaml.dump(settings, folder / "params.yaml")
    return folder


@pytest.fixture(scope="module")
def first_run(project: Path) -> "subprocess.CompletedProcess[str]":
    return morphad(project, "pipeline", "run", "--runner", "subprocess", "--lines", ",".join(ORDER), "--out", "out")


def artifact(project: Path, line: str, step: str, name: str) -> Path:
    """Where the first run, of all lines, put an artifact."""
    run = sorted((project / "out").glob("morphad-training-*"))[0]
    (found,) = run.glob(f"*-iteration-{ORDER.index(line)}/{step}/{name}")
    return found


def test_lines_end_with_a_champion_although_one_fails(
    project: Path, first_run: "subprocess.CompletedProcess[str]"
) -> None:
    assert first_run.returncode == 1, first_run.stdout + first_run.stderr
    registry = Registry(RegisterSettings(tracking_uri=f"sqlite:///{project / 'mlflow.db'}"))
    for line in LINES:
        champion = registry.champion(line)
        assert champion is not None
        assert json.loads(artifact(project, line, "promote", "decision").read_text())["promote"]
    assert registry.champion("broken") is None


def test_the_end_of_every_line_is_told(project: Path, first_run: "subprocess.CompletedProcess[str]") -> None:
    assert "2 of 3 lines came to their end." in first_run.stdout
    (row,) = {line.strip() for line in first_run.stdout.splitlines() if line.strip().startswith("| broken")}
    assert "**failed** | failed in ingest:" in row
    assert "no-such-folder" in row
    assert "morphad ingest broken: " in first_run.stdout  # in the log of the task, in place of a traceback
    assert "Traceback" not in first_run.stdout + first_run.stderr


def test_figures_equal_those_of_the_verbs(project: Path, first_run: "subprocess.CompletedProcess[str]") -> None:
    calls = [[verb, line] for line in LINES for verb in VERBS]
    code = f"from morphad.cli import main\nfor call in {calls}:\n    assert main(call) == 0, call"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in LINES:
        report = artifact(project, line, "evaluate", "report")
        for name in ("metrics.json", "roc.json", "predictions.csv"):
            assert (report / name).read_bytes() == (project / "reports" / line / name).read_bytes(), (line, name)


def test_figures_curves_and_page_are_typed_artifacts(
    project: Path, first_run: "subprocess.CompletedProcess[str]"
) -> None:
    figures = json.loads((artifact(project, "pv-mono", "evaluate", "report") / "metrics.json").read_text())
    written = json.loads(artifact(project, "pv-mono", "evaluate", "executor_output.json").read_text())["artifacts"]
    metrics, curves = (written[name]["artifacts"][0]["metadata"] for name in ("metrics", "curves"))
    assert metrics["image_auroc"] == figures["image_auroc"]
    good, defect = (row["row"] for row in curves["confusionMatrix"]["rows"])
    assert sum(good) == figures["n_good"]
    assert sum(defect) == figures["n_defect"]
    assert good[1] == figures["overkill"]["count"]
    assert defect[0] == figures["escape"]["count"]
    corners = [(point["falsePositiveRate"], point["recall"]) for point in curves["confidenceMetrics"]]
    assert corners[0] == (0, 0)
    assert corners[-1] == (1, 1)
    thresholds = [point["confidenceThreshold"] for point in curves["confidenceMetrics"]]
    assert thresholds == sorted(thresholds, reverse=True)
    assert "<html" in artifact(project, "pv-mono", "evaluate", "page").read_text()
    assert "pv-mono: version 1 is champion" in artifact(project, "pv-mono", "promote", "reasons").read_text()


def test_an_unknown_line_is_named_before_anything_runs(project: Path) -> None:
    done = morphad(project, "pipeline", "run", "--lines", "pv-mono,nobody", "--out", "elsewhere")
    assert done.returncode == 2
    assert "'nobody'" in done.stderr
    assert not (project / "elsewhere").exists()
