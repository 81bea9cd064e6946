"""The lease of a line: one run at a time, whatever happens to it."""

import json
import multiprocessing
import os
import signal
import time
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from morphad.base.errors import BadInputError, CheckFailedError, OutageError
from morphad.steps.lease import LineLease, Silence

_FORK = multiprocessing.get_context("fork")


class Clock:
    """Shows what it is set to."""

    def __init__(self, now: float = 1e9) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def _hold(folder: Path, pipe: Any) -> None:
    lease = LineLease(folder)
    lease.begin("dead", "train")
    with lease.beating("dead", "train"):
        pipe.send("in")
        time.sleep(60)


def test_a_holder_that_was_killed_is_followed_after_ten_minutes_and_not_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = _FORK.Pipe()
    holder = _FORK.Process(target=_hold, args=(tmp_path, theirs))
    holder.start()
    assert ours.recv() == "in"
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    clock = Clock(time.time() + 590)
    lease = LineLease(tmp_path, clock=clock)
    with pytest.raises(CheckFailedError, match=r"run dead is in train since \d\d:\d\d UTC .* wait for its end"):
        lease.begin("next", "ingest")
    assert capsys.readouterr().err == ""
    clock.now += 15
    lease.begin("next", "ingest")
    assert (
        "morphad ingest: takes the line over from run dead, which gave no sign of life for 10 minutes, last in train"
        in (capsys.readouterr().err)
    )
    assert lease.read().run == "next"  # type: ignore[union-attr]


def test_between_steps_it_has_an_hour(tmp_path: Path) -> None:
    clock = Clock()
    lease = LineLease(tmp_path, clock=clock)
    lease.begin("one", "ingest")
    lease.leave("one", "ingest")
    clock.now += 3590
    with pytest.raises(CheckFailedError, match="run one is between steps, after ingest, since "):
        lease.begin("two", "ingest")
    clock.now += 20
    lease.begin("two", "ingest")


def test_a_run_that_kubeflow_knows_as_over_has_half_a_minute_more_and_three_heartbeats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    lease = LineLease(tmp_path, clock=clock)
    lease.begin("ended", "train")
    clock.now += 20  # it was ended by hand, and nothing of it could let the line go
    asked = clock.now
    clock.now += 40
    with pytest.raises(OutageError, match=r"run ended is in train since .* is over, as Kubeflow knows; .* 60 s ago"):
        lease.begin("next", "ingest", asked)
    clock.now += 31
    lease.begin("next", "ingest", asked)
    assert "run ended, which is over and gave no sign of life for 2 minutes, last in train" in capsys.readouterr().err


def test_between_steps_a_run_that_is_over_keeps_nothing(tmp_path: Path) -> None:
    clock = Clock()
    lease = LineLease(tmp_path, clock=clock)
    lease.begin("deleted", "ingest")
    lease.leave("deleted", "ingest")
    lease.begin("next", "ingest", clock.now + 1)
    with pytest.raises(CheckFailedError, match="run deleted has lost the line"):
        lease.go_on("deleted", "train")


@pytest.mark.parametrize("free_at", [0.0, 1e9 - 60])
def test_a_run_that_began_after_kubeflow_was_asked_keeps_the_line(tmp_path: Path, free_at: float) -> None:
    clock = Clock()
    lease = LineLease(tmp_path, clock=clock)
    lease.begin("schedule", "ingest")
    lease.leave("schedule", "ingest")
    clock.now += 300
    with pytest.raises(CheckFailedError, match="run schedule is between steps"):
        lease.begin("by hand", "ingest", free_at)


def test_a_run_that_goes_on_although_it_is_over_keeps_the_line(tmp_path: Path) -> None:
    lease = LineLease(tmp_path, Silence(0.01, 0.3, 0.5, 0.5))
    lease.begin("one", "train")
    with lease.beating("one", "train"):
        time.sleep(0.6)
        with pytest.raises(OutageError):
            lease.begin("two", "ingest", time.time())


