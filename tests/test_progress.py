"""What people see of long work."""

import time
from collections.abc import Iterator

import pytest

from morphad.base import progress
from morphad.base.progress import Display, track


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.1)


def wait_for(capsys: pytest.CaptureFixture[str], lines: int) -> list[str]:
    said = ""
    for _ in range(500):
        said += capsys.readouterr().err
        if said.count("\n") >= lines:
            break
        time.sleep(0.01)
    return said.splitlines()


def test_without_a_terminal_a_line_comes_while_the_work_reports_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("weave") as display:
        display("training", 12, 150)
        said = wait_for(capsys, 2)
        assert all(line.startswith("training weave: 12 of 150 after ") for line in said)
        display("fitting scores", 40, 40)  # all are taken in, and minutes of arithmetic follow
        assert "fitting scores weave: 40 of 40 after " in wait_for(capsys, 1)[-1]
    time.sleep(0.3)
    assert capsys.readouterr().err == ""


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 30)
    assert list(track(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_an_item_that_takes_long_does_not_silence_it(capsys: pytest.CaptureFixture[str]) -> None:
    def items() -> Iterator[int]:
        yield 1
        assert wait_for(capsys, 2)[-1].startswith("fetching: 1 of 2 after ")
        yield 2

    assert list(track(items(), "fetching", total=2)) == [1, 2]
