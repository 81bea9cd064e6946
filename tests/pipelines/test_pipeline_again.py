"""`morphad pipeline again`: what was interrupted is submitted anew, and nothing else, and not for ever."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from fake_kubeflow import FakeKubeflow
from test_pipeline_status import DONE, stopped_at, table

from morphad.base.errors import BadInputError, CheckFailedError, ServiceError
from morphad.kubeflow import again

Command = Callable[..., tuple[int, str]]

INTERRUPTIONS = [
    ("register", ServiceError("MLflow at http://mlflow: no answer")),
    ("train", KeyboardInterrupt()),  # no record: its pod was killed or deleted
]
NO_INTERRUPTIONS = [
    ("ingest", BadInputError("no such folder")),
    ("validate", CheckFailedError("40 % are dark")),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "_SETTLE_SECONDS", 0.0)


def failed(command: Command, fake: FakeKubeflow, how: Any, hours: float = 1, line: str = "pv-mono") -> str:
    """A run of a line that began some hours ago and failed."""
    if not fake.versions:
        assert command("pipeline", "upload")[0] == 0
    code, said = command("pipeline", "submit", "--lines", line, "--reason", "schedule nightly", "--seed", "7")
    assert code == 0, said
    run = list(fake.runs)[-1]
    fail(fake, run, how, hours)
    return run


def fail(fake: FakeKubeflow, run: str, how: Any, hours: float) -> None:
    (item,) = fake.runs[run]["runtime_config"]["parameters"]["lines"]
    fake.began(run, datetime.now(UTC) - timedelta(hours=hours))
    fake.work(run, [stopped_at(how[0])])
    fake.wrote(run, "notify", None, table(run, {item["line"]: how}))
    fake.move(run, "FAILED")


@pytest.mark.parametrize("how", INTERRUPTIONS)
def test_an_interrupted_line_is_submitted_once_with_the_settings_that_it_had(
    command: Command, fake: FakeKubeflow, how: Any
) -> None:
    run = failed(command, fake, how)
    code, said = command("pipeline", "again", "--plan")
    assert (code, "would be submitted again (1 of 2)" in said) == (0, True)
    assert list(fake.runs) == [run]
    code, said = command("pipeline", "again")
    assert (code, f"pv-mono: run {run} interrupted: failed in {how[0]}" in said) == (0, True)
    made = list(fake.runs)[-1]
    assert f"pv-mono: run {made}" in said
    before, given = (fake.runs[each]["runtime_config"]["parameters"] for each in (run, made))
    assert given == {**before, "reason": f"again after {run} (schedule nightly)", "free_at": given["free_at"]}
    assert given["free_at"] > before["free_at"]  # Kubeflow was asked anew which runs are under way
    for key in ("experiment_id", "pipeline_version_reference"):
        assert fake.runs[made][key] == fake.runs[run][key]
    for _ in range(2):  # it is under way, and then it is done
        code, said = command("pipeline", "again")
        assert (code, said) == (0, "no last run of a line or batch within 24h failed\n")
        fake.work(made, [DONE])
        fake.move(made, "SUCCEEDED")
    assert len(fake.runs) == 2


@pytest.mark.parametrize("how", NO_INTERRUPTIONS)
def test_bad_input_and_a_check_that_said_no_are_not_tried_again(command: Command, fake: FakeKubeflow, how: Any) -> None:
    run = failed(command, fake, how)
    code, said = command("pipeline", "again")
    assert (code, f"run {run} failed: failed in {how[0]}" in said, "not again" in said) == (0, True, True)
    assert list(fake.runs) == [run]


def test_neither_is_what_ended_by_hand_nor_what_is_older_nor_what_nobody_knows(
    command: Command, fake: FakeKubeflow
) -> None:
    run = failed(command, fake, INTERRUPTIONS[1])
    fake.runs[run]["state_history"].insert(1, {"update_time": "2026-11-23T02:00:00Z", "state": "CANCELING"})
    assert command("pipeline", "again") == (0, "no last run of a line or batch within 24h failed\n")
    run = failed(command, fake, INTERRUPTIONS[1], hours=3)
    assert command("pipeline", "again", "--since", "2h") == (0, "no last run of a line or batch within 2h failed\n")
    fake.logs.clear()
    code, said = command("pipeline", "again")
    assert (code, "no log is left" in said, "not again" in said) == (0, True, True)
    assert list(fake.runs)[-1] == run


def test_a_line_is_begun_again_so_often_a_day_and_then_it_is_somebodys_turn(
    command: Command, fake: FakeKubeflow
) -> None:
    failed(command, fake, INTERRUPTIONS[0], hours=5)
    for hours in (4, 3):
        assert command("pipeline", "again")[0] == 0
        fail(fake, list(fake.runs)[-1], INTERRUPTIONS[0], hours)
    assert len(fake.runs) == 3
    code, said = command("pipeline", "again")
    assert code == 1
    assert "was submitted again 2 times within 24 hours; not again" in said
    assert "pv-mono: interrupted again and again" in said
    assert len(fake.runs) == 3
    last = list(fake.runs)[-1]
    assert command("pipeline", "again", "--at-most", "3")[0] == 0
    reason = list(fake.runs.values())[-1]["runtime_config"]["parameters"]["reason"]
    assert reason == f"again after {last} (schedule nightly)"


def test_of_a_run_of_several_lines_only_those_that_were_interrupted_begin_again(
    command: Command, fake: FakeKubeflow
) -> None:
    assert command("pipeline", "upload")[0] == 0
    assert command("pipeline", "submit", "--together")[0] == 0
    (run,) = fake.runs
    fake.work(run, [stopped_at("train"), stopped_at("validate")])
    lines = {"pv-mono": INTERRUPTIONS[1], "pv-poly": NO_INTERRUPTIONS[1]}
    fake.wrote(run, "notify", None, table(run, lines))
    fake.move(run, "FAILED")
    assert command("pipeline", "again")[0] == 0
    (_, made) = fake.runs.values()
    assert [item["line"] for item in made["runtime_config"]["parameters"]["lines"]] == ["pv-mono"]


def test_of_two_that_do_it_at_once_one_gives_way(
    command: Command, fake: FakeKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = failed(command, fake, INTERRUPTIONS[0])
    twin: list[str] = []

    def another_is_faster(_: float) -> None:
        mine = list(fake.runs.values())[-1]
        twin.append(
            fake._create_run(
                body={
                    key: mine[key]
                    for key in ("display_name", "experiment_id", "pipeline_version_reference", "runtime_config")
                }
            )["run_id"]
        )
        fake.runs[twin[0]]["created_at"] = "2026-11-23T02:00:00Z"

    monkeypatch.setattr(again.time, "sleep", another_is_faster)
    code, said = command("pipeline", "again")
    assert (code, f"run {twin[0]}, which another command submitted" in said) == (0, True)
    mine = next(each for each in fake.runs if each not in {run, twin[0]})
    assert (fake.runs[mine]["state"], fake.runs[twin[0]]["state"]) == ("CANCELING", "PENDING")


@pytest.mark.parametrize("words", [("--since", "soon"), ("--since", "0h"), ("--at-most", "-1")])
def test_what_makes_no_sense_is_wrong_use(command: Command, words: tuple[str, str]) -> None:
    code, said = command("pipeline", "again", *words)
    assert (code, words[0] in said) == (2, True)


def test_a_line_that_failed_and_then_went_well_is_left_alone(command: Command, fake: FakeKubeflow) -> None:
    failed(command, fake, INTERRUPTIONS[0], hours=5)
    assert command("pipeline", "submit", "--lines", "pv-mono")[0] == 0
    fake.move(list(fake.runs)[-1], "SUCCEEDED")
    assert command("pipeline", "again")[0] == 0
    assert len(fake.runs) == 2


def test_a_line_that_another_run_works_on_is_left_alone(command: Command, fake: FakeKubeflow) -> None:
    run = failed(command, fake, INTERRUPTIONS[0])
    assert command("pipeline", "submit", "--lines", "pv-mono")[0] == 0
    other = list(fake.runs)[-1]
    fake.began(other, datetime.now(UTC) - timedelta(days=2))
    fake.runs = {other: fake.runs[other], run: fake.runs[run]}  # it began long before, and is under way still
    code, said = command("pipeline", "again")
    assert (code, f"pv-mono: run {other} is under way; not again" in said) == (0, True)
    assert list(fake.runs) == [other, run]


def batch(command: Command, fake: FakeKubeflow, images: str, *ends: str) -> str:
    """A batch prediction whose shards ended so: what the launcher wrote last, "": well."""
    if not fake.versions:
        assert command("pipeline", "upload", "--pipeline", "batch-predict")[0] == 0
    code, said = command("pipeline", "submit-batch", "pv-mono", images, "--reason", "every night")
    assert code == 0, said
    run = list(fake.runs)[-1]
    end(fake, run, *ends)
    return run


def end(fake: FakeKubeflow, run: str, *ends: str) -> None:
    fake.shards(run, ["FAILED" if end else "SUCCEEDED" for end in ends])
    for number, text in enumerate(ends):
        fake.wrote(run, "batch-predict", number, text)
    fake.move(run, "FAILED" if any(ends) else "SUCCEEDED")


LOST, WRONG = "F1123 failed to execute component: signal: killed", "F1123 failed to execute component: exit status 2"


def test_an_interrupted_batch_prediction_is_submitted_again_and_then_it_is_somebodys_turn(
    command: Command, fake: FakeKubeflow
) -> None:
    batch(command, fake, "s3://camera/monday", "", "")
    run = batch(command, fake, "s3://camera/tuesday", "", LOST, "")
    batch(command, fake, "s3://camera/wednesday", "", "")  # of the same line, and another work
    code, said = command("pipeline", "again")
    assert (code, f"pv-mono, batch s3://camera/tuesday: run {run} interrupted" in said) == (0, True)
    made = list(fake.runs)[-1]
    before, given = (fake.runs[each]["runtime_config"]["parameters"] for each in (run, made))
    assert given == {**before, "reason": f"again after {run} (every night)"}
    assert command("pipeline", "again") == (0, "no last run of a line or batch within 24h failed\n")
    end(fake, made, LOST)
    assert command("pipeline", "again")[0] == 0
    end(fake, list(fake.runs)[-1], LOST)
    code, said = command("pipeline", "again")
    assert (code, "pv-mono, batch s3://camera/tuesday: interrupted again and again" in said) == (1, True)
    assert len(fake.runs) == 5


def test_a_batch_of_which_one_shard_had_bad_input_is_not_tried_again(command: Command, fake: FakeKubeflow) -> None:
    run = batch(command, fake, "s3://camera/monday", WRONG, LOST)
    code, said = command("pipeline", "again")
    assert (code, f"run {run} failed: failed in batch-predict, exit code 2; not again" in said) == (0, True)
    assert list(fake.runs) == [run]
