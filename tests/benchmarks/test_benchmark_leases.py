"""The program that races runs of a line and kills their steps: it finds what is mixed, and here finds nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import line_leases as program
from morphad.steps.lease import LineLease


def test_no_race_has_two_holders_and_no_kill_mixes_runs(tmp_path: Path) -> None:
    figures = program.run(races=30, kills=2, seed=1, out=tmp_path / "out.json")
    assert (figures["races"], figures["double_holders"], figures["no_holder"]) == (30, 0, 0)
    assert (figures["kills"], figures["mixed_states"]) == (2, 0)
    assert (tmp_path / "out.json").exists()


def test_without_the_lease_it_finds_mixed_states(monkeypatch: pytest.MonkeyPatch) -> None:
    def anyone(self: LineLease, run: str | None, step: str, free_at: float = 0.0) -> str:
        return run or ""

    @contextmanager
    def unchecked(self: LineLease, run: str) -> Iterator[None]:
        yield

    monkeypatch.setattr(LineLease, "held", unchecked)
    for name in ("begin", "go_on"):
        monkeypatch.setattr(LineLease, name, anyone)
    figures = program.run(races=3, kills=3, seed=1)
    assert figures["double_holders"] == 3
    assert figures["mixed_states"] > 0
