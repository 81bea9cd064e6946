"""`morphad pipeline upload` and `submit` against a server."""

import hashlib
import multiprocessing
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from fake_kubeflow import FakeKubeflow

from morphad.cli import main
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.compiling import TRAINING
from morphad.kubeflow.connection import Connection
from morphad.kubeflow.uploads import CompiledPipeline, upload
from morphad.settings.line_json import line_from_json
from morphad.settings.reading import load_settings
from pipelines.training import PIPELINE

Command = Callable[..., tuple[int, str]]

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"


def test_the_same_content_is_uploaded_once(command: Command, fake: FakeKubeflow, compiled: Path) -> None:
    name = f"{PIPELINE}-{hashlib.sha256(compiled.read_bytes()).hexdigest()[:12]}"
    code, said = command("pipeline", "upload")
    assert (code, f"{name}: uploaded" in said) == (0, True)
    code, said = command("pipeline", "upload")
    assert (code, f"{name}: is there already" in said) == (0, True)
    (version,) = fake.versions.values()
    assert version["name"] == name
    assert compiled.read_bytes() in fake.uploads[0]  # in the middle of a form


def test_other_content_is_another_version(fake: FakeKubeflow, compiled: Path, tmp_path: Path) -> None:
    kubeflow = Kubeflow(Connection(fake.address))
    first, _ = upload(kubeflow, CompiledPipeline(TRAINING, compiled, "1" * 64))
    second, new = upload(kubeflow, CompiledPipeline(TRAINING, compiled, "2" * 64))
    assert new
    assert (first.pipeline_id, first.id == second.id) == (second.pipeline_id, False)
    # Back to the first content: its version is found again, though it is not the newest.
    assert upload(kubeflow, CompiledPipeline(TRAINING, compiled, "1" * 64)) == (first, False)


def test_an_upload_killed_at_any_request_is_ended_by_the_next(fake: FakeKubeflow, compiled: Path) -> None:
    package = CompiledPipeline(TRAINING, compiled, "1" * 64)

    def work() -> None:
        upload(Kubeflow(Connection(fake.address)), package)

    for number in range(1, 20):
        for when in ("before", "after"):
            fake.pipelines.clear()
            fake.versions.clear()
            fake.requests.clear()
            process = multiprocessing.get_context("fork").Process(target=work)
            born = threading.Event()
            fake.kill = (number, when, lambda process=process, born=born: born.wait() and process.pid)
            process.start()
            born.set()
            process.join(30)
            fake.kill = None
            if process.exitcode == 0:
                assert number > 4
                return
            assert process.exitcode == -signal.SIGKILL
            work()
            assert (len(fake.pipelines), len(fake.versions)) == (1, 1), (number, when)


def test_two_uploads_at_once_leave_one_version(fake: FakeKubeflow, compiled: Path) -> None:
    ends: list[bool] = []

    def work() -> None:
        ends.append(upload(Kubeflow(Connection(fake.address)), CompiledPipeline(TRAINING, compiled, "1" * 64))[1])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(ends) == [False, False, False, True]
    assert (len(fake.pipelines), len(fake.versions)) == (1, 1)


@pytest.mark.parametrize("verb", ["upload", "submit"])
def test_a_stale_file_is_not_sent(
    verb: str, command: Command, fake: FakeKubeflow, compiled: Path, tmp_path: Path
) -> None:
    stale = tmp_path / "training.yaml"
    stale.write_text(compiled.read_text().replace("memoryLimit: 16", "memoryLimit: 64") + "\n")
    code, said = command("pipeline", verb, "--compiled", stale)
    assert code == 1
    assert f"{stale}: stale" in said
    assert "morphad pipeline compile" in said
    code, said = command("pipeline", verb, "--compiled", tmp_path / "none.yaml")
    assert code == 2
    assert "none.yaml: cannot be read" in said
    assert fake.requests == []


def test_every_line_gets_a_run_of_its_own(command: Command, fake: FakeKubeflow, compiled: Path) -> None:
    inputs = set(next(YAML(typ="safe").load_all(compiled))["root"]["inputDefinitions"]["parameters"])
    assert command("pipeline", "upload")[0] == 0
    code, said = command("pipeline", "submit", "--seed", "7", "--reason", "new camera")
    assert code == 0, said
    project = load_settings(PARAMS)
    started = {}
    for run in fake.runs.values():
        (item,) = run["runtime_config"]["parameters"]["lines"]
        started[item["line"]] = line_from_json(item["settings_json"])
        assert run["runtime_config"]["parameters"]["seed"] == 7
        assert run["runtime_config"]["parameters"]["reason"] == "new camera"
        assert set(run["runtime_config"]["parameters"]) <= inputs
        assert run["run_id"] in said
    assert started == project.lines


