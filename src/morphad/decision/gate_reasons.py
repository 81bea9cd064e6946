"""The gate's decision in sentences, from its checks."""

from collections.abc import Sequence
from typing import Any

from morphad.base.wording import counted
from morphad.decision.gate_checks import MIN_KIND, Check

_NAMED = 5  # kinds of defect that one sentence names


def explain(checks: Sequence[Check], figures: dict[str, Any]) -> tuple[bool, list[str]]:
    """Whether the challenger is promoted, and why.

    Args:
        checks: All that were made.
        figures: holdout_id, n_good, n_defect, and champion, None where the line has none.

    Returns:
        The decision, and sentences: first the decision, then what was found. Beside a champion a limit is named only
        where it fails or the images are few.
    """
    first = figures["champion"] is None
    failures = _failures(checks, first)
    if failures:
        verdict = f"Refused: {'; '.join(failures)}"
    elif first:
        verdict = "Promoted: the line has no champion yet, and the challenger keeps the limits"
    else:
        verdict = "Promoted: the challenger is no worse than the champion within the margins, and keeps the limits"
    images = f"{counted(figures['n_good'], 'good image')} and {counted(figures['n_defect'], 'defect image')}"
    said = [
        check.why
        for check in checks
        if check.kind is None
        and (check.passed is not True or check.weak or check.compares or (first and check.name != "threshold"))
    ]
    reasons = [f"{verdict} (holdout {figures['holdout_id'][:12]}, {images}).", *said, *_kinds(checks)]
    return not failures, reasons


def _failures(checks: Sequence[Check], first: bool) -> list[str]:
    """What stands in the way, as it is said behind "Refused:"."""
    failed = [check for check in checks if check.passed is False]
    failures = [check.failure for check in failed if check.kind is None and not check.compares]
    if kinds := [str(check.kind) for check in failed if check.kind is not None and not check.compares]:
        failures.append(f"its escapes of {_listed(kinds)} are above the ceiling")
    if kinds := [str(check.kind) for check in failed if check.kind is not None and check.compares]:
        failures.append(f"it misses more of {_listed(kinds)} than the champion")
    if worse := [check.failure for check in failed if check.kind is None and check.compares]:
        failures.append(f"it is not shown that the challenger is no worse than the champion in {_listed(worse)}")
    if not first and not any(check.compares and check.passed is not None for check in checks):
        failures.append("challenger and champion have nothing that can be compared")
    return failures


def _kinds(checks: Sequence[Check]) -> list[str]:
    """Which kinds of defect fail and why, the worst first; which pass, and which have too few images."""
    by_kind = [check for check in checks if check.kind is not None]
    failed = sorted((check for check in by_kind if check.passed is False), key=lambda check: -(check.value or 0))
    reasons = [check.why for check in failed[:_NAMED]]
    if len(failed) > _NAMED:
        reasons.append(f"{len(failed) - _NAMED} more checks of kinds of defect fail; the record lists them all.")
    few = {str(check.kind) for check in by_kind if check.passed is None}
    passed = {str(check.kind) for check in by_kind} - few - {str(check.kind) for check in failed}
    if passed:
        reasons.append(f"Kinds of defect that pass, judged apart: {_listed(sorted(passed))}.")
    if few:
        listed = _listed(sorted(few))
        reasons.append(f"Kinds of defect with fewer than {MIN_KIND} images are not judged apart: {listed}.")
    return reasons


def _listed(words: Sequence[str]) -> str:
    """In one clause: a; a and b; a, b and c; of many the first five and how many more."""
    last = f"{len(words) - _NAMED} more" if len(words) > _NAMED else words[-1]
    before = words[:_NAMED] if len(words) > _NAMED else words[:-1]
    return f"{', '.join(before)} and {last}" if before else last
