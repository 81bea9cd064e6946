"""From the scores of good images to a threshold and the false-reject rate that it guarantees.

Split-conformal calibration (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; Papadopoulos et
al., Inductive Confidence Machines for Regression, ECML 2002). docs/decisions/thresholds.md says what it promises.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from morphad.base.errors import BadInputError
from morphad.base.wording import checked_fraction, counted, exact_percent, percent
from morphad.decision.attainable import images_for
from morphad.decision.resampling import Interval, binomial_interval
from morphad.settings import CostSettings

NOTHING_TO_SCORE = 1e30  # the score of what is rejected unseen, such as a picture without the part: above any other


def finite_scores(scores: ArrayLike, what: str = "scores") -> NDArray[np.float64]:
    """`scores` as float64.

    Raises:
        BadInputError: A score is NaN or infinite, or is not a number.
    """
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{what}: expected numbers ({error})") from error
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        first = values.reshape(-1)[wrong[0]]
        raise BadInputError(
            f"{what}: {wrong.size} of {values.size} are not finite (the first is number {wrong[0]}, {first}); "
            "check for black images or a training that diverged"
        )
    return values


@dataclass(frozen=True)
class Calibration:
    """A line's threshold, and the good scores that stand behind it.

    An image is rejected iff its score is strictly above the threshold, which is exactly when its p-value is at most
    `false_reject_rate`. Everything else follows from the three fields, so the JSON round trip is without loss.

    Attributes:
        scores: Scores of good calibration images that training never saw, ascending.
        false_reject_rate: The rate that is guaranteed, alpha in (0, 1).
        confidence: Of `upper_bound`, in (0, 1).
    """

    scores: tuple[float, ...]
    false_reject_rate: float
    confidence: float = 0.95

    @property
    def n(self) -> int:
        """How many good calibration images there are."""
        return len(self.scores)

    @cached_property
    def _tail(self) -> int:
        """The largest j with j / (n + 1) <= alpha: how many of n + 1 exchangeable good images may be rejected.

        Reckoned in fractions of the written decimal, because 20 * (1 - 0.05) is above 19 in floating point for some
        alpha and n, which would cost a rank. The second line makes a rate such as 1 / 3, which no decimal
        writes exactly, attainable with the n it is meant for.
        """
        tail = math.floor((self.n + 1) * Fraction(str(self.false_reject_rate)))
        return tail + 1 if (tail + 1) / (self.n + 1) <= self.false_reject_rate else tail

    @property
    def rank(self) -> int:
        """k = ceil((n + 1) * (1 - alpha)): the threshold is the k-th smallest score; above n it is not attainable."""
        return self.n + 1 - self._tail

    @property
    def attainable(self) -> bool:
        """Whether so few images can carry the rate: n >= 1 / alpha - 1."""
        return self._tail >= 1

    @property
    def threshold(self) -> float | None:
        """Images with a score strictly above it are rejected; None where the rate is not attainable."""
        return self.scores[self.rank - 1] if self.attainable else None

    @property
    def images_needed(self) -> int:
        """The least number of good calibration images with which the rate is attainable."""
        return images_for(self.false_reject_rate)

    @property
    def expected_rate(self) -> float | None:
        """The false-reject rate on average over calibrations (scores without ties), at most `false_reject_rate`."""
        return self._tail / (self.n + 1) if self.attainable else None

    @property
    def upper_bound(self) -> float | None:
        """This threshold's own false-reject rate is below this at `confidence`.

        The rate of one fixed threshold follows Beta(n + 1 - k, k) over draws of the calibration images (Vovk 2012,
        Conditional validity of inductive conformal predictors); ties only lower it.
        """
        if not self.attainable:
            return None
        return float(special.betaincinv(self._tail, self.rank, self.confidence))

    @property
    def guarantee(self) -> str:
        """What the threshold promises, in one sentence."""
        rate = exact_percent(self.false_reject_rate)
        if self.upper_bound is None:
            return (
                f"not attainable with {counted(self.n, 'image')}: at least {self.images_needed:,} good calibration "
                f"images are needed for a false-reject rate of {rate}"
            )
        return (
            f"at most {rate} of good parts are rejected on average, guaranteed from {counted(self.n, 'good image')} "
            f"kept for calibration; for this one threshold the rate is below {percent(self.upper_bound)} at "
            f"{exact_percent(self.confidence)} confidence"
        )

    def checked(self) -> Self:
        """Itself, if the threshold lies between images that were seen: others are rejected whatever it is.

        Raises:
            BadInputError: More of them are rejected unseen than the rate allows.
        """
        unseen = self.scores.count(NOTHING_TO_SCORE)
        if unseen and (unseen == self.n or self.threshold == NOTHING_TO_SCORE):
            raise BadInputError(
                f"{unseen} of {self.n} good calibration images are rejected unseen, more than a false-reject rate of "
                f"{exact_percent(self.false_reject_rate)} allows: their part was not found; take such images out, "
                "raise calibrate.false_reject_rate, or set train.align to another value and train"
            )
        return self

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """(1 + how many calibration scores are at least as high) / (n + 1), in (0, 1], for scores of any shape.

        Raises:
            BadInputError: A score is not finite.
        """
        values = finite_scores(scores)
        below = np.searchsorted(np.asarray(self.scores, dtype=np.float64), values, side="left")
        result: NDArray[np.float64] = np.asarray((1 + self.n - below) / (self.n + 1), dtype=np.float64)
        return result

    def rejected(self, scores: ArrayLike) -> NDArray[np.bool_] | None:
        """Which images are rejected; None where there is no threshold.

        Raises:
            BadInputError: A score is not finite.
        """
        values = finite_scores(scores)
        return None if self.threshold is None else np.asarray(values > self.threshold)

    def verdicts(self, scores: NDArray[np.float64]) -> list[tuple[bool | None, float | None]]:
        """Whether an image is rejected, and its p-value, for each score [N]; None for a score that is no number."""
        known = np.flatnonzero(np.isfinite(scores))
        verdicts: list[tuple[bool | None, float | None]] = [(None, None)] * len(scores)
        rejected, p_values = self.rejected(scores[known]), self.p_values(scores[known])
        for i, place in enumerate(known):
            verdicts[place] = (None if rejected is None else bool(rejected[i]), float(p_values[i]))
        return verdicts

    def to_json(self) -> dict[str, Any]:
        """Plain values; what follows from the scores is written too, for people who read the file."""
        return {
            "scores": list(self.scores),
            "false_reject_rate": self.false_reject_rate,
            "confidence": self.confidence,
            "n": self.n,
            "images_needed": self.images_needed,
            "threshold": self.threshold,
            "expected_rate": self.expected_rate,
            "upper_bound": self.upper_bound,
            "guarantee": self.guarantee,
        }

    @staticmethod
    def from_json(value: Any) -> "Calibration":
        """The calibration that `to_json` wrote.

        Raises:
            BadInputError: Something is missing, or the written threshold is not the one that the scores give.
        """
        try:
            made = calibrate(value["scores"], value["false_reject_rate"], value["confidence"])
            written = value["threshold"]
        except (KeyError, TypeError) as error:
            raise BadInputError(f"calibration: not as morphad writes it ({error!r}); calibrate again") from error
        if written != made.threshold:
            raise BadInputError(
                f"calibration: threshold {written!r} is not the {made.threshold!r} that its scores give; the file was "
                "changed by hand or is damaged: calibrate again"
            )
        return made


def calibrate(scores: ArrayLike, false_reject_rate: float, confidence: float = 0.95) -> Calibration:
    """Set the threshold from scores of good images that training never saw.

    Too few images are no error: the result then has no threshold and says how many it needs.

    Args:
        scores: [n] scores, higher is more abnormal.
        false_reject_rate: Good parts rejected at most, on average, in (0, 1).
        confidence: Of the upper bound on this threshold's own rate, in (0, 1).

    Raises:
        BadInputError: A score is not finite, or a rate is outside (0, 1).
    """
    values = finite_scores(scores, "calibration scores")
    if values.ndim != 1:
        raise BadInputError(f"calibration scores: expected one number an image, got an array of shape {values.shape}")
    return Calibration(
        tuple(np.sort(values).tolist()),
        checked_fraction(false_reject_rate, "false_reject_rate"),
        checked_fraction(confidence, "confidence"),
    )


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold of least expected cost on labelled images.

    It was chosen on the very images that it is measured on, so its rates are optimistic, the more so the fewer images
    there are; it guarantees nothing about new parts.

    Attributes:
        threshold: Reject iff score > threshold; halfway between the two neighbouring scores.
        overkill_rate: Share of the good images above the threshold.
        escape_rate: Share of the defect images at or below it.
        cost_per_part: Expected cost of a part, in the unit of the prices.
        overkill: Interval of the overkill rate.
        escape: Interval of the escape rate.
        n_good: Good images behind it.
        n_defect: Defect images behind it.
    """

    threshold: float
    overkill_rate: float
    escape_rate: float
    cost_per_part: float
    overkill: Interval
    escape: Interval
    n_good: int
    n_defect: int

    @property
    def basis(self) -> str:
        """What it rests on, in one sentence."""
        return (
            f"Chosen and measured on the same {counted(self.n_good, 'good image')} and "
            f"{counted(self.n_defect, 'defect image')}, so the cost on new parts will be somewhat higher: overkill "
            f"{percent(self.overkill_rate)} ({percent(self.overkill.low)} to {percent(self.overkill.high)}), escape "
            f"{percent(self.escape_rate)} ({percent(self.escape.low)} to {percent(self.escape.high)})."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, with `basis`."""
        return {
            "threshold": self.threshold,
            "overkill_rate": self.overkill_rate,
            "escape_rate": self.escape_rate,
            "cost_per_part": self.cost_per_part,
            "overkill": self.overkill.to_json(),
            "escape": self.escape.to_json(),
            "n_good": self.n_good,
            "n_defect": self.n_defect,
            "basis": self.basis,
        }


def operating_point(
    good_scores: ArrayLike, defect_scores: ArrayLike, cost: CostSettings, confidence: float = 0.95
) -> OperatingPoint:
    """The threshold that minimises p * escape price * escape rate + (1 - p) * overkill price * overkill rate.

    p is the expected defect rate of the line. Every threshold is tried, "reject all" and "accept all" too; among equal
    costs the lowest is chosen, which lets the fewest defects escape.

    Raises:
        BadInputError: A score is not finite, or there are no good or no defect images.
    """
    good = np.sort(finite_scores(good_scores, "good scores"))
    defect = np.sort(finite_scores(defect_scores, "defect scores"))
    if not good.size or not defect.size:
        raise BadInputError(
            f"operating point by cost: needs good and defect images, got {good.size} good and {defect.size} defect; "
            "add labelled defects or remove `evaluate.cost`"
        )
    values = np.unique(np.concatenate([good, defect]))
    candidates = np.concatenate([[np.nextafter(values[0], -np.inf)], values])
    overkill = 1 - np.searchsorted(good, candidates, side="right") / good.size
    escape = np.searchsorted(defect, candidates, side="right") / defect.size
    costs = cost.defect_rate * cost.escape * escape + (1 - cost.defect_rate) * cost.overkill * overkill
    best = int(np.argmin(costs))
    threshold = candidates[best]
    if 0 < best < values.size:
        # Any value up to the next score gives the same verdicts here; halfway is the least hostage to one image.
        halfway = threshold / 2 + candidates[best + 1] / 2
        seen = candidates[best + 1] < NOTHING_TO_SCORE
        threshold = halfway if seen and threshold <= halfway < candidates[best + 1] else threshold
    rejected_good = int(np.count_nonzero(good > threshold))
    missed = int(np.count_nonzero(defect <= threshold))
    return OperatingPoint(
        threshold=float(threshold),
        overkill_rate=rejected_good / good.size,
        escape_rate=missed / defect.size,
        cost_per_part=float(costs[best]),
        overkill=binomial_interval(rejected_good, good.size, confidence),
        escape=binomial_interval(missed, defect.size, confidence),
        n_good=int(good.size),
        n_defect=int(defect.size),
    )
