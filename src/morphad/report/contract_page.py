"""The page of the data contract: what was found, with the images that show it, in one file that needs no network."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from morphad import __version__
from morphad.base.errors import MorphadError
from morphad.base.files import write_text
from morphad.base.wording import counted, percent
from morphad.data.contract import CAMERA, Finding, Limits, Result, StatisticFacts, comparable
from morphad.report.charts import statistic_histogram
from morphad.report.pictures import average, thumbnail
from morphad.report.template import environment
from morphad.settings.checks import CHECKS, STATISTICS

Pixels = Callable[[str], NDArray[np.uint8]]

SHOWN = 6  # pictures of a finding
LISTED = 200  # further images of a finding that are named
_AVERAGED = 48  # images in an average

_LABELS = {
    "brightness": "brightness (mean grey level)",
    "contrast": "contrast (deviation of grey levels)",
    "sharpness": "sharpness (variance of the Laplacian)",
    "entropy": "entropy (bits)",
    "dark": "share of black pixels",
    "saturated": "share of white pixels",
    "height": "height (px)",
    "width": "width (px)",
    "aspect": "width to height",
}
_SOURCES = {"settings": "from the settings", "reference": "from the reference", "set": "from these images"}


@dataclass(frozen=True)
class _Shown:
    """An image of a finding: its name, data URI ("" where it cannot be read), and what is said of it."""

    name: str
    picture: str
    says: str


def write_contract_page(
    path: Path,
    result: Result,
    rows: pd.DataFrame,
    reference: pd.DataFrame | None,
    *,
    pixels: Pixels,
    created: str = "",
) -> None:
    """Write the page, whole or not at all; it needs no network, no script and no other file.

    Args:
        path: The file.
        result: What `check_manifest` found.
        rows: The manifest that was checked.
        reference: The reference's manifest; None without one.
        pixels: Gives the pixels of an image of `rows` by its path: uint8 [H, W] or [H, W, 3]. An image that it cannot
            read is named without a picture.
        created: Date and time as shown; now if empty.

    Raises:
        BadInputError: The file cannot be written.
    """
    if reference is None:
        reference = rows.iloc[:0]
    known = rows["sha256"].isin(reference["sha256"])
    new, old = comparable(rows[~known]), comparable(reference)
    write_text(
        path,
        environment()
        .get_template("contract.html")
        .render(
            result=result,
            created=created or f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            sentence=_sentence(result),
            groups=[
                (title, [(finding, *_pictures(finding, rows, known, pixels)) for finding in findings])
                for title, findings in (("Errors", result.errors), ("Warnings", result.warnings))
                if findings
            ],
            listed=LISTED,
            shown=SHOWN,
            charts=list(_charts(result.statistics, new, old)),
            statistics=[_row(facts) for facts in result.statistics if facts.median is not None],
            checks=[(name, result.states[name], _weight(name, result)) for name in CHECKS],
            version=__version__,
        ),
    )


def _sentence(result: Result) -> str:
    """What the page says first."""
    warned = f", with {counted(len(result.warnings), 'warning')}" if result.warnings else ""
    if result.errors:
        broken = counted(len(result.errors), "respect")
        return f"The data of {result.line} break their contract in {broken}{warned}. No model is trained on them."
    return f"The data of {result.line} keep their contract{warned}."


def _pictures(
    finding: Finding, rows: pd.DataFrame, known: "pd.Series[bool]", pixels: Pixels
) -> tuple[list[_Shown], list[_Shown]]:
    """The images that show a finding, and what they are held against."""
    by_path = rows.drop_duplicates("path").set_index("path")
    shown = [
        _Shown(path, _picture(path, pixels), _says(finding, by_path.loc[[path]].iloc[0]))
        for path in finding.paths[:SHOWN]
        if path in by_path.index
    ]
    if finding.name != CAMERA:
        return shown, []
    averages = [
        _Shown(f"average of {len(paths)} {what}", average(_readable(paths, pixels)), "")
        for what, chosen in (("new good images", ~known), ("good images of the reference", known))
        if (paths := _some(rows[chosen & (rows["label"] == "good")]["path"].tolist()))
    ]
    return shown, [shown for shown in averages if shown.picture]


def _some(paths: Sequence[str]) -> list[str]:
    """Evenly spaced, at most `_AVERAGED`."""
    count = min(_AVERAGED, len(paths))
    return [paths[at * len(paths) // count] for at in range(count)]


def _readable(paths: Sequence[str], pixels: Pixels) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        try:
            yield pixels(path)
        except MorphadError:
            continue


def _picture(path: str, pixels: Pixels) -> str:
    return next((thumbnail(image) for image in _readable([path], pixels)), "")


def _says(finding: Finding, row: "pd.Series[Any]") -> str:
    """What makes the image one of the finding, where that is a figure."""
    name = finding.name.rpartition("_")[0]
    if name in STATISTICS:
        value = row["width"] / row["height"] if name == "aspect" else row[name]
        return f"{name} {_value(name, float(value))}"
    if finding.name in {"size", "channels", "bit_depth"}:
        return f"{row['height']} x {row['width']} px, {row['mode']}, {row['bit_depth']} bits"
    if finding.name in {"black", "white", "blank", "blurred", "unusable_defect"}:
        return f"contrast {row['contrast']:.3g}, sharpness {row['sharpness']:.3g}"
    if finding.name.startswith("acquired") or finding.name == "time_order":
        return str(row["acquired"])
    if finding.name.startswith("leakage"):
        return str(row.get("role") or row["origin"])
    return str(row["defect"] or row["label"])


def _charts(statistics: Sequence[StatisticFacts], new: pd.DataFrame, old: pd.DataFrame) -> Iterator[tuple[str, Markup]]:
    """Histograms of the statistics in which images differ at all, with what is said below them."""
    for facts in statistics:
        values, reference = (rows[facts.name].to_numpy(np.float64) for rows in (new, old))
        both = np.concatenate([values, reference])
        if not values.size or both.min() == both.max():
            continue
        limits = facts.limits or Limits(None, None, "")
        yield (
            _verdict(facts),
            statistic_histogram(facts.name, values, reference, (limits.low, limits.high), _LABELS[facts.name]),
        )


def _verdict(facts: StatisticFacts) -> str:
    """How a statistic stands against the reference, in a few words; "" where it was not compared."""
    if facts.shift is None:
        return ""
    differ = f"distributions differ by {percent(facts.shift.effect)} of the images"
    if facts.shift.drifted:
        return f"shifted against the reference: {differ}"
    if facts.shift.effect <= facts.shift.allowed:
        return f"as in the reference: {differ}"
    return f"{differ}, which in so few images may be chance"


def _row(facts: StatisticFacts) -> dict[str, str]:
    limits = facts.limits
    return {
        "name": facts.name,
        "median": "" if facts.median is None else _value(facts.name, facts.median),
        "reference": "" if facts.reference_median is None else _value(facts.name, facts.reference_median),
        "low": "" if limits is None or limits.low is None else _value(facts.name, limits.low),
        "high": "" if limits is None or limits.high is None else _value(facts.name, limits.high),
        "source": "" if limits is None else _SOURCES[limits.source],
        "effect": "" if facts.shift is None else percent(facts.shift.effect),
        "allowed": "" if facts.shift is None else percent(facts.shift.allowed),
        "chance": "" if facts.shift is None else percent(max(facts.shift.p_value, 1e-9), 2),
    }


def _value(name: str, value: float) -> str:
    return percent(value) if name in {"dark", "saturated"} else f"{value:.4g}"


def _weight(name: str, result: Result) -> str:
    return next((finding.severity for finding in result.findings if finding.name == name), CHECKS[name])
