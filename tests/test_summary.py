"""The words at the end: what came of every line, and what to do next."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from morphad.errors import BadInputError
from morphad.params import resolve
from morphad.settings import ProjectSettings
from morphad.summary import summarise
from morphad.workspace import Workspace


def project(*names: str) -> ProjectSettings:
    return resolve(
        {
            "defaults": {"register": {"tracking_uri": "http://mlflow.plant:5000"}},
            "lines": {name: {"ingest": {"path": "x"}} for name in names},
        }
    )


@pytest.fixture
def metrics(tiny_detector: Path) -> dict[str, Any]:
    """Figures as `morphad evaluate` writes them."""
    from morphad.decision.metrics import evaluate
    from morphad.model.detector import Detector
    from morphad.settings import EvaluateSettings

    calibration = Detector.load(tiny_detector).calibration
    assert calibration is not None
    labels = ["good"] * 8 + ["defect"] * 4
    scores = [*calibration.scores[:8], *(max(calibration.scores) + i for i in range(1, 5))]
    return evaluate(
        labels, scores, settings=EvaluateSettings(bootstrap=100), threshold=calibration.threshold,
        kinds=[""] * 8 + ["crack"] * 4, seed=0,
    )  # fmt: skip


def evaluated(root: Path, line: str, tiny_detector: Path, metrics: dict[str, Any]) -> Workspace:
    place = Workspace(root, line)
    shutil.copytree(tiny_detector, place.detector)
    place.report.mkdir(parents=True)
    (place.report / "metrics.json").write_text(json.dumps(metrics))
    return place


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_lines_are_told_one_by_one_and_open_ones_are_to_be_finished(
    tmp_path: Path, tiny_detector: Path, metrics: dict[str, Any]
) -> None:
    decided = evaluated(tmp_path, "bottle", tiny_detector, metrics)
    decided.decision.write_text(json.dumps({"promote": True, "version": 3, "reasons": ["Promoted: it is good."]}))
    refused = evaluated(tmp_path, "cable", tiny_detector, metrics)
    refused.decision.write_text(json.dumps({"promote": False, "version": 4, "reasons": ["Refused: it is not."]}))
    evaluated(tmp_path, "felt", tiny_detector, metrics)

    told = summarise(project("bottle", "cable", "felt", "net"), tmp_path)

    blocks = told.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == ["bottle", "cable", "felt", "net", "What to do next"]
    assert "Version 3 is champion. Promoted: it is good." in blocks[0]
    assert "Version 4 was refused. Refused: it is not." in blocks[1]
    assert "Version" not in blocks[2]
    assert blocks[3] == "net\n  not evaluated yet"
    assert all("Holdout: 8 good, 4 defect images; AUROC 100 %" in block for block in blocks[:3])
    assert "finish felt, net: dvc repro" in blocks[4]
    assert "look at runs and versions: http://mlflow.plant:5000" in blocks[4]
    assert "morphad predict bottle IMAGE" in blocks[4]
    index = (tmp_path / "reports" / "index.html").read_text()
    assert all(f"{name}/index.html" in index for name in ("bottle", "cable", "felt"))
    assert "net/index.html" not in index


def test_the_address_in_the_environment_wins_and_shows_no_password(
    tmp_path: Path, tiny_detector: Path, metrics: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(tmp_path, "bottle", tiny_detector, metrics)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ana:secret@db/mlflow")
    told = summarise(project("bottle"), tmp_path)
    assert "mlflow ui --backend-store-uri postgresql://***@db/mlflow" in told
    assert "secret" not in told


def test_without_any_line_evaluated_there_is_no_index(tmp_path: Path) -> None:
    told = summarise(project("bottle"), tmp_path)
    assert "not evaluated yet" in told
    assert "finish bottle: dvc repro" in told
    assert "look at the pages" not in told
    assert list(tmp_path.iterdir()) == []


def test_figures_that_cannot_be_read_are_named(tmp_path: Path, tiny_detector: Path, metrics: dict[str, Any]) -> None:
    place = evaluated(tmp_path, "bottle", tiny_detector, metrics)
    (place.report / "metrics.json").write_text("{")
    with pytest.raises(BadInputError, match=r"metrics\.json: not valid JSON"):
        summarise(project("bottle"), tmp_path)


@pytest.mark.parametrize("name", ["metrics", "detector", "decision"])
def test_files_of_another_shape_are_named(
    name: str, tmp_path: Path, tiny_detector: Path, metrics: dict[str, Any]
) -> None:
    place = evaluated(tmp_path, "bottle", tiny_detector, metrics)
    path = {
        "metrics": place.report / "metrics.json",
        "detector": place.detector / "detector.json",
        "decision": place.decision,
    }[name]
    path.write_text("{}")
    with pytest.raises(BadInputError, match=path.name):
        summarise(project("bottle"), tmp_path)
