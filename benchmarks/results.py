"""The page docs/results/results.md from the runs in benchmarks/results: `python -m benchmarks.results`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.ablations import RELIEF
from benchmarks.chart import draw
from benchmarks.paper import SHORT
from morphad.base.files import read_json, write_text

Row = dict[str, Any]
Runs = Mapping[str, Row]  # by set/model/seed, or set/class/model/seed

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "results" / "results.md"
CHART = "results.svg"
OURS = "morphad"
NO_MODEL = "thumbnail"
# Runs are kept under the names that variants had when they ran; the page has today's words.
SHOWN = {
    "no relief": "no contours",
    "one look": "one view",
    "best on self-made defects, with patch densities": "best on synthetic anomalies, with patch densities",
    "patch densities, an erosion as a second look": "patch densities, an erosion as a second view",
}
TITLES = {"image_auroc": "Image AUROC", "image_ap": "Average precision", "pixel_auroc": "Pixel AUROC", "aupro": "AUPRO"}


def render(
    *,
    peers: Runs,
    few: Runs,
    shapes: Runs,
    backbones: Runs,
    ablations: Runs,
    ablations_without_relief: Runs,
    paper: Runs,
    one_class: Runs,
    texts: Mapping[str, str],
) -> str:
    """The whole page.

    Args:
        peers: Runs of benchmarks/peers.py.
        few: The same on sets of benchmarks/few.py.
        shapes: Of benchmarks/shapes.py.
        backbones: Of benchmarks/backbones.py.
        ablations: Of benchmarks/ablations.py.
        ablations_without_relief: The same, each without the contours as well.
        paper: Of benchmarks/paper.py.
        one_class: Of benchmarks/one_class.py.
        texts: What people wrote, by section: intro, peers, few, shapes, backbones, ablations, without_relief,
            paper, one_class, open.
    """
    models, sets = _names(peers, 1), _names(peers, 0)
    parts = ["# Results", texts.get("intro", ""), "## Side by side", texts.get("peers", "")]
    for metric, title in TITLES.items():
        measured = [name for name in sets if any(_values(peers, name, model, metric) for model in models)]
        if measured:
            parts += [f"### {title}", by_set(peers, metric, measured, models, mean=metric == "image_auroc")]
            if metric == "image_auroc":
                parts += [f"![Image AUROC of every model on every set, percent]({CHART})"]
                parts += [wins(peers), *signed_rank(_means(peers, _counted(sets), models), "sets")]
    parts += ["### Image AUROC by kind of defect, mean over the seeds", by_defect(peers)]
    parts += ["### How sure a figure is: 95 % bootstrap interval of the image AUROC, seed 0", intervals(peers)]
    parts += _compared("## Few good images", texts.get("few", ""), few, "few good images")
    parts += _compared("## Pictures that are not square", texts.get("shapes", ""), shapes, "by shape")
    parts += _compared("## Larger networks", texts.get("backbones", ""), backbones, "by network")
    if ablations:
        shared = [f"{name}/{OURS}" for name in _names(ablations, 0)]
        whole = {key: row for key, row in peers.items() if key.rsplit("/", 1)[0] in shared}
        table = ablation_table({**whole, **ablations}, OURS)
        parts += ["## What each ingredient is worth", texts.get("ablations", ""), table]
    if ablations_without_relief:
        base = {key: row for key, row in ablations.items() if key.split("/")[1] == RELIEF}
        table = ablation_table({**base, **ablations_without_relief}, RELIEF)
        parts += ["### Without the contours", texts.get("without_relief", ""), table]
    if paper:
        parts += ["## From scratch: the preset `paper`", texts.get("paper", ""), ablation_table(paper, SHORT)]
        for name in _names(paper, 0):
            parts += [f"Scores of the networks on {name}:", reading_table(paper, name)]
    if one_class:
        parts += ["## One class good, nine not", texts.get("one_class", ""), *one_class_tables(one_class)]
    parts += [
        "## Not done, and limits",
        texts.get("open", ""),
        "## Revisions",
        revisions(peers, few, shapes, backbones, ablations, ablations_without_relief, paper, one_class),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _compared(title: str, text: str, runs: Runs, how: str) -> list[str]:
    """A section with a table of AUROC and one of AUPRO; nothing without runs."""
    parts, models = [title, text], _names(runs, 1)
    for metric in ("image_auroc", "aupro"):
        measured = [name for name in _names(runs, 0) if any(_values(runs, name, model, metric) for model in models)]
        parts += [f"### {TITLES[metric]}, {how}", by_set(runs, metric, measured, models)]
    return parts if runs else []


def by_set(runs: Runs, metric: str, sets: Sequence[str], models: Sequence[str], *, mean: bool = False) -> str:
    """A row a set, a column a model, percent: mean over the seeds, their range, how many; the best mean is bold."""
    rows = []
    for name in sets:
        found = [_values(runs, name, model, metric) for model in models]
        rows.append([name, *_bold([_spread(values) for values in found], [_mean(values) for values in found])])
    if mean:
        counted = _counted(sets)
        means = _means(runs, counted, models)
        whole = [_mean(list(means[model].values())) if len(means[model]) == len(counted) else None for model in models]
        if any(value is not None for value in whole):
            cells = ["-" if value is None else f"{100 * value:.1f}" for value in whole]
            without = ", ".join(name for name in sets if name not in counted)
            told = f"mean of {len(counted)} sets" + (f", without {without}" if without else "")
            rows.append([told, *_bold(cells, whole)])
    return markdown(["set", *models], rows)


def by_defect(runs: Runs) -> str:
    """A row a kind of defect, a column a model, percent, the mean over the seeds."""
    models = _names(runs, 1)
    rows = []
    for name in _names(runs, 0):
        of_set = {key: row for key, row in runs.items() if key.split("/")[0] == name}
        kinds = dict.fromkeys(kind for row in of_set.values() for kind in row["per_defect"])
        for kind in kinds:
            found = [
                [row["per_defect"][kind] for key, row in of_set.items() if key.split("/")[1] == model]
                for model in models
            ]
            means = [_mean(values) for values in found]
            rows.append([name, kind, *_bold([_percent(value) for value in means], means)])
    return markdown(["set", "kind", *models], rows)


def intervals(runs: Runs) -> str:
    """A row a set, a column a model: low to high, percent, of seed 0."""
    models = _names(runs, 1)
    rows = []
    for name in _names(runs, 0):
        found = [runs.get(f"{name}/{model}/0", {}).get("interval") for model in models]
        rows.append([name, *("-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}" for ends in found)])
    return markdown(["set", *models], rows)


def wins(runs: Runs) -> str:
    """One sentence on each set where another model's mean is above ours."""
    lines = []
    for name in _names(runs, 0):
        means = {model: _mean(_values(runs, name, model, "image_auroc")) for model in _names(runs, 1)}
        ours = means.pop(OURS, None)
        if ours is None:
            continue
        ahead = {model: value for model, value in means.items() if value is not None and value > ours}
        if ahead:
            told = ", ".join(f"{model} ({100 * (value - ours):+.1f})" for model, value in ahead.items())
            lines.append(f"- {name}: ahead of {OURS} by mean image AUROC, in points: {told}.")
        else:
            lines.append(f"- {name}: no other model is ahead of {OURS}.")
    return "\n".join(lines)


