"""The charts of pages as inline SVG with real text, in colours that follow the page's light or dark scheme."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from morphad.base.wording import exact_percent, percent
from morphad.decision.calibration import NOTHING_TO_SCORE

Values = NDArray[np.float64]

# Drawn in stand-in colours that become CSS variables: blue and vermilion of Okabe and Ito are told apart by all.
_INK, _FAINT, _GOOD, _DEFECT = "#010101", "#020202", "#0072b2", "#d55e00"
_VARIABLES = {_INK: "var(--ink)", _FAINT: "var(--faint)", _GOOD: "var(--good)", _DEFECT: "var(--defect)"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "morphad",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "hatch.linewidth": 0.7,
}


def score_histogram(rows: Sequence[dict[str, Any]], threshold: float | None) -> Markup:
    """Histogram of holdout scores, good filled and defect hatched, with the threshold.

    Args:
        rows: {"score", "label"} an image, as from `decision.metrics.histogram_rows`.
        threshold: Marked where there is one.

    Images that were rejected unseen have no score to show; the axis says how many there are.
    """
    shown = [row for row in rows if row["score"] < NOTHING_TO_SCORE]
    scores = np.array([row["score"] for row in shown], dtype=np.float64)
    defect = np.array([row["label"] == "defect" for row in shown], dtype=bool)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        edges, logarithmic = _bins(scores, threshold)
        for chosen, colour, name, style in (
            (~defect, _GOOD, "good", {"fill": True, "alpha": 0.55}),
            (defect, _DEFECT, "defect", {"fill": False, "hatch": "////"}),
        ):
            if chosen.any():
                label = f"{name} ({int(chosen.sum())})"
                axes.hist(
                    scores[chosen], bins=edges, histtype="stepfilled", color=colour, ec=colour, label=label, **style
                )
        if logarithmic:
            axes.set_xscale("log")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.set_ylim(0, axes.get_ylim()[1] * 1.22)  # room for the words above the bars
        if threshold is not None:
            axes.axvline(threshold, color=_INK, linewidth=1.2, linestyle=(0, (4, 2)))
            fraction = axes.transAxes.inverted().transform(axes.transData.transform((threshold, 0)))[0]
            right = fraction < 0.6
            axes.annotate(
                f"threshold {threshold:.4g}" + (", rejected →" if right else ""),
                (threshold, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(5 if right else -5, -2),
                textcoords="offset points",
                ha="left" if right else "right",
                va="top",
            )
        unseen = f"; {len(rows) - len(shown)} rejected unseen" if len(shown) < len(rows) else ""
        axes.set_xlabel("score (higher is more abnormal)" + (", logarithmic" if logarithmic else "") + unseen)
        axes.set_ylabel("images")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, handlelength=1.4)
        return _svg(figure, "scores", f"Histogram of {scores.size} holdout scores by label")


def roc_chart(points: Sequence[dict[str, float]], metrics: dict[str, Any]) -> Markup:
    """ROC curve of the holdout with the point of the threshold and its intervals.

    Args:
        points: {"fpr", "tpr"} rows, as from `decision.metrics.roc_points`.
        metrics: Result of `decision.metrics.evaluate`.
    """
    overkill, escape_rate = metrics["overkill"], metrics["escape"]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=(0, (1, 2)))
        # Drawn to the very edge of the axes, so that a perfect curve is seen along them.
        x, y = [p["fpr"] for p in points], [p["tpr"] for p in points]
        axes.plot(x, y, color=_GOOD, linewidth=1.8, clip_on=False, label=f"AUROC {percent(metrics['image_auroc'])}")
        if overkill and escape_rate:
            x0, y0 = overkill["rate"], 1 - escape_rate["rate"]
            axes.errorbar(
                [x0],
                [y0],
                xerr=[[x0 - overkill["low"]], [overkill["high"] - x0]],
                yerr=[[escape_rate["high"] - escape_rate["rate"]], [escape_rate["rate"] - escape_rate["low"]]],
                fmt="o",
                color=_DEFECT,
                markersize=6,
                elinewidth=1,
                clip_on=False,
                zorder=5,
                label=f"at the threshold, with {exact_percent(metrics['confidence'])} intervals",
            )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="overkill: good parts rejected", ylabel="defects found")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, handlelength=1.4)
        return _svg(figure, "roc", "ROC curve: defects found against good parts rejected")


def statistic_histogram(
    name: str, values: Values, reference: Values, limits: tuple[float | None, float | None], label: str
) -> Markup:
    """Histogram of an image statistic: the images filled, the reference as an outline, beyond the limits shaded.

    Both are shown as shares, so that few new images can be held against a large reference.

    Args:
        name: Of the statistic, for the ids within the chart.
        values: Of the images.
        reference: Of the reference's images; empty without one.
        limits: Lowest and highest; None for none.
        label: Name and unit, for the axis.
    """
    everything = np.concatenate([values, reference])
    marked = [limit for limit in limits if limit is not None]
    with mpl.rc_context({**_STYLE, "font.size": 9}):
        figure, axes = _figure((3.5, 2.3))
        edges, logarithmic = _bins(np.concatenate([everything, marked]), None)
        for chosen, style in (
            (values, {"fill": True, "alpha": 0.55, "color": _GOOD, "ec": _GOOD}),
            (reference, {"fill": False, "ec": _INK, "linewidth": 1.1}),
        ):
            if chosen.size:
                axes.stairs(np.histogram(chosen, edges)[0] / chosen.size, edges, **style)
        if logarithmic:
            axes.set_xscale("log")
        left, right = edges[0], edges[-1]
        for limit, outer in zip(limits, (left, right), strict=True):
            if limit is not None:
                axes.axvspan(limit, outer, color=_DEFECT, alpha=0.13, linewidth=0)
                axes.axvline(limit, color=_DEFECT, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.margins(x=0.02)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_ylim(0, None)
        axes.set_xlabel(label + (", log" if logarithmic else ""))
        return _svg(figure, name, f"Histogram of {label} over {values.size} images")


def _bins(scores: np.ndarray[Any, np.dtype[np.float64]], threshold: float | None) -> tuple[Any, bool]:
    """Forty equal bins over scores and threshold; logarithmic where the highest score is over 30 times the lowest."""
    values = scores if threshold is None else np.append(scores, threshold)
    if not values.size:
        return np.linspace(0, 1, 2), False
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > 30:
        return np.geomspace(low, high, 41), True
    if low == high:
        margin = abs(low) * 0.1 or 0.5
        return np.linspace(low - margin, high + margin, 41), False
    return np.linspace(low, high, 41), False


def _figure(size: tuple[float, float] = (5.4, 3.8)) -> tuple[Figure, Any]:
    """A figure apart from pyplot, so that nothing global is kept alive."""
    figure = Figure(figsize=size, layout="constrained", facecolor="none")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot(facecolor="none")


def _svg(figure: Figure, name: str, title: str) -> Markup:
    """The figure as an <svg> element: own ids, page colours and fonts, scaled by its viewBox."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    head = f'<svg class="chart" role="img" aria-label="{escape(title)}"'
    text = re.sub(r'<svg(.*?) width="[^"]*"', lambda m: head + m.group(1), text, count=1, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return Markup(text)  # noqa: S704 - drawn by us from numbers; no text of users is in it
