"""`morphad pipeline submit` with other runs under way, `--queue`, `--wait` and its exit codes."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from fake_kubeflow import FakeKubeflow
from test_pipeline_status import DONE, stopped_at, table

from morphad.base import progress
from morphad.base.errors import BadInputError, CheckFailedError, ServiceError
from morphad.kubeflow import waiting

Command = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(progress, "_SECONDS", 0.0)


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Do something from a thread of its own while the block waits."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join(20)
    assert failures == []


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_line_with_a_run_under_way_is_refused_by_name(command: Command, fake: FakeKubeflow) -> None:
    assert command("pipeline", "upload")[0] == 0
    assert command("pipeline", "submit", "--lines", "pv-mono")[0] == 0
    (run,) = fake.runs
    fake.began(run, datetime(2026, 11, 23, 2, tzinfo=UTC))
    fake.work(run, [stopped_at("train", "RUNNING")], notify="")
    fake.move(run, "RUNNING")
    code, said = command("pipeline", "submit")
    assert code == 1
    assert f"pv-mono: run {run} is under way since 2026-11-23 02:00:00 UTC (in train)" in said
    assert "--queue" in said
    assert f"morphad pipeline end {run}" in said
    assert list(fake.runs) == [run]  # the other line was not started either
    assert command("pipeline", "submit", "--lines", "pv-poly")[0] == 0
    fake.move(run, "SUCCEEDED")
    assert command("pipeline", "submit", "--lines", "pv-mono")[0] == 0


def test_a_run_that_names_no_line_may_be_of_any_and_one_that_is_gone_of_none(
    command: Command, fake: FakeKubeflow
) -> None:
    assert command("pipeline", "upload")[0] == 0
    assert command("pipeline", "submit", "--lines", "pv-mono")[0] == 0
    (run,) = fake.runs
    del fake.runs[run]["runtime_config"]["parameters"]["lines"]
    code, said = command("pipeline", "submit", "--lines", "pv-poly")
    assert (code, "all lines: run" in said) == (1, True)
    fake.move(run, "CANCELING", datetime.now(UTC) - timedelta(minutes=11))
    assert command("pipeline", "submit", "--lines", "pv-poly")[0] == 0


def test_a_batch_prediction_is_no_other_run_of_the_line(command: Command, fake: FakeKubeflow) -> None:
    assert command("pipeline", "upload")[0] == 0
    assert command("pipeline", "upload", "--pipeline", "batch-predict")[0] == 0
    for _ in range(2):
        assert command("pipeline", "submit-batch", "pv-mono", "s3://camera/new")[0] == 0
    assert command("pipeline", "submit")[0] == 0


def test_a_queued_line_begins_when_the_other_run_has_ended(command: Command, fake: FakeKubeflow) -> None:
    assert command("pipeline", "upload")[0] == 0
    assert command("pipeline", "submit", "--lines", "pv-mono")[0] == 0
    (first,) = fake.runs

    def end_it() -> None:
        until(lambda: len(fake.runs) == 2)  # pv-poly need not wait
        time.sleep(0.2)
        assert len(fake.runs) == 2
        ended.append(time.time())
        fake.move(first, "FAILED")

    ended: list[float] = []
    with meanwhile(end_it):
        code, said = command("pipeline", "submit", "--queue")
    assert code == 0
    assert f"pv-mono: waits for the end of {first}" in said
    lines = [run["runtime_config"]["parameters"]["lines"][0]["line"] for run in fake.runs.values()]
    assert lines == ["pv-mono", "pv-poly", "pv-mono"]
    poly, mono = (run["runtime_config"]["parameters"]["free_at"] for run in list(fake.runs.values())[1:])
    assert poly < ended[0] < mono < time.time()  # what Kubeflow said last, for the line's lease


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ({"pv-mono": "version 1 is champion", "pv-poly": "version 1 awaits approval"}, 0),
        ({"pv-mono": "version 1 is champion", "pv-poly": "version 9 was refused: worse"}, 1),
        ({"pv-mono": ("validate", CheckFailedError("dark")), "pv-poly": "version 1 is champion"}, 1),
        ({"pv-mono": ("ingest", BadInputError("no folder")), "pv-poly": ("split", CheckFailedError("few"))}, 2),
        ({"pv-mono": ("ingest", BadInputError("no folder")), "pv-poly": ("register", ServiceError("MLflow"))}, 3),
        ({"pv-mono": "version 1 is champion", "pv-poly": ("train", KeyboardInterrupt())}, 3),
    ],
)
def test_waiting_ends_with_the_code_of_what_failed(
    command: Command, fake: FakeKubeflow, ends: dict[str, str | tuple[str, BaseException]], code: int
) -> None:
    assert command("pipeline", "upload")[0] == 0

    def work() -> None:
        until(lambda: len(fake.runs) == 2)
        runs = dict(zip(list(fake.runs), ends.items(), strict=True))
        tables = {run: table(run, dict([end])) for run, end in runs.items()}
        for run in runs:
            fake.work(run, [stopped_at("train", "RUNNING")], notify="")
            fake.move(run, "RUNNING")
        asked = len(fake.requests)
        until(lambda: len(fake.requests) > asked + 5)
        for run, (_, how) in runs.items():
            failed = not isinstance(how, str)
            fake.work(run, [stopped_at(how[0]) if failed else DONE])
            fake.wrote(run, "notify", None, tables[run])
            fake.move(run, "FAILED" if failed else "SUCCEEDED")

    with meanwhile(work):
        given, said = command("pipeline", "submit", "--wait")
    assert given == code, said
    assert "pv-mono: in train, " in said
    for line, how in ends.items():
        assert f"{line}: " in said
        assert (how if isinstance(how, str) else f"failed in {how[0]}") in said


def test_a_kubeflow_that_is_away_for_a_moment_is_waited_out(
    command: Command, fake: FakeKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("pipeline", "upload")[0] == 0
    monkeypatch.setattr("morphad.base.patience._FIRST_PAUSE", 0.05)

    def work() -> None:
        until(lambda: fake.runs)
        fake.broken = "/runs/"
        time.sleep(0.3)
        (run,) = fake.runs
        fake.work(run, [DONE])
        fake.move(run, "SUCCEEDED")
        fake.broken = None

    with meanwhile(work):
        code, said = command("pipeline", "submit", "--lines", "pv-mono", "--wait")
    assert (code, "pv-mono: done" in said) == (0, True)


def test_on_a_terminal_there_is_one_line_that_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ticker = progress.Ticker()
    ticker.say("pv-mono: in split")
    ticker.say("pv-mono: in train")
    ticker.close()
    assert capsys.readouterr().err == "\r\x1b[Kpv-mono: in split\r\x1b[Kpv-mono: in train\r\x1b[K"


def test_without_a_terminal_a_line_comes_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "_SECONDS", 30.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    ticker = progress.Ticker()
    for _ in range(13):
        now[0] += 10
        ticker.say(f"{now[0]:.0f}")
    assert capsys.readouterr().err.split() == ["130", "160", "190", "220"]
