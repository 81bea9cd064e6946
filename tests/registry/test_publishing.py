"""One detector on one data set is one version, with all that is needed to serve and to judge it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

import morphad
from morphad.base.errors import BadInputError, ServiceError
from morphad.registry import DatasetFacts, Registration, Registry, detector_hash
from morphad.registry.publishing import REQUIREMENTS
from morphad.settings import RegisterSettings

Publish = Callable[..., Registration]
HUSH = "hush"  # in no name and no code of ours


@pytest.fixture
def client(settings: RegisterSettings) -> MlflowClient:
    return MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)


def _runs(client: MlflowClient, line: str) -> list[str]:
    experiment = client.get_experiment_by_name("morphad").experiment_id
    return sorted(run.info.status for run in client.search_runs([experiment], f"tags.`morphad.line` = '{line}'"))


def test_run_holds_settings_figures_report_and_data(publish: Publish, client: MlflowClient, store: Path) -> None:
    done = publish()
    run = client.get_run(done.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.backbone": "small", "train.cases.heights": "[1, 3]", "seed": "0"}
    assert run.data.metrics == {"auroc": 0.91, "overkill": 0.05}
    (data,) = run.inputs.dataset_inputs
    assert '"train": 20' in data.dataset.profile
    assert data.dataset.digest == "a" * 36
    assert [entry.path for entry in client.list_artifacts(done.run_id, "report")] == [
        "report/index.html",
        "report/pictures",
    ]
    # Beside the database and nowhere else.
    assert run.info.artifact_uri.startswith((store / "mlartifacts" / "morphad").as_uri())


def test_a_run_hangs_below_that_of_kubeflows_mlflow_plugin_and_writes_nothing_there(
    publish: Publish, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin makes a run for the pipeline, one below it for each step, and names that one in the step's pod."""
    experiment = client.create_experiment("KFP-Default")
    pipeline = client.create_run(experiment, run_name="pipeline")
    step = client.create_run(
        experiment, run_name="register", tags={"mlflow.parentRunId": pipeline.info.run_id}
    ).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", step)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    done = publish()
    ours, theirs = client.get_run(done.run_id), client.get_run(step)
    assert ours.data.tags["mlflow.parentRunId"] == step
    assert ours.info.experiment_id == client.get_experiment_by_name("morphad").experiment_id
    assert (theirs.info.status, theirs.data.params, theirs.data.metrics) == ("RUNNING", {}, {})
    assert os.environ["MLFLOW_RUN_ID"] == step


