"""Whether a challenger may replace the champion: limits for all, non-inferiority on the same frozen holdout.

docs/decisions/gate.md says why not "better", what decides, and what few images can and cannot show.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from morphad.base.errors import BadInputError, CheckFailedError
from morphad.decision import gate_checks
from morphad.decision.calibration import finite_scores
from morphad.decision.comparison import Difference, paired_differences
from morphad.decision.gate_checks import MIN_KIND, Check
from morphad.decision.gate_reasons import explain
from morphad.decision.metrics import image_metrics, is_defect, rate_of
from morphad.settings import PromoteSettings

Images = NDArray[np.bool_]

_LIMITS = (
    "confidence", "auroc_margin", "overkill_margin", "escape_margin", "min_auroc", "max_overkill", "max_escape"
)  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """One model scored on a frozen holdout.

    Attributes:
        labels: [N] "good" or "defect", in the holdout's order.
        scores: [N] raw scores.
        threshold: The model's own; None where its guarantee is not attainable.
        holdout_id: Of the frozen holdout.
        kinds: [N] kind of defect, "" for good images and where it is not known; empty where no kind is known.
    """

    labels: ArrayLike
    scores: ArrayLike
    threshold: float | None
    holdout_id: str
    kinds: Sequence[str] = ()


@dataclass(frozen=True)
class Decision:
    """What the gate decided, why in sentences, and the figures behind it.

    Attributes:
        promote: Whether the challenger becomes champion.
        reasons: Complete sentences; the first one is the decision.
        figures: Plain values: holdout_id, n_good, n_defect, confidence, challenger and champion {threshold, auroc,
            overkill, escape}; with a champion auroc_difference, overkill_difference and escape_difference {value, low,
            high} (challenger minus champion; low and high are one-sided bounds), each None where it cannot be known;
            limits (the settings that decide), resamples, seed; checks, each as `gate_checks.Check.to_json` gives it.
    """

    promote: bool
    reasons: list[str]
    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"promote": self.promote, "reasons": list(self.reasons), "figures": self.figures}


@dataclass(frozen=True)
class _Model:
    """Evidence made ready: scores checked, verdicts given, own figures measured."""

    scores: NDArray[np.float64]
    rejected: Images | None
    figures: dict[str, Any]

    @classmethod
    def of(cls, evidence: Evidence, defect: Images, who: str, confidence: float) -> "_Model":
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
    """Hold the challenger against the limits and, where there is a champion, against that.

    It is promoted iff no check fails. A check that cannot be known (no defects, too few of a kind) does not decide, and
    the reasons say so; but a champion with which nothing can be compared stays.

    Limits: it has a threshold; AUROC is not below `min_auroc`; overkill and escapes are not above `max_overkill` and
    `max_escape`; at least one defect is found; no kind of defect is shown to be above `max_escape`.

    Against the champion, each model at its own threshold and both resampled with the same images: AUROC is above the
    champion's minus `auroc_margin`, overkill and escapes are below the champion's plus their margins, each at the
    one-sided `confidence`; no kind of defect is missed clearly more often.

    Raises:
        CheckFailedError: The two were not scored on the same frozen holdout.
        BadInputError: Scores or kinds do not fit the labels, scores are not finite, or the holdout has no good images.
    """
    defect = is_defect(challenger.labels)
    if defect.all():
        raise BadInputError("the holdout has no good images, so overkill cannot be known; renew the holdout with some")
    kinds = _kinds(challenger, defect)
    new = _Model.of(challenger, defect, "challenger", settings.confidence)
    checks = _limits(new, kinds, settings)
    old: _Model | None = None
    differences: dict[str, Difference | None] = {}
    if champion is not None:
        _same_holdout(challenger, champion, defect)
        old = _Model.of(champion, defect, "champion", settings.confidence)
        differences = paired_differences(
            defect,
            (new.scores, old.scores),
            (new.rejected, old.rejected),
            confidence=settings.confidence,
            resamples=settings.bootstrap,
            seed=seed,
        )
        checks += _comparisons(new, old, differences, kinds, settings)
    figures: dict[str, Any] = {
        "holdout_id": challenger.holdout_id,
        "n_good": int((~defect).sum()),
        "n_defect": int(defect.sum()),
        "confidence": settings.confidence,
        "challenger": new.figures,
        "champion": old and old.figures,
        **differences,
        "limits": {name: getattr(settings, name) for name in _LIMITS} | {"min_kind": MIN_KIND},
        "resamples": settings.bootstrap,
        "seed": seed,
        "checks": [check.to_json() for check in checks],
    }
    promote, reasons = explain(checks, figures)
    return Decision(promote, reasons, figures)


def _kinds(evidence: Evidence, defect: Images) -> dict[str, Images]:
    """[N] which images show it, by kind of defect; empty where one kind is all, for that is the line as a whole."""
    if not len(evidence.kinds):
        return {}
    if len(evidence.kinds) != defect.size:
        raise BadInputError(
            f"kinds of defect: got {len(evidence.kinds)} for {defect.size} labels; give one an image, '' where unknown"
        )
    named = np.array(evidence.kinds, dtype=object)
    found = {kind: defect & (named == kind) for kind in sorted(set(named[defect])) if kind}
    return {} if any(np.array_equal(images, defect) for images in found.values()) else found


def _same_holdout(challenger: Evidence, champion: Evidence, defect: Images) -> None:
    if challenger.holdout_id != champion.holdout_id:
        raise CheckFailedError(
            f"the challenger was scored on holdout {challenger.holdout_id} but the champion on {champion.holdout_id}; "
            "score both on the same frozen holdout"
        )
    if not np.array_equal(defect, is_defect(champion.labels)) or list(challenger.kinds) != list(champion.kinds):
        raise CheckFailedError(
            f"challenger and champion disagree about the labels of holdout {challenger.holdout_id}; score both again "
            "on the same frozen holdout, in the same order"
        )


def _limits(new: _Model, kinds: dict[str, Images], settings: PromoteSettings) -> list[Check]:
    overkill, escape = new.figures["overkill"], new.figures["escape"]
    checks = [gate_checks.threshold(new.figures["threshold"]), gate_checks.auroc_floor(new.figures["auroc"], settings)]
    if overkill is not None:
        checks.append(gate_checks.overkill_ceiling(overkill["count"], overkill["n"], settings))
    if escape is not None:
        checks.append(gate_checks.escape_ceiling(escape["count"], escape["n"], settings))
    if new.rejected is not None:
        for kind, images in kinds.items():
            count, n = int((~new.rejected[images]).sum()), int(images.sum())
            if n < MIN_KIND:
                checks.append(gate_checks.unjudged("escape", kind, count / n, n, settings.max_escape))
            else:
                checks.append(gate_checks.kind_ceiling(kind, count, n, _judged(kinds), settings))
    return checks


def _comparisons(
    new: _Model,
    old: _Model,
    differences: dict[str, Difference | None],
    kinds: dict[str, Images],
    settings: PromoteSettings,
) -> list[Check]:
    checks = []
    if (found := differences["auroc_difference"]) is None:
        why = "The holdout has no defects, so AUROC cannot be compared."
        checks.append(Check("auroc_difference", None, why, limit=-settings.auroc_margin))
    else:
        checks.append(gate_checks.auroc_difference(new.figures["auroc"], old.figures["auroc"], found, settings))
    if new.rejected is None or old.rejected is None:
        if new.rejected is not None:
            why = "The champion has no threshold, so overkill and escapes cannot be compared."
            checks.append(Check("overkill_difference", None, why, limit=settings.overkill_margin))
        return checks
    for name, check in (
        ("overkill", gate_checks.overkill_difference),
        ("escape", gate_checks.escape_difference),
    ):
        if (found := differences[f"{name}_difference"]) is not None:
            ours, theirs = new.figures[name], old.figures[name]
            checks.append(check(ours["rate"], theirs["rate"], ours["n"], found, settings))
    for kind, images in kinds.items():
        newly_missed = int((old.rejected & ~new.rejected)[images].sum())
        newly_found = int((new.rejected & ~old.rejected)[images].sum())
        n = int(images.sum())
        if n < MIN_KIND:
            value = (newly_missed - newly_found) / n
            checks.append(gate_checks.unjudged("escape_difference", kind, value, n, settings.escape_margin))
        else:
            checks.append(gate_checks.kind_difference(kind, (newly_missed, newly_found), n, _judged(kinds), settings))
    return checks


def _judged(kinds: dict[str, Images]) -> int:
    """How many kinds have images enough to be judged apart; they share the chance of an error."""
    return sum(int(images.sum()) >= MIN_KIND for images in kinds.values())
