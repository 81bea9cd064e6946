"""How often the gate promotes equal and worse challengers: all its checks together, simulated.

    python -m benchmarks.gate_characteristics [--runs 200] [--seed 0] [--bootstrap 200] --out FILE.json

Scores of good images are normal, those of defects normal and higher. Champion and challenger see the same images, and
the scores that either gives to an image correlate. The champion rejects 5 % of good parts. Each run draws a holdout and
asks `morphad.decision.gate.decide` with the default settings; a cell of the tables is the share of the runs in which
the challenger was promoted. The ceiling of escapes alone needs no simulation: its table is exact. FILE.json is written
after each cell; the same command goes on where it was stopped.
"""

import argparse
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.measuring import revision
from morphad.base.files import read_json, write_json
from morphad.base.progress import track
from morphad.decision.gate import Evidence, decide
from morphad.decision.gate_checks import escape_ceiling
from morphad.settings import PromoteSettings

OVERKILL = 0.05  # of the champion
SIZES = ((25, 25), (50, 50), (100, 25), (100, 100), (300, 25), (300, 100), (300, 300))  # good, defect
LIMITS = PromoteSettings()

# What is worse about the challenger, and by how much: its AUROC, overkill, escapes, or the escapes of one kind.
WORSE = (
    ("auroc", LIMITS.auroc_margin),
    ("auroc", 2 * LIMITS.auroc_margin),
    ("overkill", LIMITS.overkill_margin),
    ("overkill", 2 * LIMITS.overkill_margin),
    ("escape", LIMITS.escape_margin),
    ("escape", 2 * LIMITS.escape_margin),
    ("kind", LIMITS.escape_margin),
    ("kind", 2 * LIMITS.escape_margin),
    ("kind", 4 * LIMITS.escape_margin),
)


@dataclass(frozen=True)
class World:
    """A line, its holdout and two models.

    Attributes:
        good: Good images of the holdout.
        defects: Defect images, shared evenly among the kinds.
        kinds: How many kinds of defect there are.
        auroc: Of the champion, in truth.
        correlation: Of the scores that the two give to images of one class.
        worse: What is worse about the challenger: "", auroc, overkill, escape or kind.
        by: By how much, as a fraction.
    """

    good: int
    defects: int
    kinds: int
    auroc: float
    correlation: float
    worse: str = ""
    by: float = 0.0


def shift_of(auroc: float) -> float:
    """How far defects lie above good images, in standard deviations."""
    return float(np.sqrt(2) * stats.norm.ppf(auroc))


def models(world: World) -> tuple[float, float, "np.ndarray[Any, np.dtype[np.float64]]", float]:
    """Threshold and shift of the champion, then shifts by kind and threshold of the challenger."""
    shift, threshold = shift_of(world.auroc), float(stats.norm.isf(OVERKILL))
    escape = float(stats.norm.cdf(threshold - shift))
    shifts, new = np.full(world.kinds, shift), threshold
    if world.worse == "auroc":
        shifts[:] = shift_of(world.auroc - world.by)
    elif world.worse == "overkill":
        new = float(stats.norm.isf(OVERKILL + world.by))
    elif world.worse == "escape":
        new = shift + float(stats.norm.ppf(escape + world.by))
    elif world.worse == "kind":
        shifts[0] = threshold - float(stats.norm.ppf(escape + world.by))
    return threshold, shift, shifts, new


def draw(world: World, rng: np.random.Generator) -> tuple[Evidence, Evidence]:
    """Challenger and champion on one holdout."""
    threshold, shift, shifts, new = models(world)
    kind = np.arange(world.defects) % world.kinds
    total = world.good + world.defects
    labels = ["good"] * world.good + ["defect"] * world.defects
    kinds = [""] * world.good + [f"kind {number}" for number in kind]
    own, common = np.sqrt(1 - world.correlation), np.sqrt(world.correlation) * rng.normal(size=total)
    above = np.concatenate([np.zeros(world.good), np.ones(world.defects)])
    old_scores = common + own * rng.normal(size=total) + shift * above
    new_scores = common + own * rng.normal(size=total) + np.concatenate([np.zeros(world.good), shifts[kind]])
    return Evidence(labels, new_scores, new, "simulated", kinds), Evidence(
        labels, old_scores, threshold, "simulated", kinds
    )


def measure(world: World, settings: PromoteSettings, runs: int, seed: int) -> dict[str, Any]:
    """The world, the share of promotions, and by check the share of the runs in which it failed, others or not."""
    rng = np.random.default_rng(seed)
    promoted, failed = 0, Counter[str]()
    for run in range(runs):
        decision = decide(*draw(world, rng), settings, run)
        promoted += decision.promote
        failed.update(
            {
                check["name"] + (" by kind" if check["kind"] else "")
                for check in decision.figures["checks"]
                if check["passed"] is False
            }
        )
    shares = {name: count / runs for name, count in sorted(failed.items())}
    return {**asdict(world), "promoted": promoted / runs, "failed": shares}


def world_of(row: dict[str, Any]) -> World:
    """The world that a row was measured in."""
    return World(**{key: row[key] for key in World.__dataclass_fields__})


