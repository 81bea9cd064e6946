"""What is on record of a line between and after runs."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from morphad.base.errors import BadInputError, CheckFailedError, OutageError, ServiceError
from morphad.base.patience import wait_out
from morphad.steps import line_state
from morphad.steps.line_state import LineState, close, free_lines


def test_a_run_that_ended_is_told_with_its_outcome(tmp_path: Path) -> None:
    state = LineState(tmp_path, "pcb")
    with state.step("ingest", "r1"):
        pass
    with state.step("promote"):
        state.finish("r1", "version 3 is champion")
    assert state.end("r1") == (True, 0, "version 3 is champion")


def test_an_error_ends_the_process_with_its_code_and_stays_on_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = LineState(tmp_path, "pcb")
    with state.step("ingest", "r1"):
        pass
    with pytest.raises(SystemExit) as ended, state.step("register"):
        raise ServiceError("MLflow at http://x: refused")
    assert ended.value.code == 3
    assert capsys.readouterr().err == "morphad register pcb: MLflow at http://x: refused\n"
    assert state.end("r1") == (False, 3, "failed in register: MLflow at http://x: refused")


def test_each_end_has_the_code_of_its_process_and_a_killed_one_none(tmp_path: Path) -> None:
    ends_of = {
        "refused": (CheckFailedError("too few"), 1),
        "wrong": (BadInputError("no such folder"), 2),
        "away": (ServiceError("MLflow"), 3),
        "broken": (ZeroDivisionError("division by zero"), 1),
        "killed": (KeyboardInterrupt(), None),
    }
    for line, (error, code) in ends_of.items():
        with (
            pytest.raises((SystemExit, KeyboardInterrupt, ZeroDivisionError)),
            LineState(tmp_path, line).step("s", "r"),
        ):
            raise error
        assert LineState(tmp_path, line).end("r").code == code
        assert LineState(tmp_path, line).end("another").code is None
    assert "failed in s: ZeroDivisionError: division by zero" in close(tmp_path, ["broken"], "r")[1]
    assert "| killed | **failed** |  | failed in s: see the log" in close(tmp_path, ["killed"], "r")[1]
    LineState(tmp_path, "said-no").finish("r", "version 4 was refused", code=1)
    assert "| said-no | done | 1 | version 4 was refused |" in close(tmp_path, ["said-no"], "r")[1]


def test_a_pod_that_was_killed_is_told_by_its_step(tmp_path: Path) -> None:
    state = LineState(tmp_path, "pcb")
    with pytest.raises(KeyboardInterrupt), state.step("ingest", "r1"):
        raise KeyboardInterrupt
    end = state.end("r1")
    assert not end.done
    assert "ingest" in end.how


def test_a_step_that_succeeds_when_repeated_leaves_no_failure(tmp_path: Path) -> None:
    state = LineState(tmp_path, "pcb")
    with pytest.raises(SystemExit), state.step("ingest", "r1"):
        raise CheckFailedError("once")
    with state.step("ingest", "r1"):
        pass
    assert "once" not in state.end("r1").how


def test_an_earlier_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    state = LineState(tmp_path, "pcb")
    with state.step("ingest", "r1"):
        pass
    state.finish("r1", "version 1 is champion")
    assert state.end("r2") == (False, None, "did not start")


def test_the_table_has_a_row_for_every_line_whatever_its_record(tmp_path: Path) -> None:
    with LineState(tmp_path, "good").step("ingest", "r"):
        LineState(tmp_path, "good").finish("r", "a | b\nc")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "progress.json").write_text("{")
    whole, table = close(tmp_path, ["good", "torn", "../up", "new"], "r")
    assert not whole
    assert "1 of 4" in table
    rows = table.splitlines()[-4:]
    assert rows[0] == "| good | done | 0 | a / b c |"
    assert "not valid JSON" in rows[1]
    assert "../up" in rows[2]
    assert "a line's name" in rows[2]
    assert "did not start" in rows[3]


def test_a_line_cannot_leave_the_state_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, LineState(tmp_path / "state", "../up").step("ingest", "r"):
        pass
    assert ended.value.code == 2
    assert "'../up'" in capsys.readouterr().err
    assert not (tmp_path / "up").exists()


def test_a_volume_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").write_text("a file where the volume should be mounted")
    with pytest.raises(SystemExit) as ended, LineState(tmp_path / "state", "pcb").step("ingest", "r"):
        pass
    assert ended.value.code == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_second_run_ends_with_code_1_before_it_touches_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = LineState(tmp_path, "pcb")
    with state.step("ingest", "r1"):
        pass
    with state.step("train"):
        before = {path: path.read_bytes() for path in state.folder.iterdir()}
        with pytest.raises(SystemExit) as ended, LineState(tmp_path, "pcb").step("ingest", "r2"):
            pytest.fail("the step's work began")
        assert {path: path.read_bytes() for path in state.folder.iterdir()} == before
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("morphad ingest pcb: run r1 is in train since ")
    assert "wait for its end" in said
    assert str(state.lease.file) in said
    assert state.end("r2").how.startswith("did not start: run r1 is between steps, after train, since ")


def test_a_line_is_free_when_its_run_has_decided_or_is_over(tmp_path: Path) -> None:
    state = LineState(tmp_path, "pcb")
    with state.step("ingest", "r1"):
        pass
    with state.step("promote"):
        state.finish("r1", "version 1 is champion")
    with state.step("ingest", "r2"):
        pass
    close(tmp_path, ["pcb"], "r1")  # late, and no longer in charge
    with pytest.raises(SystemExit), state.step("ingest", "r3"):
        pass
    close(tmp_path, ["pcb"], "r2")
    with state.step("ingest", "r3"):
        pass


def test_steps_know_their_run_and_refuse_when_another_has_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    state = LineState(tmp_path, "pcb", clock=lambda: now[0])
    with state.step("ingest", "r1"):
        pass
    now[0] = 3700.0  # its next pod waited an hour for a node
    with state.step("ingest", "r2"):
        pass
    assert "takes the line over from run r1" in capsys.readouterr().err
    monkeypatch.setenv(line_state.RUN, "r1")
    with pytest.raises(SystemExit) as ended, state.step("train"):
        pytest.fail("the step's work began")
    assert ended.value.code == 1
    assert "run r1 has lost the line: run r2 is between steps" in capsys.readouterr().err
    monkeypatch.setenv(line_state.RUN, "r2")
    with state.step("train"):
        pass
    with pytest.raises(CheckFailedError):
        state.finish("r1", "version 9 is champion")
    assert not state.end("r2").done


def test_a_run_that_is_repeated_after_its_end_goes_on(tmp_path: Path) -> None:
    """Kubeflow may lose a pod between the step's last write and its own record of it."""
    state = LineState(tmp_path, "pcb")
    with state.step("ingest", "r1"):
        pass
    for _ in range(2):
        with state.step("promote"):
            state.finish("r1", "version 1 is champion")
    assert state.end("r1") == (True, 0, "version 1 is champion")


