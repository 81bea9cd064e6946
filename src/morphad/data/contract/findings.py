"""What the contract found: findings in words, limits and shifts of the statistics, and all of it as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from morphad.settings.checks import Severity

FORMAT_VERSION = 1
NAMED = 5  # paths named in a sentence


@dataclass(frozen=True)
class Finding:
    """One thing that the data do not meet.

    Attributes:
        name: Of the check, such as "blurred".
        severity: "error" stops the line, "warning" is shown.
        message: What is wrong, without the paths.
        remedy: What to do.
        paths: The images that it concerns; for a shift of the whole, those that show it most.
        count: How many images it concerns.
    """

    name: str
    severity: Severity
    message: str
    remedy: str
    paths: tuple[str, ...]
    count: int

    @property
    def sentence(self) -> str:
        """Message, the first few paths, and remedy."""
        more = len(self.paths) - NAMED
        named = ", ".join(self.paths[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
        return f"{self.message}{f': {named}' if named else ''}; {self.remedy}"


@dataclass(frozen=True)
class Limits:
    """Where the values of a statistic should lie.

    Attributes:
        low: The lowest; None for none.
        high: The highest; None for none.
        source: "settings", "reference", or "set": the images themselves.
    """

    low: float | None
    high: float | None
    source: str


@dataclass(frozen=True)
class StatisticDrift:
    """How the new images as a whole differ from the reference in one respect.

    Attributes:
        effect: The largest difference of the shares of images below any value, 0..1; for the camera the larger of that
            and the largest difference in how often a place of the picture is light.
        allowed: The effect up to which nothing is said.
        p_value: Chance of such an effect in images like the reference, adjusted for all statistics (Holm).
        drifted: Whether effect and p-value both speak for a shift.
    """

    effect: float
    allowed: float
    p_value: float
    drifted: bool


@dataclass(frozen=True)
class StatisticFacts:
    """A statistic over the good images.

    Attributes:
        name: Such as "brightness".
        median: Of the new good images; None where there are none.
        reference_median: Of the reference's good images; None without a reference.
        limits: None where there is nothing to draw them from.
        shift: None where it was not tested.
    """

    name: str
    median: float | None
    reference_median: float | None
    limits: Limits | None
    shift: StatisticDrift | None


@dataclass(frozen=True)
class Result:
    """What became of every check.

    Attributes:
        line: The product line.
        data_hash: Of the manifest.
        counts: images, good, defect, and new_good: good images that the reference does not hold.
        reference: data_hash and good (how many good images) of the reference; None without one.
        findings: Errors first, then in the order of `morphad.settings.checks.CHECKS`.
        states: For each check "met", "broken", "off", or "not applicable".
        statistics: In the order of `morphad.settings.checks.STATISTICS`.
        camera: How far the pictures as a whole moved against the reference; None where it was not tested.
    """

    line: str
    data_hash: str
    counts: Mapping[str, int]
    reference: Mapping[str, Any] | None
    findings: tuple[Finding, ...]
    states: Mapping[str, str]
    statistics: tuple[StatisticFacts, ...]
    camera: StatisticDrift | None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop the line."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are shown and stop nothing."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def to_json(self) -> dict[str, Any]:
        """As a value for `write_json`; docs/decisions/contract.md describes it."""
        return {
            "format_version": FORMAT_VERSION,
            "line": self.line,
            "passed": not self.errors,
            "data_hash": self.data_hash,
            "counts": dict(self.counts),
            "reference": None if self.reference is None else dict(self.reference),
            "findings": [
                {
                    "name": finding.name,
                    "severity": finding.severity,
                    "message": finding.message,
                    "remedy": finding.remedy,
                    "count": finding.count,
                    "paths": list(finding.paths),
                }
                for finding in self.findings
            ],
            "checks": dict(self.states),
            "statistics": {
                facts.name: {
                    "median": facts.median,
                    "reference_median": facts.reference_median,
                    "limits": None
                    if facts.limits is None
                    else {"low": facts.limits.low, "high": facts.limits.high, "source": facts.limits.source},
                    "shift": _shift(facts.shift),
                }
                for facts in self.statistics
            },
            "camera": {"shift": _shift(self.camera)},
        }


def _shift(shift: StatisticDrift | None) -> dict[str, Any] | None:
    if shift is None:
        return None
    return {
        "effect": shift.effect,
        "allowed": shift.allowed,
        "p_value": shift.p_value,
        "drifted": shift.drifted,
    }
