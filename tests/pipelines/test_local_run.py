"""The whole training pipeline on this machine: real images, real tasks, the same figures as the verbs give."""

import json
import os
import re
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
LINE = "pv-mono"
VERBS = ("ingest", "validate", "split", "train", "calibrate", "evaluate")
ORDER = ("broken", LINE)  # the line that fails runs before the other
# One process runs them all: what tasks import is imported once.
RUNS = {
    "first": ["--lines", ",".join(ORDER)],
    "again": ["--lines", LINE],
    "calibrated": ["--lines", LINE, "--params", "changed.yaml"],
    "forced": ["--lines", LINE, "--params", "changed.yaml", "--force"],
}
CODE = """
import json, sys
from morphad.cli import main
for name, words in json.loads(sys.argv[1]).items():
    print(f"=== {name}", flush=True)
    print(f"ended with {main(['pipeline', 'run', *words, '--out', 'out'])}", flush=True)
"""

pytestmark = pytest.mark.slow


def python(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
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
    settings["defaults"]["calibrate"]["false_reject_rate"] = 0.25
    yaml.dump(settings, folder / "changed.yaml")
    return folder


@pytest.fixture(scope="module")
def runs(project: Path) -> dict[str, str]:
    """What each of the runs said, and its exit code."""
    done = python(project, "-c", CODE, json.dumps(RUNS))
    assert done.returncode == 0, done.stdout
    said = dict(part.split("\n", 1) for part in done.stdout.split("=== ")[1:])
    assert list(said) == list(RUNS)
    return said


def folder_of(project: Path, run: str, line: str = LINE) -> Path:
    """Where a run put what its steps for a line made."""
    folder = sorted((project / "out").glob("morphad-training-*"))[list(RUNS).index(run)]
    (found,) = folder.glob(f"*-iteration-{ORDER.index(line) if run == 'first' else 0}")
    return found


def steps(project: Path, run: str) -> set[str]:
    """The steps of a run that were done, not taken from an earlier run."""
    return {folder.name for folder in folder_of(project, run).iterdir()}


def test_a_line_ends_with_a_champion_although_one_fails(project: Path, runs: dict[str, str]) -> None:
    assert runs["first"].endswith("ended with 1\n"), runs["first"]
    registry = Registry(RegisterSettings(tracking_uri=f"sqlite:///{project / 'mlflow.db'}"))
    assert registry.champion(LINE) is not None
    assert registry.champion("broken") is None
    assert json.loads((folder_of(project, "first") / "promote" / "decision").read_text())["promote"]


def test_the_end_of_every_line_is_told(runs: dict[str, str]) -> None:
    assert "1 of 2 lines came to their end." in runs["first"]
    (row,) = {line.strip() for line in runs["first"].splitlines() if line.strip().startswith("| broken")}
    assert "**failed** | 2 | failed in ingest:" in row
    assert "no-such-folder" in row
    assert "morphad ingest broken: " in runs["first"]  # in the log of the task, in place of a traceback
    assert "Traceback" not in runs["first"]


def step_seconds(said: str) -> dict[str, float]:
    """How long each step of a run took, from when it said that it began and that it ended."""
    times: dict[str, list[float]] = {}
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    for hour, minute, second, step in re.findall(
        r"^(\d\d):(\d\d):(\d\d\.\d+) - INFO - (?:Executing task '|Task '(?=[^']+' finished))([^']+)'",
        plain,
        re.MULTILINE,
    ):
        times.setdefault(step, []).append(3600 * int(hour) + 60 * int(minute) + float(second))
    return {step: (ended - began) % 86_400 for step, (began, ended) in times.items()}


def test_a_run_with_nothing_new_trains_nothing_moves_no_picture_and_takes_seconds(
    project: Path, runs: dict[str, str]
) -> None:
    assert f"{LINE}: unchanged: version 1 stays" in runs["again"]
    assert f"{LINE}: 40 good and 40 defect images, 0 left out; 0 new, 0 changed, 0 gone" in runs["again"]
    decided = (folder_of(project, "first") / "promote" / "decision").stat().st_mtime
    pictures = [file for file in (project / "out" / "state" / LINE / "pictures").rglob("*") if file.is_file()]
    assert len(pictures) == 80
    assert max(file.stat().st_mtime for file in pictures) < decided
    seconds = step_seconds(runs["again"])
    assert set(seconds) == {"ingest", "validate", "split", "notify"}
    assert sum(seconds.values()) < 60  # 7 s on a slow machine with other work


def test_a_run_with_nothing_new_ends_after_split(project: Path, runs: dict[str, str]) -> None:
    assert runs["again"].endswith("ended with 0\n"), runs["again"]
    assert steps(project, "again") == {"ingest", "validate", "split"}
    assert f"| {LINE} | done | 0 | unchanged: version 1 stays |" in runs["again"]
    # The state is of the last run of all, which was forced; what the first one froze is there still.
    holdouts = {folder_of(project, run) / "split" / "roles" / "holdout.json" for run in ("first", "again", "forced")}
    assert len({path.read_bytes() for path in holdouts}) == 1


def test_a_changed_setting_does_again_what_it_concerns(project: Path, runs: dict[str, str]) -> None:
    assert runs["calibrated"].endswith("ended with 0\n"), runs["calibrated"]
    every = {*VERBS, "register", "promote"}
    assert steps(project, "calibrated") == every - {"train"}
    assert re.search(rf"\| {LINE} \| done \| [01] \| version 2 ", runs["calibrated"])


def test_a_run_can_be_forced_to_train(project: Path, runs: dict[str, str]) -> None:
    assert runs["forced"].endswith("ended with 0\n"), runs["forced"]
    assert steps(project, "forced") == {*VERBS, "register", "promote"}
    # The same seed and the same images make the same detector, which is version 2 already.
    assert re.search(rf"\| {LINE} \| done \| [01] \| version 2 ", runs["forced"])


def test_figures_equal_those_of_the_verbs(project: Path, runs: dict[str, str]) -> None:
    calls = [[verb, LINE] for verb in VERBS]
    code = f"from morphad.cli import main\nfor call in {calls}:\n    assert main(call) == 0, call"
    done = python(project, "-c", code)
    assert done.returncode == 0, done.stdout
    report = folder_of(project, "first") / "evaluate" / "report"
    for name in ("metrics.json", "roc.json", "predictions.csv"):
        assert (report / name).read_bytes() == (project / "reports" / LINE / name).read_bytes(), name


def test_figures_curves_and_page_are_typed_artifacts(project: Path, runs: dict[str, str]) -> None:
    evaluated, promoted = (folder_of(project, "first") / step for step in ("evaluate", "promote"))
    figures = json.loads((evaluated / "report" / "metrics.json").read_text())
    written = json.loads((evaluated / "executor_output.json").read_text())["artifacts"]
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
    assert "<html" in (evaluated / "page").read_text()
    assert "pv-mono: version 1 is champion" in (promoted / "reasons").read_text()


def test_an_unknown_line_is_named_before_anything_runs(project: Path) -> None:
    done = python(project, "-m", "morphad.cli", "pipeline", "run", "--lines", "pv-mono,nobody", "--out", "elsewhere")
    assert done.returncode == 2
    assert "'nobody'" in done.stdout
    assert not (project / "elsewhere").exists()