@pytest.mark.parametrize("step", ["0" * 32, "no run"])
def test_a_plugin_that_writes_to_another_server_is_left_alone(
    publish: Publish, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", step)
    assert "mlflow.parentRunId" not in client.get_run(publish().run_id).data.tags


def test_publishing_again_leaves_a_version_as_it_was_decided_on(
    registry: Registry, line: str, publish: Callable[..., Registration]
) -> None:
    yes = {"reasons": ["good"]}
    registry.promote(line, publish("a").version, yes, "berta")
    registry.promote(line, publish("b").version, yes, "berta")
    registry.rollback(line, "misses scratches", "berta")
    waiting = publish("c")  # of a colleague, say
    assert publish("b").version == 2  # as every `dvc repro` does
    assert [version.aliases for version in registry.history(line)] == [("champion",), (), ("challenger",)]
    assert waiting.version == 3


def test_version_is_the_challenger_and_knows_its_origin(
    publish: Publish, registry: Registry, line: str, detector_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORPHAD_CODE_REVISION", "0123abc")
    done = publish()
    version = registry.challenger(line)
    assert version is not None
    assert (done.model_name, done.version, done.created) == (f"morphad-{line}", 1, True)
    assert (version.number, version.run_id, version.aliases) == (1, done.run_id, ("challenger",))
    assert version.detector_hash == detector_hash(detector_folder)
    assert (version.data_hash, version.holdout_id, version.code_revision) == ("a" * 64, "f" * 64, "0123abc")
    assert version.tags["morphad.version"] == morphad.__version__
    assert version.tags["image_digest"] == "sha256:0"
    assert registry.champion(line) is None


def test_same_detector_and_data_is_registered_once(publish: Publish, registry: Registry, line: str) -> None:
    first, second = publish(), publish(metrics={"auroc": 0.5})
    assert (second.version, second.run_id, second.created) == (first.version, first.run_id, False)
    assert [version.number for version in registry.history(line)] == [1]


def test_other_data_or_detector_is_another_version(
    publish: Publish, registry: Registry, line: str, detector_folder: Path
) -> None:
    publish()
    publish(data="b")
    (detector_folder / "note.txt").write_text("another detector")
    publish()
    assert [version.number for version in registry.history(line)] == [1, 2, 3]
    assert [version.aliases for version in registry.history(line)] == [(), (), ("challenger",)]


def test_champion_published_again_stays_champion(publish: Publish, registry: Registry, line: str) -> None:
    registry.promote(line, publish().version, {"reasons": []}, "test")
    assert publish().created is False
    assert [version.aliases for version in registry.history(line)] == [("champion",)]


def test_download_gives_the_very_detector(
    publish: Publish, registry: Registry, line: str, detector_folder: Path, tmp_path: Path
) -> None:
    version = registry.version(line, publish().version)
    folder = registry.download(version, tmp_path / "fetched" / "champion")
    assert detector_hash(folder) == detector_hash(detector_folder)
    assert registry.download(version, folder) == folder  # again, over what is there


def test_damaged_download_is_refused_and_leaves_nothing(
    publish: Publish, registry: Registry, line: str, client: MlflowClient, tmp_path: Path
) -> None:
    version = registry.version(line, publish().version)
    model = client.get_model_version(version.model_name, "1").source.removeprefix("models:/")
    stored = Path(client.get_logged_model(model).artifact_location.removeprefix("file://"))
    (stored / "artifacts" / "detector" / "detector.json").write_text("{}")
    with pytest.raises(ServiceError, match="damaged"):
        registry.download(version, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_model_carries_its_code_and_pinned_requirements(publish: Publish, client: MlflowClient) -> None:
    done = publish()
    model = client.get_model_version(done.model_name, str(done.version)).source.removeprefix("models:/")
    stored = Path(client.get_logged_model(model).artifact_location.removeprefix("file://"))
    pins = (stored / "requirements.txt").read_text().split()
    assert sorted(pin.split("==")[0] for pin in pins) == sorted(REQUIREMENTS)
    assert not any("+" in pin for pin in pins)
    assert (stored / "code" / "morphad" / "model" / "detector.py").is_file()
    assert not list(stored.rglob("__pycache__"))
    assert not [path for path in stored.rglob("*") if path.suffix in {".pkl", ".pickle", ".pt", ".pth"}]


def test_missing_detector_or_report_is_bad_input(publish: Publish, detector_folder: Path, report_folder: Path) -> None:
    shutil.rmtree(report_folder)
    with pytest.raises(BadInputError, match="run the evaluate step first"):
        publish()
    (detector_folder / "detector.json").unlink()
    with pytest.raises(BadInputError, match="run the calibrate step first"):
        publish()


def test_failure_on_the_way_leaves_no_version(
    publish: Publish, registry: Registry, line: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    end = MlflowClient.set_terminated

    def watched(self: MlflowClient, *args: str, **kwargs: str) -> None:
        tries.append(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
        end(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_model_version", _disk_full)
        patched.setattr(MlflowClient, "set_terminated", watched)
        with pytest.raises(ServiceError, match="No space left"):
            publish()
    assert tries == ["0"]  # marking the run must not cost minutes where the server is gone
    assert registry.history(line) == []
    assert _runs(client, line) == ["FAILED"]
    done = publish()
    assert done.version == 1
    assert _model_sources(client, line) == [done.run_id]


def test_request_that_was_retried_by_the_network_makes_one_version(
    publish: Publish, registry: Registry, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MlflowClient.create_model_version

    def twice(self: MlflowClient, *args: object, **kwargs: object) -> object:
        create(self, *args, **kwargs)  # the server did it, its answer was lost, the request was sent again
        return create(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_model_version", twice)
    assert publish().version == 1
    assert [version.number for version in registry.history(line)] == [1]


KILLED = """
import os, signal, sys
from pathlib import Path
from mlflow.tracking import MlflowClient
from morphad.registry import DatasetFacts, Registry
from morphad.settings import RegisterSettings

uri, line, detector, report, deadly = sys.argv[1:]
setattr(MlflowClient, deadly, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
Registry(RegisterSettings(tracking_uri=uri)).publish(
    line, Path(detector), Path(report), params={}, metrics={}, tags={},
    dataset=DatasetFacts(Path("data/x/manifest.parquet"), "a" * 64, "f" * 64),
)
"""


@pytest.fixture
def publish_until(
    line: str, settings: RegisterSettings, detector_folder: Path, report_folder: Path
) -> Callable[[str], None]:
    """Publish in another process, which is killed (-9) where it would call this method of the client."""

    def call(deadly: str) -> None:
        arguments = [settings.tracking_uri, line, str(detector_folder), str(report_folder), deadly]
        killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], timeout=120, check=False)
        assert killed.returncode == -signal.SIGKILL

    return call


def _model_sources(client: MlflowClient, line: str) -> list[str]:
    experiment = client.get_experiment_by_name("morphad").experiment_id
    models = client.search_logged_models([experiment], filter_string=f"name = 'morphad-{line}'")
    return [model.source_run_id for model in models]


def test_killed_before_the_version_and_published_again(
    publish_until: Callable[[str], None], publish: Publish, registry: Registry, line: str, client: MlflowClient
) -> None:
    publish_until("create_model_version")
    assert registry.history(line) == []
    done = publish()
    assert [(version.number, version.aliases) for version in registry.history(line)] == [(1, ("challenger",))]
    assert _runs(client, line) == ["FINISHED", "KILLED"]
    assert _model_sources(client, line) == [done.run_id]


@pytest.mark.slow
def test_killed_after_the_version_and_published_again(
    publish_until: Callable[[str], None], publish: Publish, registry: Registry, line: str, client: MlflowClient
) -> None:
    publish_until("set_registered_model_alias")
    assert _runs(client, line) == ["RUNNING"]
    assert publish().created is False
    assert [(version.number, version.aliases) for version in registry.history(line)] == [(1, ("challenger",))]
    assert _runs(client, line) == ["FINISHED"]


def test_interrupted_after_the_version_and_published_again(
    publish: Publish, registry: Registry, line: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(MlflowClient, "set_registered_model_alias", interrupt)
        publish()
    assert publish().created is False
    assert [(version.number, version.aliases) for version in registry.history(line)] == [(1, ("challenger",))]
    assert _runs(client, line) == ["FINISHED"]


def _disk_full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_nothing_is_said_on_the_terminal(publish: Publish, capfd: pytest.CaptureFixture[str]) -> None:
    publish()
    assert capfd.readouterr() == ("", "")


def test_many_settings_and_long_values(publish: Publish, client: MlflowClient) -> None:
    done = publish(params={f"key{i}": "x" * 7000 for i in range(120)})
    assert len(client.get_run(done.run_id).data.params) == 120


def test_facts_have_no_absolute_path_unless_given(publish: Publish, client: MlflowClient) -> None:
    facts = DatasetFacts(Path("data/x/manifest.parquet"), "c" * 64, "f" * 64)
    done = publish(dataset=facts)
    assert client.get_run(done.run_id).inputs.dataset_inputs[0].dataset.source == '{"uri": "data/x/manifest.parquet"}'


def test_nothing_that_is_recorded_holds_a_secret(
    publish: Publish, registry: Registry, client: MlflowClient, line: str, store: Path
) -> None:
    uri = f"postgresql://anna:12/{HUSH}@{HUSH} {HUSH}@db.plant/mlflow"
    done = publish(
        params={"register": {"tracking_uri": uri, "api_key": HUSH}, "list": [uri]},
        tags={"morphad.reason": f"manual, after {uri!r} was away"},
        actor=f"pipeline run 0 (token={HUSH})",
    )
    assert client.get_run(done.run_id).data.params == {
        "register.tracking_uri": "postgresql://***@db.plant/mlflow",
        "register.api_key": "***",
        "list": '["postgresql://***@db.plant/mlflow"]',
    }
    registry.promote(line, done.version, {"reasons": []}, f"pipeline run 1 (token={HUSH})")
    publish(data="b")
    registry.promote(line, 2, {"reasons": []}, "test")
    registry.rollback(line, f"asked for at {uri!r}", "test")
    recorded = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert any(b"pipeline run 1 (token=***)" in content for content in recorded.values())
    assert not [path for path, content in recorded.items() if HUSH.encode() in content or b"anna" in content]


def test_passwords_in_settings_are_not_recorded(publish: Publish, client: MlflowClient) -> None:
    done = publish(params={"register": {"tracking_uri": "https://anna:s3cret@mlflow.plant.example"}})
    assert client.get_run(done.run_id).data.params == {"register.tracking_uri": "https://***@mlflow.plant.example"}


def test_names_are_made_fit_for_mlflow_and_stay_apart() -> None:
    from mlflow.utils.validation import _validate_metric_name

    from morphad.registry.records import fit_names

    names = [
        "escape.Riss (tief)",
        "escape.Riss [tief]",
        "a/../b",
        "/x/",
        "ä ö: 5",
        "x" * 300,
        "x" * 301,
        "a//b",
        "...",
        "%",
    ]
    fit = fit_names({name: number for number, name in enumerate(names)})
    assert sorted(fit.values()) == list(range(len(names)))
    for name in fit:
        _validate_metric_name(name)
    assert fit["escape.Riss _tief_"] == 0
    assert fit["ä ö: 5"] == 4


@pytest.mark.parametrize("length", [0, 4990, 5000, 5001, 9000])
def test_the_card_is_description_and_artifact_as_far_as_mlflow_takes_it(
    publish: Publish, client: MlflowClient, length: int
) -> None:
    """MLflow's column holds 5,000 characters: SQLite does not mind more, PostgreSQL does."""
    card = "".join(f"- Größe {n:06}\n" for n in range(1000))[:length]
    done = publish(card=card)
    description = client.get_model_version(done.model_name, str(done.version)).description or ""
    reports = {entry.path for entry in client.list_artifacts(done.run_id, "report")}
    assert ("report/card.md" in reports) == bool(card)
    assert len(description) <= 5000
    if length <= 5000:
        assert description == card
        return
    assert client.download_artifacts(done.run_id, "report/card.md")
    kept, _, told = description.partition("\n\n")
    assert told == "(Cut at 5,000 characters. The whole card is report/card.md of the run.)\n"
    assert card.startswith(f"{kept}\n")
    assert len(kept) > 4850
