"""The program that simulates the gate: its worlds are what they say, and its tables hold every world."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gate_characteristics as program
from benchmarks.gate_characteristics import World
from morphad.decision.gate import Evidence
from morphad.decision.metrics import image_metrics
from morphad.settings import PromoteSettings


def figures(evidence: Evidence) -> dict[str, float]:
    """AUROC, overkill, escapes, and escapes of the first kind."""
    labels, scores = np.array(evidence.labels), np.asarray(evidence.scores)
    rejected, kinds = scores > evidence.threshold, np.array(evidence.kinds)
    auroc = image_metrics(labels, scores)["image_auroc"]
    assert auroc is not None
    return {
        "auroc": auroc,
        "overkill": rejected[labels == "good"].mean(),
        "escape": (~rejected[labels == "defect"]).mean(),
        "kind": (~rejected[kinds == "kind 0"]).mean(),
    }


@pytest.mark.parametrize(
    ("worse", "by"), [("", 0.0), ("auroc", 0.04), ("overkill", 0.1), ("escape", 0.2), ("kind", 0.4)]
)
def test_a_challenger_is_worse_by_what_its_world_says(worse: str, by: float) -> None:
    world = World(40_000, 40_000, 2, 0.95, 0.9, worse, by)
    challenger, champion = map(figures, program.draw(world, np.random.default_rng(0)))
    assert champion["auroc"] == pytest.approx(0.95, abs=0.005)
    assert champion["overkill"] == pytest.approx(0.05, abs=0.005)
    change = {name: challenger[name] - champion[name] for name in champion}
    expected = {
        "": {"auroc": 0, "overkill": 0, "escape": 0, "kind": 0},
        "auroc": {"auroc": -0.04, "overkill": 0},
        "overkill": {"auroc": 0, "overkill": 0.1},
        "escape": {"auroc": 0, "escape": 0.2},
        "kind": {"overkill": 0, "kind": 0.4, "escape": 0.2},
    }[worse]
    for name, value in expected.items():
        assert change[name] == pytest.approx(value, abs=0.01)


def test_scores_correlate_and_the_images_are_the_same() -> None:
    challenger, champion = program.draw(World(20_000, 100, 5, 0.95, 0.6), np.random.default_rng(0))
    good = slice(0, 20_000)
    found = np.corrcoef(np.asarray(challenger.scores)[good], np.asarray(champion.scores)[good])[0, 1]
    assert found == pytest.approx(0.6, abs=0.02)
    assert challenger.labels == champion.labels
    assert challenger.kinds == champion.kinds


def test_the_gate_is_asked_and_the_checks_that_fail_are_counted() -> None:
    limits = PromoteSettings(bootstrap=100)
    worse = program.measure(World(100, 100, 5, 0.95, 0.9, "escape", 0.4), limits, 5, 0)
    assert worse["promoted"] == 0
    assert worse["failed"]["escape_difference"] == 1
    lenient = PromoteSettings(bootstrap=100, auroc_margin=0.5, overkill_margin=0.5, escape_margin=1.0)
    equal = program.measure(World(100, 100, 5, 0.95, 0.9), lenient, 5, 0)
    assert (equal["promoted"], equal["failed"]) == (1, {})


def test_the_ceiling_table_is_exact() -> None:
    """Of 10 defects with a ceiling of 20 %, two may be missed: the chance of at most two of 10 at 10 % is 93 %."""
    assert program.ceiling(10, 0.1, 0.2) == pytest.approx(0.9298, abs=1e-4)


def test_results_say_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gate.json"
    monkeypatch.setattr(program, "SIZES", ((25, 25), (30, 25)))
    monkeypatch.setattr("sys.argv", ["gate", "--runs", "1", "--bootstrap", "100", "--seed", "3", "--out", str(out)])
    program.main()
    results = json.loads(out.read_text())
    stopped = {**results, "rows": results["rows"][:-1]}
    out.write_text(json.dumps(stopped))
    asked: list[World] = []
    measure = program.measure
    monkeypatch.setattr(program, "measure", lambda world, *rest: asked.append(world) or measure(world, *rest))
    capsys.readouterr()
    program.main()
    assert [program.world_of(row) for row in results["rows"]][-1:] == asked  # the others were measured already
    assert json.loads(out.read_text())["rows"] == results["rows"]
    assert (results["runs"], results["seed"], results["settings"]["bootstrap"]) == (1, 3, 100)
    assert results["command"].startswith("python -m benchmarks.gate_characteristics --runs 1")
    assert results["machine"]["cores"]
    printed = capsys.readouterr().out
    assert printed.count("| 25 + 25 |") == printed.count("| 30 + 25 |") == 2
    assert "| 20 |" in printed