def test_a_step_that_runs_for_hours_keeps_the_line(tmp_path: Path) -> None:
    lease = LineLease(tmp_path, Silence(0.01, 0.5, 0.5, 0.5))
    lease.begin("one", "train")
    begun = lease.read().since  # type: ignore[union-attr]
    with lease.beating("one", "train"):
        time.sleep(1)
        with pytest.raises(CheckFailedError):
            lease.begin("two", "ingest")
    assert lease.read().since == begun  # type: ignore[union-attr]


def test_a_step_whose_line_was_taken_over_is_ended(tmp_path: Path) -> None:
    said: list[str] = []
    clock = Clock()
    lease = LineLease(tmp_path, Silence(heartbeat=0.01), clock, said.append)
    lease.begin("one", "train")
    with lease.beating("one", "train"):
        other = Clock(clock.now + 601)  # a node whose clock is wrong
        LineLease(tmp_path, clock=other).begin("two", "ingest")
        for _ in range(500):
            if said:
                break
            time.sleep(0.01)
    assert said[0].startswith("train: run one has lost the line: run two is in ingest since ")
    with pytest.raises(CheckFailedError):
        lease.leave("one", "train")
    assert lease.read().run == "two"  # type: ignore[union-attr]


def _sleep_on(folder: Path) -> None:
    lease = LineLease(folder, Silence(heartbeat=0.01))
    lease.begin("one", "train")
    with lease.beating("one", "train"):
        time.sleep(60)


def test_by_default_its_process_ends_with_code_1(tmp_path: Path) -> None:
    process = _FORK.Process(target=_sleep_on, args=(tmp_path,))
    process.start()
    lease = LineLease(tmp_path, clock=lambda: time.time() + 700)
    while lease.read() is None:
        time.sleep(0.01)
    lease.begin("two", "ingest")
    process.join(30)
    assert process.exitcode == 1


def test_a_clock_that_goes_back_neither_frees_a_line_nor_keeps_it_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    lease = LineLease(tmp_path, clock=clock)
    lease.begin("one", "train")
    clock.now -= 365 * 86400
    with pytest.raises(CheckFailedError):
        lease.begin("two", "ingest")
    clock.now += 610  # dead by the clock that holds now
    lease.begin("two", "ingest")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "begin, having asked", "go on", "beat", "leave", "let go"]),
            st.sampled_from(["one", "two", "three"]),
            st.integers(-5000, 5000),
        ),
        max_size=40,
    )
)
@example([("leave", "two", 0), ("leave", "two", 52), ("begin, having asked", "one", -1)])
def test_nobody_loses_a_line_before_its_time(acts: list[tuple[str, str, int]]) -> None:
    """Whatever runs do in whatever order, with a clock that jumps: a run loses a line by silence alone."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        lease = LineLease(Path(folder), clock=clock)
        for act, run, seconds in acts:
            clock.now += seconds
            before = lease.read()
            try:
                if act == "begin":
                    lease.begin(run, "ingest")
                elif act == "begin, having asked":
                    lease.begin(run, "ingest", clock.now - 50)
                elif act == "go on":
                    lease.go_on(run, "train")
                elif act == "beat":
                    lease._mark(run, "train", "in")
                elif act == "leave":
                    lease.leave(run, "train")
                else:
                    lease.let_go(run)
            except (CheckFailedError, OutageError):
                after = lease.read()
                assert before is not None
                assert after is not None
                assert before.run == after.run != run
                continue
            after = lease.read()
            if before is not None and after is not None and before.run != after.run:
                assert act.startswith("begin")
                silent, known = clock.now - before.heartbeat, act != "begin" and before.since < clock.now - 50
                longest = (90 if before.state == "in" else -inf) if known else 600 if before.state == "in" else 3600
                assert before.state == "over" or silent > longest


def test_what_killed_processes_leave_goes(tmp_path: Path) -> None:
    (tmp_path / ".lease.json.abc").write_text("{")
    LineLease(tmp_path).begin("one", "ingest")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lease.json", "lease.lock"]


def test_a_damaged_lease_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "lease.json").write_text(json.dumps({"run": "x"}))
    lease = LineLease(tmp_path)
    with pytest.raises(BadInputError, match=r"lease\.json: no lease of a line; remove it"):
        lease.begin("one", "ingest")
    (tmp_path / "lease.json").unlink()
    lease.begin("one", "ingest")