def test_lines_may_be_chosen_and_share_a_run(command: Command, fake: FakeKubeflow) -> None:
    assert command("pipeline", "upload")[0] == 0
    assert command("pipeline", "submit", "--lines", "pv-poly")[0] == 0
    fake.move(next(iter(fake.runs)), "SUCCEEDED")
    assert command("pipeline", "submit", "--together", "--experiment", "trial")[0] == 0
    lines = [[item["line"] for item in run["runtime_config"]["parameters"]["lines"]] for run in fake.runs.values()]
    assert lines == [["pv-poly"], ["pv-mono", "pv-poly"]]
    assert {experiment["display_name"] for experiment in fake.experiments.values()} == {"morphad", "trial"}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--lines", "pv-momo"], "no line 'pv-momo'"),
        (["--seed", "-1"], "--seed -1"),
        (["--version", "morphad-training-000000000000"], "has no version morphad-training-000000000000"),
    ],
)
def test_what_cannot_be_started_is_told(command: Command, fake: FakeKubeflow, words: list[str], names: str) -> None:
    assert command("pipeline", "upload")[0] == 0
    code, said = command("pipeline", "submit", *words)
    assert code == 2
    assert names in said
    assert fake.runs == {}


def test_nothing_is_started_of_a_pipeline_that_is_not_there(command: Command, fake: FakeKubeflow) -> None:
    for words in (("pipeline", "submit"), ("pipeline", "status")):
        code, said = command(*words)
        assert code == 2
        assert "morphad pipeline upload" in said


def test_a_batch_prediction_is_uploaded_and_started(command: Command, fake: FakeKubeflow, compiled_batch: Path) -> None:
    needed = next(YAML(typ="safe").load_all(compiled_batch))["root"]["inputDefinitions"]["parameters"]
    code, said = command("pipeline", "submit-batch", "pv-mono", "s3://camera/2026-11")
    assert code == 2
    assert "run `morphad pipeline upload --pipeline batch-predict`" in said
    name = f"morphad-batch-predict-{hashlib.sha256(compiled_batch.read_bytes()).hexdigest()[:12]}"
    code, said = command("pipeline", "upload", "--pipeline", "batch-predict")
    assert (code, said) == (0, f"{name}: uploaded\n")
    code, said = command("pipeline", "submit-batch", "pv-mono", "/state/new.csv", "--root", "s3://camera", "--shards=9")
    assert code == 0, said
    (run,) = fake.runs.values()
    given = run["runtime_config"]["parameters"]
    settings = given.pop("settings_json")
    batch = {"line": "pv-mono", "images": "/state/new.csv", "root": "s3://camera", "shards": 9}
    assert given == {**batch, "reason": "manual"}
    assert set(given) | {"settings_json"} == set(needed)
    assert line_from_json(settings) == load_settings(PARAMS).line("pv-mono")
    assert run["run_id"] in said
    # Training is another pipeline, of which nothing is there.
    assert command("pipeline", "submit")[0] == 2


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["pv-momo", "s3://camera"], "no line 'pv-momo'"),
        (["pv-mono", "s3://camera", "--shards", "0"], "--shards 0: expected a number from 1 to 500"),
        (["pv-mono", "incoming"], "images 'incoming': pods of step batch_plan have a volume at /state only"),
        (["pv-mono", "/state/../data"], "images '/state/../data'"),
        (["pv-mono", "/state/t.csv", "--root", "/data"], "--root '/data': pods of step batch_predict"),
        (["pv-mono", "s3://KEY:hu/sh@bucket/x"], "images or --root: holds credentials"),
    ],
)
def test_a_batch_that_pods_could_not_work_on_is_not_started(
    command: Command, fake: FakeKubeflow, words: list[str], names: str
) -> None:
    code, said = command("pipeline", "submit-batch", *words)
    assert code == 2
    assert names in said
    assert fake.requests == []


def test_one_pipeline_is_not_taken_for_the_other(command: Command, fake: FakeKubeflow, compiled: Path) -> None:
    code, said = command("pipeline", "upload", "--pipeline", "batch-predict", "--compiled", compiled)
    assert code == 2
    assert f"{compiled}: is the pipeline training, expected batch-predict" in said
    assert fake.requests == []


@pytest.mark.parametrize("verb", [("pipeline", "submit"), ("schedule", "plan"), ("schedule", "apply")])
def test_lines_whose_images_pods_would_not_find_are_not_started(
    verb: tuple[str, str], command: Command, fake: FakeKubeflow, tmp_path: Path
) -> None:
    settings = YAML(typ="safe").load(PARAMS)
    settings["lines"]["pv-mono"]["ingest"] = {"source": "folder", "path": "/data/pv-mono"}
    YAML(typ="safe").dump(settings, tmp_path / "params.yaml")
    code, said = command(*verb, "--params", tmp_path / "params.yaml")
    assert code == 2
    assert "lines.pv-mono.ingest.path = '/data/pv-mono': pods of step ingest have a volume at /state only" in said
    assert "steps.ingest.volumes" in said
    assert fake.requests == []


def test_outside_of_a_project_there_is_nothing_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["schedule", "plan"]) == 2
    assert "run in the project's folder" in capsys.readouterr().err