def test_runs_that_were_killed_on_one_machine_do_not_keep_its_lines(tmp_path: Path) -> None:
    state = LineState(tmp_path, "pcb")
    state.lease.begin("r1", "ingest")
    (tmp_path / ".lock").write_text("")
    free_lines(tmp_path)
    with state.step("ingest", "r2"):
        pass


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_volume_that_is_away_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, wrapped: bool
) -> None:
    pauses: list[float] = []
    monkeypatch.setenv("MORPHAD_PATIENCE_MINUTES", "1")
    monkeypatch.setitem(wait_out.__kwdefaults__, "sleep", pauses.append)
    state, tries = LineState(tmp_path, "pcb"), []

    def work() -> str:
        tries.append(1)
        if len(tries) < 3:
            error = OSError(code, os.strerror(code), str(state.folder / "holdout.json"))
            if wrapped:
                raise BadInputError("holdout.json: cannot be read") from error
            raise error
        return "done"

    with state.step("ingest", "r1") as patiently:
        assert patiently(work) == "done"
    said = capsys.readouterr().err
    assert said.count(f"morphad ingest pcb: {tmp_path}: the volume does not answer ({os.strerror(code)})") == 2
    assert len(pauses) == 2


def test_a_disk_that_fails_elsewhere_and_a_full_volume_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORPHAD_PATIENCE_MINUTES", "1")
    monkeypatch.setitem(wait_out.__kwdefaults__, "sleep", lambda _: pytest.fail("it waits"))
    errors = [
        OSError(errno.EIO, "Input/output error", "/scratch/a.png"),
        OSError(errno.ENOSPC, "No space", str(tmp_path / "x")),
    ]
    for error in errors:

        def work(error: OSError = error) -> None:
            raise error

        with pytest.raises(OSError, match=error.strerror), LineState(tmp_path, "pcb").step("ingest", "r1") as patiently:
            patiently(work)


def test_the_end_waits_for_the_volume_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with LineState(tmp_path, "pcb").step("ingest", "r1"):
        pass
    read, away = line_state.read_json, [True, True]

    def stale(path: Path) -> Any:
        if away:
            away.pop()
            raise BadInputError(f"{path}: cannot be read") from OSError(errno.ESTALE, "Stale file handle", str(path))
        return read(path)

    monkeypatch.setattr(line_state, "read_json", stale)
    monkeypatch.setenv("MORPHAD_PATIENCE_MINUTES", "1")
    monkeypatch.setitem(wait_out.__kwdefaults__, "sleep", lambda _: None)
    assert "failed in ingest" in close(tmp_path, ["pcb"], "r1")[1]
    assert capsys.readouterr().err.count("Stale file handle") == 2
    away.append(True)
    monkeypatch.setenv("MORPHAD_PATIENCE_MINUTES", "0")
    with pytest.raises(OutageError):
        close(tmp_path, ["pcb"], "r1")
