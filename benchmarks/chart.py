"""The picture of docs/results/results.md: every model on every set."""

from collections.abc import Mapping, Sequence
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from morphad.base.files import atomic_file

OURS_COLOUR = "#d55e00"
OTHERS = (("#0072b2", "o"), ("#009e73", "s"), ("#cc79a7", "^"), ("#56b4e9", "v"), ("#777777", "P"), ("#e69f00", "X"))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "morphad",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}


def draw(scores: Mapping[str, Mapping[str, Sequence[float]]], label: str, path: Path) -> None:
    """A row a set, a marker a model at the mean over its seeds, a line from the lowest to the highest.

    Args:
        scores: By model and set, in [0, 1]; the first model stands out.
        label: What the scores are, for the axis.
        path: SVG to write.
    """
    sets = list(dict.fromkeys(name for of_model in scores.values() for name in of_model))
    with mpl.rc_context(STYLE):
        figure = Figure((8, 0.55 * len(sets) + 1.2), layout="constrained")
        axes = figure.subplots()
        axes.hlines(range(len(sets)), 0, 100, color="#dddddd", linewidth=0.8, zorder=0)
        offsets = np.linspace(-0.27, 0.27, len(scores))
        looks = chain([(OURS_COLOUR, "D")], cycle(OTHERS))
        for (model, of_model), (colour, marker), offset in zip(scores.items(), looks, offsets, strict=False):
            for name, values in of_model.items():
                percents = 100 * np.asarray(values)
                y = sets.index(name) + offset
                axes.plot([percents.min(), percents.max()], [y, y], color=colour, linewidth=1.5)
            means = [100 * float(np.mean(values)) for values in of_model.values()]
            rows = [sets.index(name) + offset for name in of_model]
            axes.plot(means, rows, marker, color=colour, markersize=7 if colour == OURS_COLOUR else 5, label=model)
        lowest = min(min(values) for of_model in scores.values() for values in of_model.values())
        axes.set(xlim=(100 * lowest - 2, 101), ylim=(len(sets) - 0.5, -0.5), xlabel=label)
        axes.set_yticks(range(len(sets)), sets)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper center", ncols=len(scores), frameon=False, handletextpad=0.1)
        with atomic_file(path) as part:
            figure.savefig(part, format="svg", metadata={"Date": None}, facecolor="white")
