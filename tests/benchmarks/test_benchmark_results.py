"""The results page tells what the runs tell, losses too; runs are not repeated; cells are split as the product does."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import ablations, measuring, paper, results
from benchmarks.chart import draw
from benchmarks.elpv import places
from benchmarks.results import ablation_table, by_set, render, signed_rank, wins
from morphad.base.files import write_json
from morphad.settings.presets import train_settings


def row(auroc: float, **more: Any) -> dict[str, Any]:
    kinds = {"crack": auroc - 0.1, "hole": auroc}
    figures = {"image_auroc": auroc, "image_ap": auroc, "pixel_auroc": None, "aupro": None}
    return {**figures, "interval": [auroc - 0.02, 1.0], "per_defect": kinds, "revision": "abc", "threads": 1, **more}


RUNS = {
    "bottle/padim/0": row(0.99),
    "screw/padim/0": row(0.87),
    "bottle/morphad/0": row(0.98),
    "bottle/morphad/1": row(1.0),
    "screw/morphad/0": row(0.95),
    "bottle/stfpm/0": row(0.999),
}


def cells(table: str, start: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_set_has_the_mean_the_range_and_the_best_in_bold() -> None:
    table = by_set(RUNS, "image_auroc", ["bottle", "screw"], ["morphad", "padim", "stfpm"], mean=True)
    assert cells(table, "bottle") == ["bottle", "99.0 (98.0 to 100.0; 2)", "99.0", "**99.9**"]
    assert cells(table, "screw") == ["screw", "**95.0**", "87.0", "-"]
    assert cells(table, "mean of 2 sets") == ["mean of 2 sets", "**97.0**", "93.0", "-"]  # not on every set: no mean


def test_a_set_that_was_split_anew_counts_once() -> None:
    runs = {"tile/padim/0": row(0.99), "tile_parted/padim/0": row(0.8), "screw/padim/0": row(0.9)}
    table = by_set(runs, "image_auroc", ["tile", "tile_parted", "screw"], ["padim"], mean=True)
    assert "| mean of 2 sets, without tile | **85.0** |" in table


def test_sets_where_another_model_is_ahead_are_named() -> None:
    told = wins(RUNS).splitlines()
    assert told[0] == "- bottle: ahead of morphad by mean image AUROC, in points: stfpm (+0.9)."
    assert told[1] == "- screw: no other model is ahead of morphad."


def test_the_signed_rank_test_takes_what_both_were_measured_on() -> None:
    ours = {str(i): 0.9 + i / 100 for i in range(6)}
    (table,) = signed_rank(
        {"morphad": ours, "padim": {k: v - 0.01 * (int(k) + 1) for k, v in ours.items()}, "none": {}}, "sets"
    )
    assert cells(table, "padim") == ["padim", "6", "+3.50", "6", "0.0312"]  # 2 / 2 ** 6
    assert "none" not in table


def test_an_ablation_is_compared_with_its_own_preset_and_seed() -> None:
    runs = {
        "bottle/morphad/0": row(0.9, case_accuracy=0.2),
        "bottle/no training/0": row(0.88, case_accuracy=None),
        "bottle/no training/1": row(0.5, case_accuracy=None),  # nothing to compare with
    }
    table = ablation_table(runs, "morphad")
    assert cells(table, "morphad")[-2:] == ["-", "20.0"]
    assert cells(table, "no training")[-2:] == ["-2.00 (1)", "-"]


def test_changes_of_aupro_are_told_where_there_are_masks() -> None:
    runs = {
        "bottle/morphad/0": row(0.9, aupro=0.8),
        "bottle/without/0": row(0.85, aupro=0.5),
        "screw/morphad/0": row(0.9),
        "screw/without/0": row(0.8),
    }
    table = ablation_table(runs, "morphad")
    assert cells(table, "without") == ["without", "85.0", "80.0", "-7.50 (2)", "-30.00 (1)", "-"]


def test_a_page_of_all_runs_holds_every_part_and_no_pixel_figures_where_there_are_none() -> None:
    one_class = {
        f"fashion-mnist/{good}/{name}/0": {
            "image_auroc": value,
            "scores": {"cosine": value, "rank": 0.9} if name == "morphad" else {name: value},
            "revision": "abc",
            "threads": 1,
        }
        for good in range(10)
        for name, value in (("morphad", 0.95), ("geometric", 0.9))
    }
    of_paper = {
        "bottle/paper/0": row(0.8, case_accuracy=0.7, scores={"cosine": 0.8, "neighbours": 0.7}),
        f"bottle/{paper.SHORT}/0": row(0.6, case_accuracy=0.5, scores={"cosine": 0.6, "neighbours": 0.5}),
        "bottle/rotations/0": row(0.65, scores={"rotations": 0.65}),
    }
    of_default = {"bottle/no training/0": row(0.97, case_accuracy=None), "bottle/no relief/0": row(0.96)}
    without_relief = {"bottle/no training/0": row(0.94, case_accuracy=None)}
    few = {"screw-10/morphad/0": row(0.7, aupro=0.5), "screw-10/padim/0": row(0.6, aupro=0.6)}
    shapes = {"rods/own shape/0": row(0.93, aupro=0.8), "rods/squeezed to a square/0": row(0.84, aupro=0.7)}
    page = render(
        peers=RUNS,
        few=few,
        shapes=shapes,
        backbones={"rods/lite0/0": row(0.9), "rods/lite2/0": row(0.91)},
        ablations=of_default,
        ablations_without_relief=without_relief,
        paper=of_paper,
        one_class=one_class,
        texts={"intro": "Words."},
    )
    assert "Words." in page
    assert "Pixel AUROC" not in page
    assert "| bottle | crack |" in page
    assert "| screw-10 | **70.0** | 60.0 |" in page
    assert "| screw-10 | 50.0 | **60.0** |" in page
    assert "| set | lite0 | lite2 |\n|---|---|---|\n| rods | 90.0 | **91.0** |" in page
    assert "| set | own shape | squeezed to a square |\n|---|---|---|\n| rods | **93.0** | 84.0 |" in page
    assert "| rods | **80.0** | 70.0 |" in page
    assert "| no training | 97.0 | -1.00 (1) | - |" in page  # against morphad with the same seed
    assert "| no training | 94.0 | -2.00 (1) | - |" in page  # against no relief with the same seed
    assert "| paper | 80.0 | +20.00 (1) | 70.0 |" in page
    assert "| rotations | 65.0 | +5.00 (1) | - |" in page
    assert "| score | paper | a third of the training |\n|---|---|---|\n| cosine | 80.0 | 60.0 |" in page
    assert "| neighbours | 70.0 | 50.0 |" in page
    assert "| 9 | **95.0** | 90.0 |" in page
    assert "| score | morphad |\n|---|---|\n| cosine | 95.0 |\n| rank | 90.0 |" in page
    assert "| screw | 93.0 to 100.0 | 85.0 to 100.0 | - |" in page


VARIANTS = [("default", *item) for item in ablations.VARIANTS.items()]
VARIANTS += [("paper", *item) for item in paper.VARIANTS.items()]


@pytest.mark.parametrize(("preset", "variant", "changes"), VARIANTS)
def test_every_variant_is_a_valid_setting_that_differs_from_its_preset(
    preset: str, variant: str, changes: dict[str, Any]
) -> None:
    settings, base = (train_settings({"preset": preset, **more}) for more in (changes, {}))
    outside_of_settings = {ablations.EQUAL_WEIGHTS, ablations.MAXIMUM, ablations.EDGE, ablations.RELIEF}
    assert (settings == base) == (variant == preset or variant in outside_of_settings)


def measured(value: float) -> dict[str, float]:
    return {"image_auroc": value}


def test_a_run_that_is_there_is_not_repeated_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "fresh_process", lambda: ThreadPoolExecutor(1))  # no seconds of imports
    out = tmp_path / "runs.json"
    write_json(out, {"a": {"image_auroc": 0.1}, "other": {"image_auroc": 0.2}})
    runs = measuring.run_missing({"a": (measured, (0.9,)), "b": (measured, (0.5,))}, out)
    assert runs == {"a": {"image_auroc": 0.1}, "other": {"image_auroc": 0.2}, "b": {"image_auroc": 0.5}}
    assert measuring.run_missing({}, out) == runs


def test_a_set_of_cells_has_the_holdout_in_test_and_the_rest_in_train() -> None:
    rows = [
        ("a.png", "train", "good", ""),
        ("b.png", "calibration", "good", ""),
        ("c.png", "holdout", "good", ""),
        ("d.png", "holdout", "defect", "defective"),
        ("e.png", "excluded", "good", ""),
    ]
    manifest = pd.DataFrame(rows, columns=["path", "role", "label", "defect"])
    assert places(manifest) == {
        "a.png": "train/good",
        "b.png": "train/good",
        "c.png": "test/good",
        "d.png": "test/defective",
    }


def test_the_page_of_the_repository_is_the_one_of_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = results.PAGE.read_text(encoding="utf-8")
    drawn = (results.PAGE.parent / results.CHART).read_text(encoding="utf-8")
    monkeypatch.setattr(results, "PAGE", tmp_path / "results.md")
    results.main()
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == written
    assert (tmp_path / results.CHART).read_text(encoding="utf-8") == drawn
    for word in ("morphad", "patchcore", "magnetic_tile_parted"):
        assert f">{word}</text>" in drawn


def test_no_model_drops_out_of_the_picture(tmp_path: Path) -> None:
    scores = {f"model-{number}": {"bottle": [0.9, 0.95], "screw": [0.8]} for number in range(12)}
    draw(scores, "image AUROC", tmp_path / "chart.svg")
    drawn = (tmp_path / "chart.svg").read_text(encoding="utf-8")
    for name in (*scores, "bottle", "screw"):
        assert f">{name}</text>" in drawn
