"""`morphad pipeline status`, `logs` and `end` against a server: what is said of runs and their lines."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from fake_kubeflow import FakeKubeflow
from fake_workflow import STEPS, stamp

from morphad.base.errors import CheckFailedError, MorphadError, ServiceError
from morphad.kubeflow.nodes import Workflow
from morphad.kubeflow.records import Run, Task
from morphad.steps.line_state import LineState, close

Command = Callable[..., tuple[int, str]]

BEGAN = datetime(2026, 11, 23, 2, tzinfo=UTC)
DONE = dict.fromkeys(STEPS, "SUCCEEDED")


def stopped_at(step: str, state: str = "FAILED") -> dict[str, str]:
    """The states of a line's steps where one of them did not succeed."""
    place = STEPS.index(step)
    return {
        name: "SUCCEEDED" if number < place else state if number == place else ""
        for number, name in enumerate(STEPS)
        if number <= place or state == "FAILED"
    }


def table(run: str, lines: Mapping[str, str | tuple[str, BaseException]]) -> str:
    """What `notify` writes: of each line how it finished, or in which step with what."""
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        for line, how in lines.items():
            state = LineState(folder, line)
            if isinstance(how, str):
                state.finish(run, how, code=int("refused" in how))
                continue
            with pytest.raises((SystemExit, KeyboardInterrupt)), state.step(how[0], run):
                raise how[1]
        return f"Run {run} (manual) ended as FAILED. {close(folder, list(lines), run)[1]}"


def submitted(command: Command, fake: FakeKubeflow, *words: str) -> str:
    """A run that began at BEGAN."""
    if not fake.versions:
        assert command("pipeline", "upload")[0] == 0
    before = set(fake.runs)
    assert command("pipeline", "submit", *words)[0] == 0
    (run,) = set(fake.runs) - before
    fake.began(run, BEGAN)
    return run


def rows(said: str) -> dict[str, str]:
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in said.splitlines() if line[:1].islower()}


def test_runs_are_listed_with_lines_states_and_how_each_ended(command: Command, fake: FakeKubeflow) -> None:
    good = submitted(command, fake, "--lines", "pv-mono")
    fake.work(good, [DONE])
    fake.wrote(good, "notify", None, table(good, {"pv-mono": "version 3 is champion: better by 2 %"}))
    fake.move(good, "SUCCEEDED", BEGAN + timedelta(minutes=65))
    bad = submitted(command, fake, "--lines", "pv-poly")
    fake.work(bad, [stopped_at("validate")])
    fake.wrote(bad, "notify", None, table(bad, {"pv-poly": ("validate", CheckFailedError("dark"))}))
    fake.move(bad, "FAILED", BEGAN + timedelta(minutes=5))
    fake.runs[bad]["recurring_run_id"] = "rr"
    fake.runs["of-another"] = {
        **fake.runs[good],
        "run_id": "of-another",
        "pipeline_version_reference": {"pipeline_id": "x"},
    }
    code, said = command("pipeline", "status")
    assert code == 0
    head, *lines = said.splitlines()
    assert head.split() == ["run", "pipeline", "began", "(UTC)", "state", "took", "by", "lines"]
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "training  2026-11-23 02:00:00  FAILED  5 min 00 s  schedule  pv-poly",
        "failed: failed in validate: dark",
        "training  2026-11-23 02:00:00  done    1 h 05 min  hand      pv-mono",
        "done: version 3 is champion: better by 2 %",
    ]
    assert len(command("pipeline", "status", "--limit", "1")[1].splitlines()) == 3
    assert command("pipeline", "status", "--since", "1h")[1].startswith("no runs yet")
    assert command("pipeline", "status", "--limit", "0")[0] == 2
    code, said = command("pipeline", "status", "--since", "yesterday")
    assert (code, "such as 90m, 24h or 2d" in said) == (2, True)


