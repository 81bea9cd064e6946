"""The words at the end: what came of every line, and what to do next."""

import json
import shutil
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from morphad.base.errors import BadInputError
from morphad.base.files import write_json
from morphad.jobs.summary import summarise
from morphad.registry import Registry
from morphad.registry.local import LocalRegistry
from morphad.settings import ProjectSettings, RegisterSettings
from morphad.settings.reading import resolve
from morphad.steps import experiments
from morphad.steps.paths import LinePaths

ADDRESS = {"tracking_uri": "sqlite:///mlflow.db", "timeout_seconds": 1, "retries": 0}


def project(*names: str, **register: Any) -> ProjectSettings:
    return resolve(
        {
            "defaults": {"register": ADDRESS | register},
            "lines": {name: {"ingest": {"path": "x"}} for name in names},
        }
    )


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    LocalRegistry(path).open(make=True)
    return path


@pytest.fixture
def client(empty_registry: Path, tmp_path: Path) -> MlflowClient:
    """Of the project's registry."""
    shutil.copy(empty_registry, tmp_path)
    uri = LocalRegistry(tmp_path / "mlflow.db").uri
    return MlflowClient(uri, uri)


def registered(client: MlflowClient, line: str, versions: int, champion: int | None = None) -> None:
    name = f"morphad-{line}"
    client.create_registered_model(name)
    for number in range(1, versions + 1):
        client.create_model_version(name, source=f"s3://bucket/{number}", run_id=f"run-{number}")
    if champion is not None:
        Registry(RegisterSettings(**ADDRESS)).promote(line, champion, {"reasons": ["Promoted: it is good."]}, "test")


def decide(place: LinePaths, version: int, promote: bool, run: str | None = None) -> None:
    reason = "Promoted: it is good." if promote else "Refused: it is not."
    place.decision.write_text(
        json.dumps(
            {
                "promote": promote,
                "outcome": "promoted" if promote else "refused",
                "version": version,
                "reasons": [reason],
            }
        )
    )
    if run is not None:
        place.registration.write_text(json.dumps({"version": version, "run_id": run}))


@pytest.fixture
def metrics(tiny_detector: Path) -> dict[str, Any]:
    """Figures as `morphad evaluate` writes them."""
    from morphad.decision.metrics import evaluate
    from morphad.model.detector import Detector
    from morphad.settings import EvaluateSettings

    calibration = Detector.load(tiny_detector).calibration_
    assert calibration is not None
    labels = ["good"] * 8 + ["defect"] * 4
    scores = [*calibration.scores[:8], *(max(calibration.scores) + i for i in range(1, 5))]
    return evaluate(
        labels, scores, settings=EvaluateSettings(bootstrap=100), threshold=calibration.threshold,
        kinds=[""] * 8 + ["crack"] * 4, seed=0,
    )  # fmt: skip


def evaluated(root: Path, line: str, tiny_detector: Path, metrics: dict[str, Any]) -> LinePaths:
    place = LinePaths.checkout(root, line)
    shutil.copytree(tiny_detector, place.detector)
    place.report.mkdir(parents=True)
    (place.report / "metrics.json").write_text(json.dumps(metrics))
    return place


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_lines_are_told_one_by_one_and_open_ones_are_to_be_finished(
    tmp_path: Path, tiny_detector: Path, metrics: dict[str, Any], client: MlflowClient
) -> None:
    decide(evaluated(tmp_path, "bottle", tiny_detector, metrics), 3, promote=True, run="run-3")
    registered(client, "bottle", 3, champion=3)
    decide(evaluated(tmp_path, "cable", tiny_detector, metrics), 4, promote=False)
    registered(client, "cable", 4, champion=2)
    evaluated(tmp_path, "felt", tiny_detector, metrics)

    told = summarise(project("bottle", "cable", "felt", "net"), tmp_path)

    blocks = told.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == ["bottle", "cable", "felt", "net", "What to do next"]
    assert "Version 3 is champion. Promoted: it is good." in blocks[0]
    assert "Version 4 was refused. Refused: it is not. Version 2 is champion now." in blocks[1]
    assert "Version" not in blocks[2]
    assert blocks[3] == "net\n  not evaluated yet"
    assert all("Holdout: 8 good, 4 defect images; AUROC 100 %" in block for block in blocks[:3])
    assert "finish felt, net: dvc repro" in blocks[4]
    view = "http://localhost:5000/#/models?workflowType=machine_learning"
    assert f"see runs and versions: mlflow ui --backend-store-uri sqlite:///mlflow.db, then {view}" in blocks[4]
    assert "morphad predict bottle IMAGE" in blocks[4]
    index = (tmp_path / "reports" / "index.html").read_text()
    assert all(f"{name}/index.html" in index for name in ("bottle", "cable", "felt"))
    assert "net/index.html" not in index


