"""Whether a challenger may take the place of the champion: non-inferiority on the same frozen holdout.

docs/decisions/gate.md says why not "better", and what few images can and cannot tell.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from morphad.decision.calibration import finite_scores
from morphad.decision.metrics import image_metrics, is_defect, ranking, rate_of
from morphad.decision.resampling import stratified_counts
from morphad.decision.wording import counted, exact_percent, percent, points
from morphad.errors import BadInputError, CheckFailedError
from morphad.settings import PromoteSettings


@dataclass(frozen=True)
class Evidence:
    """One model scored on a frozen holdout.

    Attributes:
        labels: [N] "good" or "defect", in the holdout's order.
        scores: [N] raw scores.
        threshold: The model's own; None where its guarantee is not attainable.
        holdout_id: Of the frozen holdout.
    """

    labels: ArrayLike
    scores: ArrayLike
    threshold: float | None
    holdout_id: str


@dataclass(frozen=True)
class Decision:
    """What the gate decided, why in sentences, and the figures behind it.

    Attributes:
        promote: Whether the challenger becomes champion.
        reasons: Complete sentences; the first one is the decision.
        figures: Plain values: holdout_id, n_good, n_defect, confidence, challenger and champion {threshold, auroc,
            overkill, escape}, auroc_difference, overkill_difference and escape_difference {value, low, high}
            (challenger minus champion; low and high are one-sided bounds), each None where it cannot be known.
    """

    promote: bool
    reasons: list[str]
    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"promote": self.promote, "reasons": list(self.reasons), "figures": self.figures}


@dataclass(frozen=True)
class _Model:
    """Evidence made ready: scores checked, verdicts taken, own figures measured."""

    scores: NDArray[np.float64]
    rejected: NDArray[np.bool_] | None
    figures: dict[str, Any]

    @classmethod
    def of(cls, evidence: Evidence, defect: NDArray[np.bool_], who: str, confidence: float) -> "_Model":
        scores = finite_scores(evidence.scores, f"scores of the {who}")
        if scores.shape != defect.shape:
            raise BadInputError(
                f"scores of the {who}: got shape {scores.shape} for {defect.size} labels; score it again"
            )
        rejected = None if evidence.threshold is None else scores > evidence.threshold
        figures = {
            "threshold": evidence.threshold,
            "auroc": image_metrics(defect, scores)["image_auroc"],
            "overkill": None if rejected is None else rate_of(rejected[~defect], confidence),
            "escape": None if rejected is None else rate_of(~rejected[defect], confidence),
        }
        return cls(scores, rejected, figures)


def decide(challenger: Evidence, champion: Evidence | None, settings: PromoteSettings, seed: int = 0) -> Decision:
    """Compare the challenger with the champion, or with the floor for a first champion.

    Both are resampled with the same images (paired, stratified bootstrap). The challenger is promoted iff, at the
    settings' one-sided confidence, its AUROC is above the champion's minus `auroc_margin` and its overkill, each model
    at its own threshold, is below the champion's plus `overkill_margin`. A challenger without a threshold is refused.
    Where the holdout has no defects the AUROC cannot be known and overkill alone decides.

    Raises:
        CheckFailedError: The two were not scored on the same frozen holdout.
        BadInputError: Scores do not fit the labels or are not finite, or the holdout has no good images.
    """
    defect = is_defect(challenger.labels)
    if defect.all():
        raise BadInputError("the holdout has no good images, so overkill cannot be known; renew the holdout with some")
    new = _Model.of(challenger, defect, "challenger", settings.confidence)
    old = None
    if champion is not None:
        _same_holdout(challenger, champion, defect)
        old = _Model.of(champion, defect, "champion", settings.confidence)
    n_defect = int(defect.sum())
    figures: dict[str, Any] = {
        "holdout_id": challenger.holdout_id,
        "n_good": defect.size - n_defect,
        "n_defect": n_defect,
        "confidence": settings.confidence,
        "challenger": new.figures,
        "champion": old and old.figures,
        **(_differences(defect, new, old, settings, seed) if old else {}),
    }
    if new.rejected is None:
        reason = (
            "Refused: the challenger has no threshold, because its guarantee is not attainable with the good "
            "calibration images there are; calibrate with more images or a higher false-reject rate."
        )
        return Decision(False, [reason], figures)
    return _first(figures, settings) if old is None else _against(figures, settings)


def _same_holdout(challenger: Evidence, champion: Evidence, defect: NDArray[np.bool_]) -> None:
    if challenger.holdout_id != champion.holdout_id:
        raise CheckFailedError(
            f"the challenger was scored on holdout {challenger.holdout_id} but the champion on {champion.holdout_id}; "
            "score both on the same frozen holdout"
        )
    if not np.array_equal(defect, is_defect(champion.labels)):
        raise CheckFailedError(
            f"challenger and champion disagree about the labels of holdout {challenger.holdout_id}; score both again "
            "on the same frozen holdout, in the same order"
        )


def _differences(
    defect: NDArray[np.bool_], new: _Model, old: _Model, settings: PromoteSettings, seed: int
) -> dict[str, dict[str, float] | None]:
    """Challenger minus champion with one-sided bounds, from the same resampled images for both."""
    both_classes = bool(defect.any())
    both_judged = new.rejected is not None and old.rejected is not None
    resampled: dict[str, list[NDArray[np.float64]]] = {"auroc": [], "overkill": [], "escape": []}
    for counts in stratified_counts(defect, settings.bootstrap, seed):
        if both_classes:
            by_model = [ranking(defect, model.scores, counts)["image_auroc"] for model in (new, old)]
            resampled["auroc"].append(by_model[0] - by_model[1])
        if new.rejected is not None and old.rejected is not None:
            change = new.rejected.astype(np.int64) - old.rejected
            resampled["overkill"].append(counts[:, ~defect] @ change[~defect] / (~defect).sum())
            if both_classes:
                resampled["escape"].append(-(counts[:, defect] @ change[defect]) / defect.sum())

    def difference(name: str, known: bool) -> dict[str, float] | None:
        if not known:
            return None
        low, high = np.quantile(np.concatenate(resampled[name]), [1 - settings.confidence, settings.confidence])
        ours, theirs = new.figures[name], old.figures[name]
        value = ours - theirs if name == "auroc" else ours["rate"] - theirs["rate"]
        return {"value": float(value), "low": float(low), "high": float(high)}

    return {
        "auroc_difference": difference("auroc", both_classes),
        "overkill_difference": difference("overkill", both_judged),
        "escape_difference": difference("escape", both_judged and both_classes),
    }


def _first(figures: dict[str, Any], settings: PromoteSettings) -> Decision:
    """There is no champion: a threshold is needed, and the floor where defects are known."""
    auroc, overkill = figures["challenger"]["auroc"], figures["challenger"]["overkill"]
    if auroc is None:
        promote = True
        detail = (
            "The holdout has no defects, so whether the model finds any is not known; it is promoted on its threshold "
            "alone. Add labelled defects to the line to measure it."
        )
    else:
        promote = auroc >= settings.min_auroc
        detail = (
            f"Its AUROC is {percent(auroc)}, {'not below' if promote else 'below'} the floor of "
            f"{exact_percent(settings.min_auroc)} for a first champion."
        )
    verdict = "Promoted: the line has no champion yet and" if promote else "Refused: the line has no champion yet, but"
    has = "the challenger has a threshold" if promote else "the challenger does not find defects well enough"
    return Decision(promote, [f"{verdict} {has} ({_holdout(figures)}).", detail, _overkill_alone(overkill)], figures)


def _against(figures: dict[str, Any], settings: PromoteSettings) -> Decision:
    new, old = figures["challenger"], figures["champion"]
    confidence = exact_percent(settings.confidence)
    failed: list[str] = []
    reasons: list[str] = []
    auroc, overkill, escape = (figures[f"{name}_difference"] for name in ("auroc", "overkill", "escape"))
    if auroc is None:
        reasons.append("The holdout has no defects, so AUROC cannot be compared; overkill alone decides.")
    else:
        if not auroc["low"] > -settings.auroc_margin:
            failed.append("AUROC")
        reasons.append(
            f"AUROC is {percent(new['auroc'], 2)} against {percent(old['auroc'], 2)}: the difference of "
            f"{points(auroc['value'])} points is above {points(auroc['low'])} at {confidence} confidence, and it "
            f"must be above {points(-settings.auroc_margin)}."
        )
    if overkill is None:
        reasons.append("The champion has no threshold, so overkill cannot be compared.")
        reasons.append(_overkill_alone(new["overkill"]))
        if auroc is None:
            failed.append("nothing that can be compared")
    else:
        if not overkill["high"] < settings.overkill_margin:
            failed.append("overkill")
        reasons.append(
            f"Overkill is {percent(new['overkill']['rate'])} against {percent(old['overkill']['rate'])}, each at its "
            f"own threshold: the difference of {points(overkill['value'])} points is below "
            f"{points(overkill['high'])} at {confidence} confidence, and it must be below "
            f"{points(settings.overkill_margin)}."
        )
        reasons += _power(figures["n_good"], settings)
    if escape is not None:
        reasons.append(
            f"Escapes are {percent(new['escape']['rate'])} against {percent(old['escape']['rate'])} of the defects "
            f"({points(escape['low'])} to {points(escape['high'])} points); this is on record and does not decide."
        )
    if failed:
        verdict = (
            f"Refused: it is not shown that the challenger is no worse than the champion in {' and '.join(failed)}"
        )
        if failed == ["nothing that can be compared"]:
            verdict = "Refused: challenger and champion have nothing that can be compared"
    else:
        verdict = "Promoted: the challenger is no worse than the champion within the margins"
    return Decision(not failed, [f"{verdict} ({_holdout(figures)}).", *reasons], figures)


def _power(n_good: int, settings: PromoteSettings) -> list[str]:
    """A warning where so few good images may well show no change at all although overkill grew by the margin.

    n images miss a change that befalls a share m of the parts with probability (1 - m)^n.
    """
    if settings.overkill_margin == 0:
        return []
    unseen = (1 - settings.overkill_margin) ** n_good
    if unseen <= 1 - settings.confidence:
        return []
    needed = math.ceil(math.log(1 - settings.confidence) / math.log(1 - settings.overkill_margin))
    return [
        f"The overkill comparison is weak: {counted(n_good, 'good image')} can miss an increase of "
        f"{points(settings.overkill_margin).lstrip('+')} points altogether with a chance of {percent(unseen)}; "
        f"{needed} good images would make it {exact_percent(round(1 - settings.confidence, 10))} or less."
    ]


def _overkill_alone(overkill: dict[str, Any]) -> str:
    return (
        f"At its threshold it rejects {overkill['count']} of {counted(overkill['n'], 'good image')} "
        f"({percent(overkill['rate'])}, {percent(overkill['low'])} to {percent(overkill['high'])})."
    )


def _holdout(figures: dict[str, Any]) -> str:
    images = f"{counted(figures['n_good'], 'good image')} and {counted(figures['n_defect'], 'defect image')}"
    return f"holdout {figures['holdout_id'][:12]}, {images}"
