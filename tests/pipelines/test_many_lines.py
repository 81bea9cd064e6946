"""A plant of a thousand lines: what is compiled knows none of them, and what is sent to Kubeflow stays small."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from fake_kubeflow import FakeKubeflow

from morphad.cli import main
from morphad.kubeflow import lines
from morphad.kubeflow.lines import check_size, line_items
from morphad.settings import LineSettings, ProjectSettings
from morphad.settings.line_json import line_to_json
from morphad.settings.reading import load_settings

REPO = Path(__file__).resolve().parents[2]
MOST = 150_000  # bytes of a recurring run
NAMES = [f"line-{number:04}" for number in range(1000)]

Command = Callable[..., tuple[int, str]]


# As a plant writes them: a bucket, fields in the paths, a smaller image, limits of its own.
METADATA = {
    "pattern": r"(?P<lot>L\d+)/(?P<shift>[ABC])/(?P<camera>cam\d)/(?P<label>OK|NOK)/",
    "labels": {"OK": "good", "NOK": "defect"},
}
DEFAULTS = {
    "ingest": {"source": "s3", "metadata": METADATA, "max_rejects": 5},
    "train": {"image_size": [256, 320], "optimiser": {"steps": 400, "batch_size": 16}},
    "calibrate": {"false_reject_rate": 0.01},
    "promote": {"min_auroc": 0.9, "max_escape": 0.1},
    "register": {"tracking_uri": "https://mlflow.plant.example"},
}


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plant") / "params.yaml"
    plant = {name: {"ingest": {"path": f"s3://plant-images/{name}/"}} for name in NAMES}
    path.write_text(json.dumps({"seed": 7, "defaults": DEFAULTS, "lines": plant}))  # JSON is YAML
    return path


@pytest.fixture(scope="module")
def project(params: Path) -> ProjectSettings:
    return load_settings(params)


def test_every_line_of_a_thousand_is_a_small_parameter(project: ProjectSettings) -> None:
    sizes = [len(json.dumps(item)) for item in line_items(project)]
    assert len(sizes) == 1000
    assert max(sizes) < 1200


def test_a_recurring_run_is_small_whatever_the_plant_s_size(
    params: Path, command: Command, fake: FakeKubeflow, compiled: Path, tmp_path: Path
) -> None:
    schedules = {
        "forty": {"lines": NAMES[:40], "cron": "0 0 2 * * *"},
        **{f"of-{name}": {"lines": name, "cron": "0 0 3 * * *"} for name in NAMES[40:45]},
    }
    (tmp_path / "schedules.yaml").write_text(json.dumps({"owner": "plant", "schedules": schedules}))
    assert command("pipeline", "upload")[0] == 0
    code, said = command("schedule", "apply", "--params", params, "--schedules", tmp_path / "schedules.yaml")
    assert code == 0, said
    sent = [len(json.dumps(run).encode()) for run in fake.recurring_runs.values()]
    assert len(sent) == 45
    # Kubeflow keeps the pipeline with it.
    assert max(sent) + compiled.stat().st_size < MOST
    assert max(sent) < 4000


@pytest.mark.parametrize(
    "words",
    [("schedule", "plan"), ("schedule", "apply"), ("pipeline", "submit"), ("pipeline", "submit", "--together")],
)
def test_what_kubeflow_could_not_store_is_refused_before_anything_is_sent(
    words: tuple[str, ...], params: Path, command: Command, fake: FakeKubeflow, tmp_path: Path
) -> None:
    schedules = {"owner": "plant", "schedules": {"nightly": {"lines": "all", "cron": "0 0 2 * * *"}}}
    (tmp_path / "schedules.yaml").write_text(json.dumps(schedules))
    further = ["--schedules", tmp_path / "schedules.yaml"] if words[0] == "schedule" else []
    if words[-1] != "--together":
        large = {"source": "s3", "path": "s3://plant/", "metadata": {"pattern": f"(?P<lot>{'L' * 120_000})"}}
        params = tmp_path / "params.yaml"
        params.write_text(json.dumps({"lines": {"big": {"ingest": large}}}))
    code, said = command(*words, "--params", params, *further)
    assert code == 2
    assert "KB (1 line with " in said or "KB (1000 lines with " in said
    assert "and Kubeflow stores 100 KB; " in said
    remedy = "split it into lines" if words[0] == "schedule" else "give fewer lines"
    assert remedy in said
    assert fake.requests == []


def test_what_fits_is_let_through() -> None:
    check_size("the run", {"lines": [{"line": "a", "settings_json": "x" * 90_000}]}, "")


def test_a_changed_params_yaml_makes_no_compiled_pipeline_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MORPHAD_IMAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipelines").symlink_to(REPO / "pipelines")
    (tmp_path / "params.yaml").write_text("seed: 3\nlines: none yet")  # it is not even read
    assert main(["pipeline", "compile", "--check"]) == 0, capsys.readouterr().err


def test_the_settings_of_a_line_are_made_into_a_parameter_once(
    params: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[LineSettings] = []

    def counted(settings: LineSettings) -> str:
        made.append(settings)
        return line_to_json(settings)

    monkeypatch.setattr(lines, "line_to_json", counted)
    schedules = {
        "nightly": {"lines": NAMES[:5], "cron": "0 0 2 * * *"},
        "paused": {"lines": NAMES[:5], "cron": "0 0 3 * * *", "enabled": False},
    }
    (tmp_path / "schedules.yaml").write_text(json.dumps({"owner": "plant", "schedules": schedules}))
    assert command("pipeline", "upload")[0] == 0
    code, said = command("schedule", "apply", "--params", params, "--schedules", tmp_path / "schedules.yaml")
    assert (code, "10 recurring runs follow" in said) == (0, True)
    assert len(made) == 5