class TestRegistrySays:
    """What serves is what the registry says, whatever was decided once."""

    @pytest.fixture
    def place(self, tmp_path: Path, tiny_detector: Path, metrics: dict[str, Any]) -> LinePaths:
        place = evaluated(tmp_path, "bottle", tiny_detector, metrics)
        decide(place, 2, promote=True, run="run-2")
        return place

    def test_after_a_rollback(
        self, tmp_path: Path, place: LinePaths, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registered(client, "bottle", 2, champion=1)
        registry = Registry(RegisterSettings(**ADDRESS))
        monkeypatch.setattr(registry, "check", lambda version: None)  # these versions have no model
        registry.promote("bottle", 2, {"reasons": []}, "test")
        registry.rollback("bottle", "too many escapes.", "anna")
        told = summarise(project("bottle"), tmp_path)
        assert "Version 2 was taken out of service by anna (name as given, no account): too many escapes." in told
        assert "Version 1 is champion now. The figures here are of version 2." in told
        assert "finish" not in told

    def test_after_a_proposal_and_once_it_is_declined(
        self, tmp_path: Path, place: LinePaths, client: MlflowClient
    ) -> None:
        registered(client, "bottle", 2, champion=1)
        decision = {"promote": False, "outcome": "proposed", "version": 2, "reasons": ["It is fit.", "It is new."]}
        place.decision.write_text(json.dumps(decision))
        registry = Registry(RegisterSettings(**ADDRESS))
        registry.propose("bottle", 2, {"reasons": ["It is fit."]}, "test")
        told = summarise(project("bottle"), tmp_path)
        assert "Version 2 passed the gate and awaits approval. It is fit. It is new. Version 1 is champion now." in told
        assert "decide on bottle: morphad approve bottle --why ... or morphad decline bottle --why ..." in told
        registry.decline("bottle", "misses scratches", "anna")
        told = summarise(project("bottle"), tmp_path)
        assert "Version 2 was declined by anna (name as given, no account): misses scratches. Version 1 is" in told
        assert "decide on" not in told

    def test_after_another_promotion(self, tmp_path: Path, place: LinePaths, client: MlflowClient) -> None:
        registered(client, "bottle", 3, champion=3)
        assert "Version 2 was promoted. Version 3 is champion now." in summarise(project("bottle"), tmp_path)

    def test_without_a_champion(self, tmp_path: Path, place: LinePaths, client: MlflowClient) -> None:
        registered(client, "bottle", 2)
        told = summarise(project("bottle"), tmp_path)
        assert "Version 2 was promoted. No version is champion now." in told
        assert "morphad predict" not in told

    @pytest.mark.parametrize("versions", [0, 1])
    def test_a_version_that_is_not_there(
        self, versions: int, tmp_path: Path, place: LinePaths, client: MlflowClient
    ) -> None:
        registered(client, "bottle", versions)
        told = summarise(project("bottle"), tmp_path)
        assert "Version 2 was promoted, but it is not in the registry at sqlite:" in told
        assert "finish bottle: dvc repro" in told

    def test_another_version_of_that_number(self, tmp_path: Path, place: LinePaths, client: MlflowClient) -> None:
        registered(client, "bottle", 2, champion=2)
        decide(place, 2, promote=True, run="a-run-of-another-registry")
        told = summarise(project("bottle"), tmp_path)
        assert "Version 2 was promoted, but it is not in the registry" in told
        assert "finish bottle: dvc repro" in told

    def test_a_registry_that_is_gone(self, tmp_path: Path, place: LinePaths) -> None:
        told = summarise(project("bottle"), tmp_path)
        assert "Version 2 was promoted. What holds now is not known: there is no registry at sqlite:" in told
        assert "finish bottle: dvc repro" in told
        assert "mlflow ui" not in told  # it would make a registry
        assert not (tmp_path / "mlflow.db").exists()

    def test_a_server_that_is_away(
        self, tmp_path: Path, place: LinePaths, tiny_detector: Path, metrics: dict[str, Any]
    ) -> None:
        decide(evaluated(tmp_path, "cable", tiny_detector, metrics), 1, promote=False)
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            away = f"http://127.0.0.1:{probe.getsockname()[1]}"
        told = summarise(project("bottle", "cable", tracking_uri=away), tmp_path)
        assert told.count(f"What holds now is not known: MLflow at {away}") == 2
        assert f"see runs and versions: {away}/#/models?workflowType=machine_learning" in told

    def test_an_experiment_that_ran_aside(
        self, tmp_path: Path, place: LinePaths, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registered(client, "bottle", 1, champion=1)
        monkeypatch.setenv("DVC_EXP_NAME", "wary-ant")
        place.reference.parent.mkdir(parents=True)
        place.reference.touch()
        experiments.leave_unregistered(place)
        experiments.leave_undecided(place)
        told = summarise(project("bottle"), tmp_path)
        assert "Not decided: experiment wary-ant ran aside" in told
        assert "decided on. Version 1 is champion now." in told
        assert "finish bottle: dvc repro" in told


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
    assert "open the pages" not in told
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


@pytest.mark.parametrize("before", [False, True])
def test_a_broken_contract_is_said_with_what_to_do(
    before: bool, tmp_path: Path, tiny_detector: Path, metrics: dict[str, Any]
) -> None:
    place = LinePaths.checkout(tmp_path, "bottle")
    if before:
        evaluated(tmp_path, "bottle", tiny_detector, metrics)
    finding = {"name": "blurred", "severity": "error", "message": "3 good images without any sharp detail"}
    warning = {"name": "copies", "severity": "warning", "message": "1 good image with the same bytes"}
    write_json(place.validation, {"passed": False, "findings": [finding, warning]})
    told = summarise(project("bottle"), tmp_path)
    assert "The data break their contract: blurred: 3 good images without any sharp detail." in told
    assert "the same bytes" not in told
    assert ("What follows is of earlier data." in told) == before
    assert f"correct the data of bottle, see {place.contract_page}, then: dvc repro" in told
    assert "finish bottle" not in told
