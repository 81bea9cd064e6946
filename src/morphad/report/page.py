"""The page of a line: one self-contained HTML file that a quality engineer reads, prints and files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from morphad.base.files import write_text
from morphad.base.text import flattened, masked_settings
from morphad.base.wording import percent
from morphad.decision.calibration import Calibration, finite_scores
from morphad.decision.grounds import Grounds
from morphad.decision.metrics import is_defect
from morphad.model.sight import Sight
from morphad.report.charts import roc_chart, score_histogram
from morphad.report.pairs import pairs
from morphad.report.pictures import Example, colour_bar
from morphad.report.region import region_sentences
from morphad.report.template import environment, span
from morphad.report.verdict import Verdict, verdict

__all__ = ["DataFacts", "Example", "IndexEntry", "PageData", "example_indices", "write_index", "write_page"]

WORST, BEST = 6, 3


@dataclass(frozen=True)
class DataFacts:
    """Where the figures come from.

    Attributes:
        data_hash: Of the manifest.
        holdout_id: Of the frozen holdout.
        counts: Images by role and label, such as {"train": {"good": 120, "defect": 0}, ...}.
        licence: What is to be said of the images' licence; empty for none.
        rejects: Name and reason of each image that was left out as unreadable.
    """

    data_hash: str
    holdout_id: str
    counts: Mapping[str, Mapping[str, int]]
    licence: str = ""
    rejects: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class PageData:
    """Everything that the page of a line shows.

    Attributes:
        line: Name of the line.
        created: Date and time as shown, such as "2025-03-01 14:05 UTC".
        metrics: Result of `decision.metrics.evaluate`.
        roc: Rows of `decision.metrics.roc_points`.
        histogram: Rows of `decision.metrics.histogram_rows`.
        calibration: The line's calibration; without a threshold the page says what to do.
        heatmap_scale: Heatmap values shown as coldest and hottest, fixed for the line.
        examples: Images to show; `example_indices` chooses them.
        data: Where the figures come from.
        training: What is worth knowing of the training, nested as it comes.
        settings: The line's settings, nested as it comes.
        code_version: Version or revision of morphad.
        sight: How large pictures are seen; None: nothing is said of it.
    """

    line: str
    created: str
    metrics: dict[str, Any]
    roc: Sequence[dict[str, float]]
    histogram: Sequence[dict[str, Any]]
    calibration: Calibration
    heatmap_scale: tuple[float, float]
    examples: Sequence[Example]
    data: DataFacts
    training: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    code_version: str = ""
    sight: Sight | None = None


@dataclass(frozen=True)
class IndexEntry:
    """One line on the index page, whose own page is `<line>/index.html`."""

    line: str
    created: str
    verdict: Verdict


def example_indices(labels: ArrayLike, scores: ArrayLike, worst: int = WORST, best: int = BEST) -> list[int]:
    """Which images a page shows: the lowest-scored defects and highest-scored good ones, and the clearest of each.

    Args:
        labels: [N] "good" or "defect".
        scores: [N] finite scores.
        worst: How many of each label that speak against the model.
        best: How many of each label that speak for it.
    """
    defect, values = is_defect(labels), finite_scores(scores)
    order = np.argsort(values, kind="stable")
    chosen: list[int] = []
    for hardest_first in (order[defect[order]], order[~defect[order]][::-1]):
        chosen += hardest_first[:worst].tolist()
        chosen += hardest_first[max(worst, hardest_first.size - best) :].tolist()
    return chosen


def write_page(folder: Path, page: PageData) -> Path:
    """Write `folder`/index.html, whole or not at all, and give its path.

    The file needs no network, no script and no other file.

    Raises:
        BadInputError: The folder cannot be written.
    """
    target = folder / "index.html"
    write_text(
        target,
        environment()
        .get_template("page.html")
        .render(
            page=page,
            verdict=verdict(page.metrics, page.calibration),
            region=region_sentences(page.metrics),
            tiles=_tiles(page.metrics),
            histogram=score_histogram(page.histogram, page.metrics["threshold"]) if page.histogram else None,
            roc=roc_chart(page.roc, page.metrics) if page.roc else None,
            groups=_groups(page.examples),
            show=lambda example: pairs(example, page.heatmap_scale),
            colour_bar=colour_bar(),
            darkened=any(e.inspected is not None and not e.inspected.all() for e in page.examples),
            close=any(e.window for e in page.examples),
            outlined=any(e.mask is not None and e.mask.any() for e in page.examples),
            grounds=Grounds.from_json(page.metrics["grounds"]).sentences() if "grounds" in page.metrics else [],
            training=_rows(page.training),
            settings=_rows(page.settings),
            labels=sorted({label for by_label in page.data.counts.values() for label in by_label}, reverse=True),
        ),
    )
    return target


def write_index(folder: Path, entries: Sequence[IndexEntry]) -> Path:
    """Write `folder`/index.html, which links every line's page with its verdict, and give its path.

    Raises:
        BadInputError: The folder cannot be written.
    """
    target = folder / "index.html"
    ordered = sorted(entries, key=lambda entry: entry.line)
    write_text(target, environment().get_template("lines.html").render(entries=ordered, quote=quote))
    return target


def _tiles(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """Key figures: name, value, interval, what it says. Those that are not known are left out."""
    tiles: list[dict[str, str]] = []
    for key, name, happened in (
        ("overkill", "Overkill", "good parts rejected"),
        ("escape", "Escape", "defects missed"),
    ):
        rate = metrics[key]
        if rate is not None:
            says = f"{happened}: {rate['count']} of {rate['n']:,}"
            tiles.append(_tile(name, rate["rate"], span(rate["low"], rate["high"]), says))
    for key, name, says in (
        ("image_auroc", "AUROC", "a defect scores above a good part"),
        ("image_ap", "Average precision", "area under precision and recall"),
        ("image_f1_max", "Best F1", "over all thresholds"),
        ("pixel_auroc", "Pixel AUROC", "a defect pixel above a normal one"),
        ("aupro", "AUPRO", "overlap with defect regions, to 30 % false pixels"),
    ):
        if metrics[key] is not None:
            interval = metrics["intervals"].get(key)
            tiles.append(_tile(name, metrics[key], span(interval["low"], interval["high"]) if interval else "", says))
    return tiles


def _tile(name: str, value: float, interval: str, says: str) -> dict[str, str]:
    return {"name": name, "value": percent(value), "interval": interval, "says": says}


def _groups(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Examples by what they teach, the most instructive first; empty groups are left out."""
    defects = sorted((e for e in examples if e.label == "defect"), key=lambda e: e.score)
    good = sorted((e for e in examples if e.label == "good"), key=lambda e: -e.score)
    groups = [
        ("Lowest-scored defects", "Misses, and the defects nearest to being missed.", defects[:WORST]),
        ("Highest-scored good parts", "False rejects, and the good parts nearest to being rejected.", good[:WORST]),
        ("Clearest defects", "The defects with the highest scores.", defects[max(WORST, len(defects) - BEST) :]),
        ("Clearest good parts", "The good parts with the lowest scores.", good[max(WORST, len(good) - BEST) :]),
    ]
    return [{"title": title, "says": says, "examples": chosen} for title, says, chosen in groups if chosen]


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested mappings as rows of dotted key and text, without credentials."""
    return [(name, _text(value)) for name, value in flattened(masked_settings(values)).items()]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        shown = [_text(item) for item in value[:24]]
        return ", ".join(shown) + (f", … ({len(value)} in all)" if len(value) > 24 else "")
    return str(value)