def equal_worlds() -> Iterator[World]:
    """Challengers that are as good as the champion."""
    for good, defects in SIZES:
        for auroc in (0.95, 0.99):
            for correlation in (0.6, 0.9):
                for kinds in (1, 5):
                    yield World(good, defects, kinds, auroc, correlation)
    for kinds in (1, 5, 10, 20):  # of 15 images each at the most kinds
        yield World(300, 300, kinds, 0.95, 0.6)


def worse_worlds() -> Iterator[World]:
    """Challengers that are worse in one thing."""
    for good, defects in SIZES:
        for worse, by in WORSE:
            yield World(good, defects, 5, 0.95, 0.9, worse, by)


def ceiling(n: int, rate: float, limit: float) -> float:
    """Chance that escapes of `n` defects keep the ceiling `limit` where the true rate is `rate`: exact."""
    settings = PromoteSettings(max_escape=limit)
    passing = [bool(escape_ceiling(count, n, settings).passed) for count in range(n + 1)]
    return float(stats.binom.pmf(np.arange(n + 1), n, rate) @ passing)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def tables(results: dict[str, Any]) -> str:
    """The tables of docs/decisions/gate.md."""
    found = {world_of(row): row for row in results["rows"]}

    def share(world: World) -> str:
        return f"{100 * found[world]['promoted']:.0f} %"

    pairs = [(auroc, correlation) for auroc in (0.95, 0.99) for correlation in (0.6, 0.9)]
    parts = [
        "Equal challengers, promoted (1 kind of defect / 5 kinds), by AUROC of both and correlation of their scores:",
        table(
            ["good + defect", *(f"{100 * auroc:.0f} %, {correlation}" for auroc, correlation in pairs)],
            [
                [f"{good} + {defects}"]
                + [" / ".join(share(World(good, defects, kinds, *pair)) for kinds in (1, 5)) for pair in pairs]
                for good, defects in SIZES
            ],
        ),
        "The same, by check: share of the runs in which it failed (5 kinds, AUROC 95 %):",
    ]
    names = ("auroc_difference", "overkill_difference", "escape_difference", "escape_difference by kind")
    parts.append(
        table(
            ["good + defect, correlation", *names],
            [
                [f"{good} + {defects}, {correlation}"]
                + [
                    f"{100 * found[World(good, defects, 5, 0.95, correlation)]['failed'].get(name, 0):.0f} %"
                    for name in names
                ]
                for good, defects in SIZES
                for correlation in (0.6, 0.9)
            ],
        )
    )
    parts += [
        "Worse challengers, promoted (5 kinds, champion of AUROC 95 %, correlation 0.9):",
        table(
            ["good + defect", *(f"{worse}, {100 * by:.0f} worse" for worse, by in WORSE)],
            [
                [f"{good} + {defects}", *(share(World(good, defects, 5, 0.95, 0.9, *what)) for what in WORSE)]
                for good, defects in SIZES
            ],
        ),
        "Equal challengers by number of kinds (300 + 300, AUROC 95 %, correlation 0.6): promoted; a kind failed:",
        table(
            ["kinds", "promoted", "a kind failed"],
            [
                [
                    str(kinds),
                    share(world := World(300, 300, kinds, 0.95, 0.6)),
                    f"{100 * found[world]['failed'].get('escape_difference by kind', 0):.1f} %",
                ]
                for kinds in (1, 5, 10, 20)
            ],
        ),
        "The ceiling of escapes alone, passed where the true rate is half of it / equal to it / twice it (exact):",
        table(
            ["defects", *(f"ceiling {100 * limit:.0f} %" for limit in (0.1, 0.2, 0.4))],
            [
                [
                    str(n),
                    *(
                        " / ".join(f"{100 * ceiling(n, factor * limit, limit):.0f} %" for factor in (0.5, 1, 2))
                        for limit in (0.1, 0.2, 0.4)
                    ),
                ]
                for n in (3, 10, 25, 50, 100, 300)
            ],
        ),
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Simulate, write JSON, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="holdouts a cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bootstrap", type=int, default=200, help="resamples of the gate")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    settings = LIMITS.model_copy(update={"bootstrap": options.bootstrap})
    results: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.gate_characteristics", *sys.argv[1:]]),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "revision": revision(),
        "seed": options.seed,
        "runs": options.runs,
        "settings": settings.model_dump(mode="json"),
        "cpu_seconds": 0.0,
        "rows": [],
    }
    if options.out.exists():
        earlier = read_json(options.out)
        if all(earlier[key] == results[key] for key in ("revision", "seed", "runs", "settings")):
            results = earlier
    done = {world_of(row) for row in results["rows"]}
    worlds = [world for world in dict.fromkeys([*equal_worlds(), *worse_worlds()]) if world not in done]
    for world in track(worlds, "simulating the gate", total=len(worlds)):
        started = time.process_time()
        results["rows"].append(measure(world, settings, options.runs, options.seed))
        results["cpu_seconds"] = round(results["cpu_seconds"] + time.process_time() - started, 1)
        write_json(options.out, results)
    print(tables(results))


if __name__ == "__main__":
    main()
