"""What the gate checks, one thing at a time: limits for every challenger, comparisons with the champion.

docs/decisions/gate.md says why these, and how often they err.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from morphad.base.wording import counted, exact_percent, percent, points
from morphad.decision.comparison import Difference, chance_of_as_many
from morphad.decision.resampling import one_sided_bounds
from morphad.settings import PromoteSettings

# Below it a kind of defect is not judged apart: among several kinds, nearly all its images would have to turn.
MIN_KIND = 10


@dataclass(frozen=True)
class Check:
    """One question of the gate and its answer.

    Attributes:
        name: threshold, auroc, overkill, escape, auroc_difference, overkill_difference or escape_difference.
        passed: None where it cannot be known; such a check does not decide.
        why: Complete sentences.
        kind: The kind of defect that it is about; None for the line as a whole.
        n: How many images it rests on; None where good and defect images both count.
        value: What was measured; a difference is challenger minus champion.
        bound: One-sided bound of the value, upper or lower, whichever the check asks for; None without one.
        limit: What value or bound is held against.
        weak: Whether the images are too few to show what the check asks for.
        failure: What did not hold, as it is said behind "Refused:"; empty for a kind of defect.
        details: Further plain values, by name.
    """

    name: str
    passed: bool | None
    why: str
    kind: str | None = None
    n: int | None = None
    value: float | None = None
    bound: float | None = None
    limit: float | None = None
    weak: bool = False
    failure: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def compares(self) -> bool:
        """Whether it holds the challenger against the champion, and not against a limit."""
        return self.name.endswith("_difference")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {key: value for key, value in vars(self).items() if key not in {"failure", "details"}}
        return plain | self.details


def images_needed(limit: float, confidence: float) -> int | None:
    """So many images without an event show a rate below `limit` at `confidence`; None where no number does."""
    if limit <= 0:
        return None
    needed = 1.0 if limit >= 1 else math.log1p(-confidence) / math.log1p(-limit)
    return math.ceil(needed) if math.isfinite(needed) else None


def threshold(value: float | None) -> Check:
    """The challenger has one."""
    if value is not None:
        return Check("threshold", True, "The challenger has a threshold.", value=value)
    why = (
        "Its guarantee is not attainable with the good calibration images there are; calibrate with more images or a "
        "higher false-reject rate."
    )
    return Check("threshold", False, why, failure="the challenger has no threshold")


def auroc_floor(auroc: float | None, settings: PromoteSettings) -> Check:
    """The challenger separates defects from good parts."""
    floor = settings.min_auroc
    if auroc is None:
        why = (
            "The holdout has no defects, so whether the model finds any is not known. Add labelled defects to the line "
            "to measure it."
        )
        return Check("auroc", None, why, limit=floor, weak=True)
    passed = auroc >= floor
    why = f"AUROC is {percent(auroc)}, {'not below' if passed else 'below'} the floor of {exact_percent(floor)}."
    return Check("auroc", passed, why, value=auroc, limit=floor, failure="its AUROC is below the floor")


def overkill_ceiling(count: int, n: int, settings: PromoteSettings) -> Check:
    """The challenger accepts good parts."""
    why = f"it rejects {count} of {counted(n, 'good image')}"
    check = _ceiling("overkill", why, (count, n), settings.max_overkill, settings.confidence)
    return replace(check, failure="its overkill is above the ceiling")


def escape_ceiling(count: int, n: int, settings: PromoteSettings) -> Check:
    """The challenger rejects defects; one that rejects none never passes, however few there are."""
    why = f"it misses {count} of {counted(n, 'defect')}"
    check = _ceiling("escape", why, (count, n), settings.max_escape, settings.confidence)
    if count < n:
        return replace(check, failure="its escapes are above the ceiling")
    remedy = (
        "A model that finds none of the known defects never passes. Search for a defect among the good calibration "
        "images: one is enough to lift the threshold above all others."
    )
    failure = "it misses every defect of the holdout"
    return replace(check, passed=False, why=f"{check.why} {remedy}", failure=failure)


def _ceiling(name: str, what: str, measured: tuple[int, int], ceiling: float, confidence: float) -> Check:
    """A measured rate, so many of n, is not above its ceiling.

    One event alone does not decide where so few images could not show, even without any, that the ceiling is kept.
    """
    count, n = measured
    rate, (_, upper) = count / n, one_sided_bounds(count, n, confidence)
    needed = images_needed(ceiling, confidence)
    weak = needed is not None and n < needed
    why = (
        f"At its threshold {what} ({percent(rate)}, at most {percent(upper)} at {exact_percent(confidence)} "
        f"confidence); the ceiling is {exact_percent(ceiling)}."
    )
    if weak:
        why += f" {needed} images are needed to show that the ceiling is kept; with fewer, one alone does not decide."
    passed = rate <= ceiling or (weak and count == 1)
    return Check(name, passed, why, n=n, value=rate, bound=upper, limit=ceiling, weak=weak)


def auroc_difference(new: float, old: float, found: Difference, settings: PromoteSettings) -> Check:
    """The challenger separates defects from good parts no worse than the champion."""
    limit = -settings.auroc_margin
    why = (
        f"AUROC is {percent(new, 2)} against {percent(old, 2)}: the difference of {points(found['value'])} points is "
        f"above {points(found['low'])} at {exact_percent(settings.confidence)} confidence, and it must be above "
        f"{points(limit)}."
    )
    passed, value, low = found["low"] > limit, found["value"], found["low"]
    return Check("auroc_difference", passed, why, value=value, bound=low, limit=limit, failure="AUROC")


def overkill_difference(new: float, old: float, n: int, found: Difference, settings: PromoteSettings) -> Check:
    """The challenger rejects no more good parts than the champion, each at its own threshold."""
    margin, confidence = settings.overkill_margin, settings.confidence
    check = _no_more("overkill_difference", n, found, margin, confidence)
    why = f"Overkill is {percent(new)} against {percent(old)}, {check.why}"
    if check.weak:
        # n images miss a change that befalls a share m of the parts with probability (1 - m)^n.
        why += (
            f" The overkill comparison is weak: {counted(n, 'good image')} can miss an increase of "
            f"{points(margin).lstrip('+')} points altogether with a chance of {percent((1 - margin) ** n)}; "
            f"{images_needed(margin, confidence)} good images would make it "
            f"{exact_percent(round(1 - confidence, 10))} or less."
        )
    return replace(check, why=why, failure="overkill")


def escape_difference(new: float, old: float, n: int, found: Difference, settings: PromoteSettings) -> Check:
    """The challenger misses no more defects than the champion, each at its own threshold.

    One more missed does not decide where so few defects could miss an increase by the margin altogether.
    """
    margin, confidence = settings.escape_margin, settings.confidence
    check = _no_more("escape_difference", n, found, margin, confidence)
    why, passed = f"Escapes are {percent(new)} against {percent(old)}, {check.why}", check.passed
    if check.weak:
        passed = passed or round(found["value"] * n) <= 1
        why += (
            f" The comparison of escapes is weak with {counted(n, 'defect')}: it needs "
            f"{images_needed(margin, confidence)}; with fewer, one more missed does not decide."
        )
    return replace(check, passed=passed, why=why, failure="escapes")


def _no_more(name: str, n: int, found: Difference, margin: float, confidence: float) -> Check:
    needed = images_needed(margin, confidence)
    why = (
        f"each at its own threshold: the difference of {points(found['value'])} points is below "
        f"{points(found['high'])} at {exact_percent(confidence)} confidence, and it must be below {points(margin)}."
    )
    passed, value, high = found["high"] < margin, found["value"], found["high"]
    weak = needed is not None and n < needed
    return Check(name, passed, why, n=n, value=value, bound=high, limit=margin, weak=weak)


def kind_ceiling(kind: str, count: int, n: int, kinds: int, settings: PromoteSettings) -> Check:
    """A kind of defect is not shown to be missed more often than the ceiling allows.

    The lower bound decides, at a confidence shared among the kinds that are judged: of many kinds one or another seems
    bad by chance.
    """
    lower, _ = one_sided_bounds(count, n, 1 - (1 - settings.confidence) / kinds)
    why = (
        f"It misses {count} of {n} images of {kind} ({percent(count / n)}, at least {percent(lower)} in all "
        f"likelihood); the ceiling is {exact_percent(settings.max_escape)}."
    )
    return Check(
        "escape",
        lower <= settings.max_escape,
        why,
        kind,
        n,
        value=count / n,
        bound=lower,
        limit=settings.max_escape,
    )


def kind_difference(kind: str, changed: tuple[int, int], n: int, kinds: int, settings: PromoteSettings) -> Check:
    """A kind of defect is not missed clearly more often than by the champion.

    Clearly is by more than the margin, and further than two equal models differ by chance, all kinds together.

    Args:
        kind: Its name.
        changed: How many images the champion finds and the challenger misses, and the other way round.
        n: How many images there are of it.
        kinds: How many kinds share the chance of an error.
        settings: Margin and confidence.
    """
    newly_missed, newly_found = changed
    value, margin = (newly_missed - newly_found) / n, settings.escape_margin
    chance, allowed = chance_of_as_many(newly_missed, newly_found), (1 - settings.confidence) / kinds
    why = (
        f"Of {n} images of {kind} it misses {newly_missed} that the champion finds, and finds {newly_found} that the "
        f"champion misses: {points(value)} points, with a margin of {points(margin)}; two equal models differ so far "
        f"with a chance of {percent(chance, 2)}, and from {percent(allowed, 2)} down it counts."
    )
    return Check(
        "escape_difference",
        value <= margin or chance > allowed,
        why,
        kind,
        n,
        value=value,
        limit=margin,
        details={"newly_missed": newly_missed, "newly_found": newly_found}
        | {"chance": chance, "chance_limit": allowed},
    )


def unjudged(name: str, kind: str, value: float, n: int, limit: float) -> Check:
    """A kind of defect with too few images to be judged apart."""
    why = f"{counted(n, 'image')} of {kind} {'is' if n == 1 else 'are'} too few to judge this kind apart."
    return Check(name, None, why, kind, n, value=value, limit=limit, weak=True)
