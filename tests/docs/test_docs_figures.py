"""Figures in the README and the tutorials are those of the runs and of the code."""

import json
import re

import numpy as np
from pages import REPO, text

from morphad.decision.attainable import images_for, tightest_rate
from morphad.settings import SplitSettings

README = text(REPO / "README.md")
SETS = {
    "magnetic tile": "magnetic_tile",
    "magnetic tile, near copies kept together": "magnetic_tile_parted",
    "solar cells, mono": "pv-mono",
    "solar cells, poly": "pv-poly",
}


def rows(page: str, head: str) -> list[list[str]]:
    """The rows of the table with this head."""
    after = page[page.index(head) + len(head) :].split("\n\n", maxsplit=1)[0].strip().splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in after]


def mean_auroc() -> dict[tuple[str, str], float]:
    runs = json.loads((REPO / "benchmarks" / "results" / "peers.json").read_text(encoding="utf-8"))
    found: dict[tuple[str, str], list[float]] = {}
    for key, run in runs.items():
        name, model, _ = key.split("/")
        found.setdefault((name, model), []).append(run["image_auroc"])
    return {key: float(np.mean(values)) for key, values in found.items()}


def test_the_table_of_quality_is_that_of_the_runs() -> None:
    measured = mean_auroc()
    head = "| set | morphad | PatchCore | PaDiM | DFM | FRE |"
    models = ["morphad", "patchcore", "padim", "dfm", "fre"]
    table = rows(README, head)
    assert {SETS.get(row[0], row[0]) for row in table} == {name for name, _ in measured}
    for row in table:
        values = [measured[SETS.get(row[0], row[0]), model] for model in models]
        best = f"{100 * max(values):.1f}"
        shown = [f"{100 * value:.1f}" for value in values]
        assert row[1:] == [f"**{cell}**" if cell == best else cell for cell in shown], row[0]


def test_the_lead_over_patchcore_is_that_of_the_runs() -> None:
    measured = mean_auroc()
    gaps = [value - measured[name, "patchcore"] for (name, model), value in measured.items() if model == "morphad"]
    said = re.search(r"On these (\w+) sets morphad is ahead of PatchCore by ([\d.]+) points", README)
    assert said
    assert said[1] == {9: "nine"}[len(gaps)]
    assert said[2] == f"{100 * np.mean(gaps):.1f}"


def test_tightest_rates_are_those_of_the_code() -> None:
    share = SplitSettings().calibration
    table = rows(README, "| good images | of them for calibration | tightest false-reject rate |")
    assert len(table) == 6
    for good, calibration, rate in table:
        count = int(good.replace(",", ""))
        assert int(calibration) == int(count * share)
        assert rate.startswith(f"{100 * tightest_rate(int(calibration)):g} %")


def test_images_for_a_rate_are_those_of_the_code() -> None:
    tutorial = text(REPO / "docs" / "tutorial" / "set-a-threshold.md")
    table = rows(tutorial, "| false-reject rate | calibration images | good images in all |")
    assert len(table) == 6
    for rate, calibration, good in table:
        needed = images_for(round(float(rate.removesuffix(" %")) / 100, 6))
        assert int(calibration) == needed
        assert int(good.replace(",", "")) == needed / SplitSettings().calibration