def signed_rank(means: Mapping[str, Mapping[str, float]], over: str) -> list[str]:
    """Wilcoxon's signed-rank test of ours against each other model, two-sided, over what both were measured on."""
    if OURS not in means:
        return []
    rows = []
    for model, values in means.items():
        shared = [name for name in means[OURS] if name in values]
        gaps = np.array([means[OURS][name] - values[name] for name in shared])
        if model == OURS or not shared:
            continue
        p = float(stats.wilcoxon(gaps).pvalue) if np.any(gaps) else 1.0
        rows.append([model, str(len(shared)), f"{100 * gaps.mean():+.2f}", str(int((gaps > 0).sum())), f"{p:.3g}"])
    if not rows:
        return []
    head = [f"{OURS} against", over, "mean gap, points", f"{OURS} ahead on", "p, Wilcoxon signed-rank, two-sided"]
    return [markdown(head, rows)]


def ablation_table(runs: Runs, base: str) -> str:
    """A row a variant: image AUROC on each set, and mean changes against `base` with the same seeds."""
    sets, variants = _names(runs, 0), _names(runs, 1)
    titles = {"image_auroc": "mean change, points (runs)"}
    if any(row.get("aupro") is not None for row in runs.values()):
        titles["aupro"] = "of AUPRO"
    rows = []
    for variant in variants:
        cells = [_spread(_values(runs, name, variant, "image_auroc")) for name in sets]
        changes = [_change(runs, variant, base, metric) for metric in titles]
        accuracies = [row.get("case_accuracy") for key, row in runs.items() if key.split("/")[1] == variant]
        named = _mean([value for value in accuracies if value is not None])
        rows.append([variant, *cells, *changes, _percent(named)])
    return markdown(["variant", *sets, *titles.values(), "cases named right, %"], rows)


def _change(runs: Runs, variant: str, base: str, metric: str) -> str:
    """The mean change of a metric in points, and over how many runs."""
    gaps = []
    for key, row in runs.items():
        name, of, seed = key.split("/")
        pair = row.get(metric), runs.get(f"{name}/{base}/{seed}", {}).get(metric)
        if of == variant and pair[0] is not None and pair[1] is not None:
            gaps.append(pair[0] - pair[1])
    return "-" if variant == base or not gaps else f"{100 * np.mean(gaps):+.2f} ({len(gaps)})"