def test_a_run_is_described_step_by_step_and_line_by_line(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--together")
    times = {"train": {"began": stamp(BEGAN), "ended": stamp(BEGAN + timedelta(minutes=25))}}
    fake.work(run, [stopped_at("train"), DONE], times=times)
    fake.move(run, "FAILED", BEGAN + timedelta(minutes=40))
    lines = {"pv-mono": ("train", ServiceError("S3 away")), "pv-poly": "version 2 was refused: worse"}
    text = table(run, lines)
    fake.wrote(run, "notify", None, f"I1123 launcher: downloading\n{text}\nI1123 done")
    code, said = command("pipeline", "status", run)
    assert code == 0
    found = rows(said)
    assert found["train"] == "1 FAILED, 1 done   25 min 00 s"
    assert found["calibrate"].startswith("1 done, 1 not run")
    assert found["pv-mono"].split(maxsplit=2) == ["interrupted", "3", "failed in train: S3 away"]
    assert found["pv-poly"].split(maxsplit=2) == ["done", "1", "version 2 was refused: worse"]
    assert f"morphad pipeline logs {run}" in said
    assert "took 40 min 00 s" in said
    # How the identifier begins is enough.
    assert command("pipeline", "status", run[:9])[1] == said


def test_the_table_comes_from_where_argo_keeps_logs_when_the_pod_is_gone(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--lines", "pv-mono")
    fake.work(run, [stopped_at("register")])
    fake.move(run, "FAILED")
    lines: dict[str, Any] = {"pv-mono": ("register", KeyboardInterrupt())}
    fake.wrote(run, "notify", None, table(run, lines), kept=True)
    assert "interrupted" in rows(command("pipeline", "status", run)[1])["pv-mono"]


def test_without_a_table_the_log_of_the_step_that_failed_says_why(command: Command, fake: FakeKubeflow) -> None:
    for end, state, code in (
        ("F1123 failed to execute component: exit status 2", "failed", "2"),
        ("F1123 failed to execute component: exit status 3", "interrupted", "3"),
        ("F1123 failed to execute component: signal: killed", "interrupted", "137"),
        ("cut off in the middle", "interrupted", "137"),
    ):
        run = submitted(command, fake, "--lines", "pv-mono")
        fake.work(run, [stopped_at("train")], notify="FAILED", pods={("train", 0): ["FAILED", "FAILED"]})
        fake.move(run, "FAILED")
        fake.wrote(run, "train", 0, "exit status 7", f"morphad train pv-mono: ...\n{end}")
        assert rows(command("pipeline", "status", run)[1])["pv-mono"].split()[:2] == [state, code], end
    run = submitted(command, fake, "--lines", "pv-mono")
    fake.work(run, [stopped_at("train")], notify="")
    fake.move(run, "FAILED")
    assert "not known" in command("pipeline", "status", run)[1]


def test_of_a_killed_pod_the_log_says_more_than_the_table(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--lines", "pv-mono")
    fake.work(run, [stopped_at("train")])
    fake.move(run, "FAILED")
    fake.wrote(run, "notify", None, table(run, {"pv-mono": ("train", KeyboardInterrupt())}))
    assert "see the log of that step's last attempt" in command("pipeline", "status", run)[1]
    fake.wrote(run, "train", 0, "ModuleNotFoundError: torch\nF1123 failed to execute component: exit status 1")
    assert rows(command("pipeline", "status", run)[1])["pv-mono"].split()[:2] == ["failed", "1"]


def test_a_driver_that_failed_is_named(command: Command, fake: FakeKubeflow) -> None:
    for states, words in (
        ({"ingest": "SUCCEEDED", "validate-driver": "FAILED"}, "failed after ingest; Kubeflow's own validate-driver"),
        ({"ingest-driver": "FAILED"}, "no step began; Kubeflow's own ingest-driver failed"),
    ):
        run = submitted(command, fake, "--lines", "pv-mono")
        fake.work(run, [states], notify="")
        fake.move(run, "FAILED")
        said = command("pipeline", "status", run)[1]
        assert "interrupted" in said
        assert words in said


def test_a_run_ended_by_hand_is_called_so(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--lines", "pv-mono")
    fake.work(run, [stopped_at("train")], times={"train": {"ended": stamp(BEGAN + timedelta(minutes=20))}})
    fake.move(run, "CANCELING", BEGAN + timedelta(minutes=19))
    assert ", being ended" not in command("pipeline", "status")[1]
    fake.move(run, "FAILED", BEGAN + timedelta(minutes=20))  # as the real one does
    lines: dict[str, Any] = {"pv-mono": ("train", KeyboardInterrupt())}
    fake.wrote(run, "notify", None, table(run, lines))
    listed, said = command("pipeline", "status")[1], command("pipeline", "status", run)[1]
    assert "FAILED" not in listed + said
    assert rows(said)["train"].startswith("ended by hand")
    assert rows(said)["pv-mono"].startswith("ended by hand")
    assert "ended by hand" in listed.splitlines()[1]


def test_a_run_that_is_being_ended_for_ever_has_no_workflow(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--lines", "pv-mono")
    fake.work(run, [stopped_at("train", "RUNNING")], notify="")
    fake.move(run, "CANCELING", datetime.now(UTC) - timedelta(minutes=2))
    assert "being ended" in command("pipeline", "status")[1]
    fake.runs[run]["state_history"].pop()
    fake.move(run, "CANCELING", datetime.now(UTC) - timedelta(minutes=20))
    fake.move(run, "CANCELING")  # marked again by another `end`
    assert "its workflow is gone" in command("pipeline", "status")[1]


def test_a_run_that_argo_could_not_store_says_so(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--lines", "pv-mono")
    fake.move(run, "FAILED", BEGAN + timedelta(minutes=1))
    said = command("pipeline", "status", run)[1]
    assert "no step began; Argo could not store or start it" in said
    assert rows(said)["ingest"] == "not run"
    (item,) = fake.runs[run]["runtime_config"]["parameters"]["lines"]
    fake.runs[run]["runtime_config"]["parameters"]["lines"] = [{**item, "settings_json": "x" * 2**20}]
    said = command("pipeline", "status", run)[1]
    assert "Too long: may not be more than 1048576 bytes" in said
    assert "give a run fewer lines" in said


def test_a_pod_that_waits_is_mentioned_after_a_minute(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--lines", "pv-mono")
    for seconds, mentioned in ((20, False), (200, True)):
        since = stamp(datetime.now(UTC) - timedelta(seconds=seconds))
        fake.work(
            run,
            [stopped_at("train", "RUNNING")],
            notify="",
            pods={("train", 0): ["PENDING"]},
            times={"train": {"since": since}},
        )
        fake.move(run, "RUNNING")
        said = command("pipeline", "status", run, "--namespace", "plant")[1]
        assert ("A pod waits for 3 min" in said) == mentioned
        assert ("kubectl -n plant describe pods -l pipeline/runid=" in said) == mentioned
        assert "pv-mono  under way        in train" in said


def test_a_step_whose_driver_failed_shows(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--lines", "pv-mono")
    fake.work(run, [{"ingest": "SUCCEEDED", "validate-driver": "FAILED", "split-driver": "RUNNING"}], notify="")
    fake.move(run, "RUNNING")
    said = rows(command("pipeline", "status", run)[1])
    assert said["validate"] == "FAILED before it began (its driver)"
    assert said["split"] == "beginning"
    assert said["train"] == "to come"


def test_batch_predictions_are_listed_and_described_too(command: Command, fake: FakeKubeflow) -> None:
    assert command("pipeline", "upload")[0] == 0
    assert command("pipeline", "upload", "--pipeline", "batch-predict")[0] == 0
    assert command("pipeline", "submit", "--lines", "pv-poly")[0] == 0
    assert command("pipeline", "submit-batch", "pv-mono", "s3://camera/new")[0] == 0
    run = next(run for run in fake.runs.values() if "line" in run["runtime_config"]["parameters"])
    lines = command("pipeline", "status")[1].splitlines()[1:]
    assert [(line.split()[1], line.split()[-1]) for line in lines] == [
        ("batch-predict", "pv-mono"),
        ("training", "pv-poly"),
    ]
    said = rows(command("pipeline", "status", run["run_id"])[1])
    assert said["batch-plan"] == "to come"
    assert "notify" not in said


def test_a_run_that_is_not_there_is_named(command: Command, fake: FakeKubeflow) -> None:
    submitted(command, fake, "--lines", "pv-mono")
    for verb in ("status", "logs", "end"):
        code, said = command("pipeline", verb, "nonesuch")
        assert (code, "run 'nonesuch': no such run" in said) == (2, True)


def test_logs_of_what_failed_or_of_a_step_and_a_line(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--together")
    fake.work(run, [stopped_at("train"), DONE], pods={("train", 0): ["FAILED", "FAILED"]})
    fake.move(run, "FAILED")
    fake.wrote(run, "train", 0, "first try", "second try, token=s3cr3t")
    fake.wrote(run, "train", 1, "fine", kept=True)
    code, said = command("pipeline", "logs", run)
    assert code == 0
    assert "== train of pv-mono, attempt 2 of 2, pod morphad-training-" in said
    assert [line for line in said.splitlines() if not line.startswith("==")] == ["first try", "second try, token=***"]
    assert "fine" in command("pipeline", "logs", run[:8], "train", "--line", "pv-poly")[1]
    code, said = command("pipeline", "logs", run, "trian")
    assert code == 2
    assert "has no step 'trian'; did you mean train? It has: ingest, validate," in said
    code, said = command("pipeline", "logs", run, "promote", "--line", "pv-mono")
    assert code == 2
    assert "step promote has not begun. There are logs of: ingest, validate, split, train, notify" in said
    assert command("pipeline", "logs", run, "--line", "pcb")[0] == 2
    code, said = command("pipeline", "logs", run, "ingest")
    assert code == 2
    assert "--artifacts s3://mlpipeline, or KFP_ARTIFACTS" in said


def test_what_pods_left_in_the_artifact_store_is_read_there(
    command: Command,
    fake: FakeKubeflow,
    s3_bucket: str,
    s3: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = submitted(command, fake, "--lines", "pv-mono")
    workflow = fake.work(run, [stopped_at("train")])
    fake.move(run, "FAILED")
    lines: dict[str, MorphadError | Any] = {"pv-mono": ("train", CheckFailedError("no such"))}
    root = f"v2/artifacts/morphad-training/{run}"
    pod = workflow.pods["train", 0][0].replace(workflow.name, f"{workflow.name}-retry-system-container-impl")
    there = {
        f"{root}/notify/5a1f/summary": table(run, lines),
        f"{root}/ingest/77aa/executor-logs": "ingest wrote this",
        f"artifacts/{workflow.name}/2026/11/23/{pod}/main.log": "train wrote that",
    }
    for key, text in there.items():
        s3.client().put_object(Bucket=s3_bucket, Key=key, Body=text.encode())
    monkeypatch.setenv("KFP_ARTIFACTS", f"s3://{s3_bucket}")
    try:
        assert "failed in train: no such" in command("pipeline", "status", run)[1]
        assert "train wrote that" in command("pipeline", "logs", run)[1]
        assert "ingest wrote this" in command("pipeline", "logs", run, "ingest")[1]
    finally:
        for key in there:
            s3.client().delete_object(Bucket=s3_bucket, Key=key)


def test_logs_that_may_not_be_read_are_explained(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--lines", "pv-mono")
    fake.work(run, [stopped_at("train")])
    fake.move(run, "FAILED")
    fake.forbidden = "/apis/v1alpha1"
    code, said = command("pipeline", "logs", run, "--namespace", "plant")
    assert (code, "not allowed in namespace plant" in said) == (3, True)
    code, said = command("pipeline", "status", run)
    assert (code, "not allowed" in said) == (0, True)  # what may be read is shown


def test_a_run_is_ended_and_what_is_left_is_said(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--lines", "pv-mono")
    fake.work(run, [stopped_at("train", "RUNNING")], notify="")
    fake.move(run, "RUNNING")
    code, said = command("pipeline", "end", run[:8])
    assert code == 0
    assert "pv-mono: in train" in said
    assert "the checkpoint of a training, from which the line's next run goes on" in said
    assert fake.runs[run]["state"] == "CANCELING"
    fake.move(run, "FAILED")
    code, said = command("pipeline", "end", run)
    assert (code, "is over already: ended by hand" in said) == (0, True)


def test_ending_a_run_whose_workflow_is_gone_says_so(command: Command, fake: FakeKubeflow) -> None:
    run = submitted(command, fake, "--lines", "pv-mono")
    fake.gone.add(run)
    code, said = command("pipeline", "end", run)
    assert code == 0
    assert "nothing of the run works any more" in said


def test_tasks_of_an_unknown_kind_of_workflow_have_no_place() -> None:
    tasks = tuple(Task(name, "RUNNING", BEGAN, None, (f"elsewhere-{name}",)) for name in ("train", "split"))
    run = Run("r", "", "RUNNING", "", BEGAN, None, "", "", "", "", {}, None, tasks)
    (step,) = Workflow(run).steps(["train"])
    assert (step.line, step.pods, step.task.state) == (None, (), "RUNNING")
