"""What a quality engineer needs to know about a model, in one sentence, and what to do where something is wrong."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from morphad.base.errors import BadInputError
from morphad.base.files import read_json
from morphad.base.wording import counted, exact_percent, percent
from morphad.decision.calibration import Calibration
from morphad.decision.grounds import Grounds
from morphad.model.saved import saved_calibration


@dataclass(frozen=True)
class Verdict:
    """The sentence at the head of a page.

    Attributes:
        sentence: What the model does at its threshold, or that it has none.
        attainable: Whether there is a threshold.
        remedy: What to do, empty where nothing is wrong.
        warnings: Further sentences that must not be overlooked.
    """

    sentence: str
    attainable: bool
    remedy: str = ""
    warnings: list[str] = field(default_factory=list)


def verdict(metrics: dict[str, Any], calibration: Calibration) -> Verdict:
    """The verdict on the figures of `decision.metrics.evaluate` under a calibration."""
    if not calibration.attainable:
        return _no_threshold(metrics, calibration)
    overkill, escape = metrics["overkill"], metrics["escape"]
    guarantee = (
        f"at most {exact_percent(calibration.false_reject_rate)} guaranteed on average from "
        f"{counted(calibration.n, 'calibration image')}"
    )
    shift = f"per shift of {metrics['parts_per_shift']:,} parts"
    warnings = _warnings(metrics, calibration)
    if overkill is None:
        missed = "" if escape is None else f" and misses {percent(escape['rate'])} of the defects in the holdout"
        sentence = (
            f"At its threshold this model rejects good parts at a rate that was not measured ({guarantee}){missed}."
        )
        return Verdict(
            sentence, True, warnings=["The holdout has no good images, so overkill is not known.", *warnings]
        )
    rejects = f"At its threshold this model rejects {percent(overkill['rate'])} of good parts ({guarantee})"
    overkills = _parts(overkill["parts_per_shift"], "overkill")
    if escape is None:
        sentence = f"{rejects}: about {overkills} {shift}. How many defects it misses is not known."
        return Verdict(sentence, True, "Add labelled defect images to the line to measure escapes.", warnings)
    escapes = _parts(escape["parts_per_shift"], "escape")
    sentence = (
        f"{rejects} and misses {percent(escape['rate'])} of the defects in the holdout: "
        f"about {overkills} and {escapes} {shift}."
    )
    return Verdict(sentence, True, warnings=warnings)


def _no_threshold(metrics: dict[str, Any], calibration: Calibration) -> Verdict:
    rate, n, needed = exact_percent(calibration.false_reject_rate), calibration.n, calibration.images_needed
    sentence = (
        f"This model has no threshold and cannot reject parts: a false-reject rate of {rate} is not attainable "
        f"with {counted(n, 'calibration image')}."
    )
    remedy = (
        f"Add good images until at least {needed:,} are kept for calibration ({needed - n:,} more), or set "
        f"calibrate.false_reject_rate to at least {percent(1 / (n + 1) + 5e-4)}; then calibrate again."
    )
    if n == 0:
        remedy = f"Add good images until at least {needed:,} are kept for calibration; then calibrate again."
    auroc = metrics["image_auroc"]
    ranked = (
        []
        if auroc is None
        else [f"Without a threshold the model still ranks parts, with an AUROC of {percent(auroc)}."]
    )
    return Verdict(sentence, False, remedy, [*ranked, *_pending_verdicts(metrics)])


def _warnings(metrics: dict[str, Any], calibration: Calibration) -> list[str]:
    grounds = Grounds.from_json(metrics["grounds"]).warnings(calibration) if "grounds" in metrics else []
    return [*_overkill_warning(metrics, calibration), *grounds, *_pending_verdicts(metrics)]


def _pending_verdicts(metrics: dict[str, Any]) -> list[str]:
    count = metrics.get("pending_verdicts", 0)
    if not count:
        return []
    return [
        f"On {counted(count, 'image')} of the holdout the line has said otherwise since it was frozen: figures here "
        "are by the labels as they were. Set split.renew_holdout to use the new ones; figures before and after are "
        "then not comparable."
    ]


def _overkill_warning(metrics: dict[str, Any], calibration: Calibration) -> list[str]:
    overkill = metrics["overkill"]
    if overkill is None or calibration.upper_bound is None or overkill["low"] <= calibration.upper_bound:
        return []
    return [
        f"The overkill measured on the holdout ({percent(overkill['low'])} to {percent(overkill['high'])}) is above "
        f"what the calibration allows for ({percent(calibration.upper_bound)}): holdout and calibration images "
        "differ, for example in lot, light or camera. Do not rely on the guarantee before the reason is found."
    ]


def read_verdict(report: Path, detector: Path) -> Verdict:
    """The sentence at the head of a line's page."""
    calibration, metrics = saved_calibration(detector), report / "metrics.json"
    try:
        return verdict(read_json(metrics), calibration)
    except (KeyError, TypeError) as error:
        raise BadInputError(f"{metrics}: not as morphad writes it; run `morphad evaluate` again") from error


def _parts(number: float, what: str) -> str:
    if 0 < number < 0.5:
        return f"fewer than 1 {what}"
    return counted(round(number), what)
