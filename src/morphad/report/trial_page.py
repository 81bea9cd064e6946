"""The page of a trial: what a folder of good pictures allows, and what a first detector finds in others."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphad.base.files import write_text
from morphad.base.wording import counted, exact_percent
from morphad.decision.attainable import good_for
from morphad.decision.calibration import Calibration
from morphad.model.sight import Sight
from morphad.report.pairs import pairs
from morphad.report.pictures import Example, colour_bar
from morphad.report.template import environment

_RATES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.001)


@dataclass(frozen=True)
class TrialPage:
    """Everything that the page shows.

    Attributes:
        folder: The folder of pictures, as people know it.
        created: Date and time as shown.
        good: Good pictures there are.
        share: Of them, for calibration.
        calibration: What they allow.
        heatmap_scale: Heatmap values shown as coldest and hottest.
        sight: How large the pictures are seen.
        next_command: That makes a project of the folder.
        odd: Good pictures that training did not see, those with the highest scores first.
        defects: Pictures of the folder that are labelled as defects.
        others: Pictures that were asked about.
        unreadable: Name and reason of each picture that could not be read.
    """

    folder: str
    created: str
    good: int
    share: float
    calibration: Calibration
    heatmap_scale: tuple[float, float]
    sight: Sight
    next_command: str
    odd: Sequence[Example]
    defects: Sequence[Example] = ()
    others: Sequence[Example] = ()
    unreadable: Sequence[tuple[str, str]] = ()


def headline(good: int, calibration: Calibration) -> str:
    """What so many good pictures allow, in a sentence."""
    return (
        f"With {counted(good, 'good picture')} a threshold can promise that at most "
        f"{exact_percent(calibration.false_reject_rate)} of good parts are rejected, on average."
    )


def next_command(folder: Path, train: Mapping[str, Any]) -> str:
    """What makes a project of the folder, with the same settings of `train` as far as `morphad init` takes them."""
    given = {name: train[name] for name in ("preset", "align") if name in train} | dict(train.get("resolution", {}))
    options = (f" --{name.replace('_', '-')} {value}" for name, value in given.items())
    return f"morphad init {shlex.quote(str(folder))} --line NAME{''.join(options)}"


def write_trial_page(file: Path, page: TrialPage) -> None:
    """Write the page: one file, no network, no script.

    Raises:
        BadInputError: The file cannot be written.
    """
    rates = [(rate, good_for(rate, page.share)) for rate in _RATES]
    groups = [
        (
            "Pictures that you asked about",
            "Rejected ones first. A heatmap shows where a part differs from the good ones.",
            sorted(page.others, key=lambda example: -example.score),
        ),
        (
            "Pictures labelled as defects",
            "The lowest scores first: they are missed, or nearest to being missed.",
            page.defects,
        ),
        (
            "The oddest good pictures",
            "Good pictures that training did not see. Is one of them no good part? Remove it, and try again.",
            page.odd,
        ),
    ]
    write_text(
        file,
        environment()
        .get_template("trial.html")
        .render(
            page=page,
            headline=headline(page.good, page.calibration),
            rates=rates,
            groups=[group for group in groups if group[2]],
            show=lambda example: pairs(example, page.heatmap_scale),
            close=any(example.window for _, _, examples in groups for example in examples),
            colour_bar=colour_bar(),
        ),
    )
