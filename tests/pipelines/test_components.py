"""Components as functions: what lasts between runs of a line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from kfp import dsl

from components.ingest import ingest
from components.notify import notify
from components.split import split
from components.train import train
from morphad.base.files import sha256_file
from morphad.model.training import loop
from morphad.settings.line_json import line_to_json
from morphad.settings.reading import resolve
from morphad.steps.line_state import LineState, close
from morphad.steps.paths import LinePaths
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
    assert "'defaults'" in LineState(tmp_path / "state", "weave").end("r")[1]
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
