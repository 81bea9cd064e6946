"""Components as functions: what lasts between runs of a line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from kfp import dsl

from components.calibrate import calibrate
from components.evaluate import evaluate
from components.ingest import ingest
from components.notify import notify
from components.promote import promote
from components.register import register
from components.split import split
from components.train import train
from morphad.base.files import sha256_file
from morphad.data.manifest import read_manifest
from morphad.model.saved import detector_hash, whole_detector
from morphad.model.training import loop
from morphad.settings.line_json import line_from_json, line_to_json
from morphad.settings.reading import resolve
from morphad.steps.calibrate import calibrate as calibrate_step
from morphad.steps.evaluate import evaluate as evaluate_step
from morphad.steps.ingest import ingest as ingest_step
from morphad.steps.line_state import LineState, close
from morphad.steps.paths import LinePaths
from morphad.steps.split import split as split_step
from morphad.steps.train import train as train_step
from tiny import TRAIN


@pytest.fixture
def camera(tmp_path: Path, make_set: Callable[..., Path]) -> Path:
    return make_set(tmp_path / "camera", good=40)


@pytest.fixture
def settings_json(camera: Path) -> str:
    train_settings = {**TRAIN, "checkpoint_seconds": 0, "optimiser": {**TRAIN["optimiser"], "steps": 4}}
    raw = {"lines": {"weave": {"ingest": {"path": str(camera)}, "train": train_settings}}}
    return line_to_json(resolve(raw).line("weave"))


def ingested(folder: Path, settings_json: str, run: str) -> tuple[dsl.Dataset, dict[str, str]]:
    """Roles of one run, and what split says to later steps; the state is beside them."""
    data, roles = dsl.Dataset(uri=str(folder / run / "data")), dsl.Dataset(uri=str(folder / run / "roles"))
    common = {"line": "weave", "settings_json": settings_json, "run": run, "state_root": str(folder / "state")}
    data_hash = ingest.python_func(**common, data=data)
    told = {name: str(folder / run / name) for name in ("roles_hash", "again", "train", "calibrate", "evaluate")}
    goes_on = split.python_func(**common, seed=0, force=False, data_hash=data_hash, data=data, roles=roles, **told)
    assert goes_on == "yes"
    return roles, {name: Path(path).read_text() for name, path in told.items()}


def test_the_holdout_stays_as_it_was_when_new_images_come(
    tmp_path: Path, camera: Path, settings_json: str, make_set: Callable[..., Path]
) -> None:
    before, _ = ingested(tmp_path, settings_json, "one")
    close(tmp_path / "state", ["weave"], "one")
    frozen = Path(before.path, "holdout.json").read_bytes()
    more = make_set(tmp_path / "more", good=20, seed=1)
    for path in (more / "train" / "good").iterdir():
        path.rename(camera / "train" / "good" / f"new-{path.name}")
    after, _ = ingested(tmp_path, settings_json, "two")
    assert sum(after.metadata[role] for role in ("train", "calibration", "holdout")) > 46
    assert json.loads(Path(after.path, "holdout.json").read_bytes())["id"] == json.loads(frozen)["id"]
    assert after.metadata["holdout"] == before.metadata["holdout"]
    assert after.metadata["train"] > before.metadata["train"]


def test_a_training_that_was_killed_goes_on_in_another_pod_and_ends_as_if_it_had_not_been(
    tmp_path: Path, settings_json: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, told = ingested(tmp_path, settings_json, "one")

    def fit(pod: str) -> dsl.Model:
        fitted = dsl.Model(uri=str(tmp_path / pod / "fitted"))
        train.python_func(
            line="weave",
            settings_json=told["train"],
            seed=0,
            gpus=1,
            state_root=str(tmp_path / "state"),
            roles_hash=told["roles_hash"],
            again="",
            fitted=fitted,
        )
        return fitted

    unbroken = fit("unbroken")
    state = LinePaths.pod("weave", str(tmp_path / "state"))
    save = loop.save_checkpoint

    def save_and_die(*arguments: Any, **named: Any) -> None:
        save(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "save_checkpoint", save_and_die)
        fit("killed")
    assert state.checkpoint.exists()
    assert not (tmp_path / "killed" / "fitted").exists()

    loaded = []
    load = loop.load_checkpoint
    monkeypatch.setattr(loop, "load_checkpoint", lambda *a, **n: loaded.append(load(*a, **n)) or loaded[-1])
    resumed = fit("successor")
    assert loaded[0] is not None
    assert not state.checkpoint.exists()
    for weights in Path(unbroken.path).glob("*.safetensors"):
        assert sha256_file(weights) == sha256_file(Path(resumed.path) / weights.name)


def test_the_weights_are_kept_once_and_the_detector_is_that_of_the_verbs(
    tmp_path: Path, camera: Path, settings_json: str
) -> None:
    """All steps in pods, twice, and the verbs beside them."""
    settings = line_from_json(settings_json)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    changed = {
        "register_": settings.register_.model_copy(update={"tracking_uri": uri, "timeout_seconds": 1, "retries": 0}),
        "promote": settings.promote.model_copy(update={"bootstrap": 100, "min_auroc": 0.5}),
        "evaluate": settings.evaluate.model_copy(update={"bootstrap": 100}),
        "calibrate": settings.calibrate.model_copy(update={"false_reject_rate": 0.1}),
    }
    settings_json = line_to_json(settings.model_copy(update=changed))
    _, said = ingested(tmp_path, settings_json, "one")
    given: dict[str, Any] = {
        "line": "weave", "state_root": str(tmp_path / "state"), "roles_hash": said["roles_hash"],
    }  # fmt: skip
    whole_settings = {**given, "settings_json": settings_json}

    def made(kind: Any, name: str) -> Any:
        return kind(uri=str(tmp_path / "run" / name))

    fitted, calibration = made(dsl.Model, "fitted"), made(dsl.Artifact, "calibration")
    train.python_func(**given, settings_json=said["train"], seed=0, gpus=0, again="", fitted=fitted)
    calibrate.python_func(**given, settings_json=said["calibrate"], fitted=fitted, calibration=calibration)
    assert [path.name for path in Path(calibration.path).iterdir()] == ["detector.json"]
    detector = {"fitted": fitted, "calibration": calibration}
    report, registration, decision = (made(dsl.Artifact, name) for name in ("report", "registration", "decision"))
    page, reasons = made(dsl.HTML, "page"), made(dsl.Markdown, "reasons")
    evaluate.python_func(
        **given, **detector, settings_json=said["evaluate"], seed=0, report=report,
        metrics=made(dsl.Metrics, "metrics"), curves=made(dsl.ClassificationMetrics, "curves"), page=page,
    )  # fmt: skip
    register.python_func(**whole_settings, **detector, reason="test", report=report, registration=registration)
    old = tmp_path / "state" / "weave" / "pictures" / "ff" / ("f" * 64)  # of a run that nobody remembers
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"old")
    promote.python_func(
        **whole_settings, **detector, seed=0, run="one", reason="test", data_hash="d" * 64, registration=registration,
        decision=decision, reasons=reasons,
    )  # fmt: skip
    assert json.loads(Path(decision.path).read_text())["outcome"] == "promoted"
    assert not old.exists()
    used = read_manifest(tmp_path / "one" / "data" / "manifest.parquet")
    assert {path.name for path in old.parents[1].glob("*/*")} == {*used["sha256"], *used["mask_sha256"]} - {""}
    # No picture is among the run's artifacts but those of the report.
    assert not [path for path in tmp_path.glob("one/**/*") if path.suffix in {".png", ".jpg"}]

    here, line = LinePaths.checkout(tmp_path / "project", "weave"), line_from_json(settings_json)
    for step in (ingest_step, split_step, train_step, calibrate_step, evaluate_step):
        step(line, here, 0)
    with whole_detector(Path(fitted.path), Path(calibration.path)) as whole:
        assert detector_hash(whole) == detector_hash(here.detector)
    for name in ("metrics.json", "predictions.csv"):
        assert (Path(report.path) / name).read_bytes() == (here.report / name).read_bytes()


def test_a_pod_whose_gpu_does_not_work_trains_on_the_cpu_and_says_so(
    tmp_path: Path, settings_json: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    _, told = ingested(tmp_path, settings_json, "one")
    fitted = dsl.Model(uri=str(tmp_path / "fitted"))
    train.python_func(
        line="weave",
        settings_json=told["train"].replace('"device":"cpu"', '"device":"auto"'),
        seed=0,
        gpus=1,
        state_root=str(tmp_path / "state"),
        roles_hash=told["roles_hash"],
        again="",
        fitted=fitted,
    )
    assert fitted.metadata["device"] == "cpu"
    assert fitted.metadata["warning"].startswith("trained on the CPU although the step asked for 1 GPU: ")
    assert f"weave: warning: {fitted.metadata['warning']}\n" in capsys.readouterr().out


def test_wrong_settings_end_the_line_with_a_message_on_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = dsl.Dataset(uri=str(tmp_path / "data"))
    with pytest.raises(SystemExit) as ended:
        ingest.python_func(line="weave", settings_json="{}", run="r", state_root=str(tmp_path / "state"), data=data)
    assert ended.value.code == 2
    assert "expected a mapping with the key 'defaults'" in capsys.readouterr().err
    assert "'defaults'" in LineState(tmp_path / "state", "weave").end("r").how
    assert not (tmp_path / "data").exists()


def test_a_step_whose_roles_were_split_anew_says_so(
    tmp_path: Path, settings_json: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, told = ingested(tmp_path, settings_json, "one")
    with pytest.raises(SystemExit) as ended:
        train.python_func(
            line="weave",
            settings_json=told["train"],
            seed=0,
            gpus=0,
            state_root=str(tmp_path / "state"),
            roles_hash="0" * 32,
            again="",
            fitted=dsl.Model(uri=str(tmp_path / "fitted")),
        )
    assert ended.value.code == 2
    assert "another run has split the images of weave since: start a new run" in capsys.readouterr().err


@pytest.mark.parametrize(("lines", "code", "told"), [([], 2, "the run has no lines"), ([{"line": "weave"}], 1, "end")])
def test_a_run_without_lines_or_without_their_ends_is_no_good_run(
    tmp_path: Path, lines: list[dict[str, str]], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = dsl.PipelineTaskFinalStatus("SUCCEEDED", "run", "all-lines", None, None)
    summary = dsl.Markdown(uri=str(tmp_path / "summary"))
    with pytest.raises(SystemExit) as ended:
        notify.python_func(
            lines=lines, run="r", reason="manual", state_root=str(tmp_path), status=status, summary=summary
        )
    assert ended.value.code == code
    assert told in capsys.readouterr().err
