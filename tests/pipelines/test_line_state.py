"""What is on record of a line between and after runs."""

from pathlib import Path

import pytest

from morphad.base.errors import BadInputError, CheckFailedError, ServiceError
from morphad.steps.line_state import LineState, ends


def test_a_run_that_ended_is_told_with_its_outcome(tmp_path: Path) -> None:
    state = LineState(tmp_path, "pcb")
    with state.step("ingest", "r1"):
        pass
    with state.step("promote"):
        state.finish("r1", "version 3 is champion")
    assert state.end("r1") == (True, "version 3 is champion")


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
    assert state.end("r1") == (False, "failed in register: MLflow at http://x: refused")


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
        assert LineState(tmp_path, line).code("r") == code
        assert LineState(tmp_path, line).code("another") is None
    assert "failed in s: ZeroDivisionError: division by zero" in ends(tmp_path, ["broken"], "r")[1]
    assert "| killed | **failed** |  | failed in s: see the log" in ends(tmp_path, ["killed"], "r")[1]
    LineState(tmp_path, "said-no").finish("r", "version 4 was refused", 1)
    assert "| said-no | done | 1 | version 4 was refused |" in ends(tmp_path, ["said-no"], "r")[1]


def test_a_pod_that_was_killed_is_told_by_its_step(tmp_path: Path) -> None:
    state = LineState(tmp_path, "pcb")
    with pytest.raises(KeyboardInterrupt), state.step("ingest", "r1"):
        raise KeyboardInterrupt
    done, told = state.end("r1")
    assert not done
    assert "ingest" in told


def test_a_step_that_succeeds_when_repeated_leaves_no_failure(tmp_path: Path) -> None:
    state = LineState(tmp_path, "pcb")
    with pytest.raises(SystemExit), state.step("ingest", "r1"):
        raise CheckFailedError("once")
    with state.step("ingest", "r1"):
        pass
    assert "once" not in state.end("r1")[1]


def test_an_earlier_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    state = LineState(tmp_path, "pcb")
    with state.step("ingest", "r1"):
        pass
    state.finish("r1", "version 1 is champion")
    assert state.end("r2") == (False, "did not start")


def test_the_table_has_a_row_for_every_line_whatever_its_record(tmp_path: Path) -> None:
    LineState(tmp_path, "good").finish("r", "a | b\nc")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "progress.json").write_text("{")
    whole, table = ends(tmp_path, ["good", "torn", "../up", "new"], "r")
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