def reading_table(runs: Runs, name: str) -> str:
    """A row a way to read the scores of one set, a column a trained network, percent: mean over the seeds."""
    of_set = {key: row for key, row in runs.items() if key.split("/")[0] == name and len(row["scores"]) > 1}
    models = _names(of_set, 1)
    kinds = {kind for row in of_set.values() for kind in row["scores"]}
    rows = []
    for kind in sorted(kinds, key=lambda kind: [int(word) if word.isdigit() else word for word in kind.split()]):
        found = [
            [row["scores"][kind] for key, row in of_set.items() if key.split("/")[1] == model and kind in row["scores"]]
            for model in models
        ]
        rows.append([kind, *(_percent(_mean(values)) for values in found)])
    return markdown(["score", *models], rows)


def one_class_tables(runs: Runs) -> list[str]:
    """A row a class, a column a model; Wilcoxon's test over the classes; other readings of our networks."""
    parts = []
    for data in _names(runs, 0):
        of_data = {key.split("/", 1)[1]: row for key, row in runs.items() if key.startswith(f"{data}/")}
        models, classes = _names(of_data, 1), sorted(_names(of_data, 0), key=int)
        parts += [f"### {data}, image AUROC, by the good class"]
        parts += [by_set(of_data, "image_auroc", classes, models, mean=True).replace("| set |", "| good class |")]
        parts += signed_rank(_means(of_data, classes, models), "classes")
        readings = {
            model: {kind: [row["scores"][kind] for row in found] for kind in found[0]["scores"]}
            for model in models
            if len(found := [row for key, row in of_data.items() if key.split("/")[1] == model]) == len(classes)
            and len(found[0]["scores"]) > 1
        }
        if readings:
            kinds = dict.fromkeys(kind for of_model in readings.values() for kind in of_model)
            rows = [
                [kind, *(_percent(_mean(of_model.get(kind, []))) for of_model in readings.values())] for kind in kinds
            ]
            parts += ["Readings of the same networks, mean over the classes:", markdown(["score", *readings], rows)]
    return parts


def revisions(*kinds: Runs) -> str:
    """Which revision of this repository each model's runs were made with, and how many runs and threads."""
    found: dict[tuple[str, str, str], int] = {}
    for runs in kinds:
        for key, row in runs.items():
            entry = (key.split("/")[-2], str(row.get("revision", "")), str(row.get("threads", "")))
            found[entry] = found.get(entry, 0) + 1
    rows = [[*entry, str(count)] for entry, count in sorted(found.items())]
    return markdown(["model or variant", "revision", "threads", "runs"], rows)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    named = [[SHOWN.get(cell, cell) for cell in row] for row in (head, *rows)]
    lines = [named[0], ["---"] * len(head), *named[1:]]
    return (
        "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        .replace("| --- |", "|---|")
        .replace(" --- |", "---|")
    )


def _names(runs: Runs, place: int) -> list[str]:
    """What stands at a place of the keys, in order of appearance; our model first."""
    names = list(dict.fromkeys(key.split("/")[place] for key in runs))
    return sorted(names, key=lambda name: name != OURS)


def _counted(sets: Sequence[str]) -> list[str]:
    """Without sets that were measured again with near copies kept together."""
    return [name for name in sets if f"{name}_parted" not in sets]


def _values(runs: Runs, name: str, model: str, metric: str) -> list[float]:
    found = (row.get(metric) for key, row in runs.items() if key.split("/")[:2] == [name, model])
    return [value for value in found if value is not None]


def _means(runs: Runs, sets: Sequence[str], models: Sequence[str]) -> dict[str, dict[str, float]]:
    found = {model: {name: _values(runs, name, model, "image_auroc") for name in sets} for model in models}
    return {m: {name: float(np.mean(v)) for name, v in of_model.items() if v} for m, of_model in found.items()}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return f"{100 * values[0]:.1f}"
    return f"{100 * np.mean(values):.1f} ({100 * min(values):.1f} to {100 * max(values):.1f}; {len(values)})"


def _bold(cells: Sequence[str], values: Sequence[float | None]) -> list[str]:
    best = max((round(value, 3) for value in values if value is not None), default=None)
    return [
        f"**{cell}**" if value is not None and round(value, 3) == best else cell
        for cell, value in zip(cells, values, strict=True)
    ]


def main() -> None:
    """Write the page and its picture."""
    runs = {}
    for name in ("peers", "few", "shapes", "backbones", "ablations", "ablations_without_relief", "paper", "one_class"):
        path = FOLDER / f"{name}.json"
        runs[name] = read_json(path) if path.exists() else {}
    sections = (FOLDER / "texts.md").read_text(encoding="utf-8").split("\n# ")
    texts = {title.strip("# \n"): text.strip() for title, _, text in (part.partition("\n") for part in sections)}
    write_text(PAGE, render(**runs, texts=texts))
    peers = runs["peers"]
    models = [name for name in _names(peers, 1) if name != NO_MODEL]
    by_model = {
        model: {name: values for name in _names(peers, 0) if (values := _values(peers, name, model, "image_auroc"))}
        for model in models
    }
    draw(by_model, "image AUROC, percent; lines from the lowest to the highest seed", PAGE.parent / CHART)
    print(f"written: {PAGE} and {CHART} beside it")


if __name__ == "__main__":
    main()
