"""Section `validate`: the limits of the data contract."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from morphad.base.wording import did_you_mean
from morphad.settings.base import Fraction, Settings
from morphad.settings.checks import CHECKS, Statistic, Weight


def _in_order(limits: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    low, high = limits
    if low is None and high is None:
        raise ValueError("give a number for the lowest, the highest or both")
    if low is not None and high is not None and low > high:
        raise ValueError(f"the lowest, {low:g}, is above the highest, {high:g}")
    return limits


Range = Annotated[tuple[float | None, float | None], Field(strict=False), AfterValidator(_in_order)]


Share = Annotated[float, Field(ge=0, lt=1)]


class RoleMinimums(Settings):
    """Good images that each role needs at least."""

    train: int = Field(default=10, ge=1)
    calibration: int = Field(default=5, ge=1)
    holdout: int = Field(default=5, ge=1)


class ValidateSettings(Settings):
    """Limits of the data contract over a manifest."""

    min_good: int = Field(default=20, ge=1, description="good images below which no model is trained")
    min_role: RoleMinimums = RoleMinimums()
    defect_kinds: tuple[str, ...] = Field(
        default=(), strict=False, description="kinds of defect that there may be; empty: any, or those of the reference"
    )
    limits: dict[Statistic, Range] = Field(
        default={}, description="[lowest, highest] of a statistic, null for none; in place of those from the reference"
    )
    fence: float = Field(
        default=3.0, ge=1, le=100, description="interquartile ranges beyond the quartiles at which limits lie"
    )
    max_outliers: Share = Field(default=0.05, description="share of good images that may lie outside a limit")
    max_duplicates: Fraction = Field(default=0.2, description="share of good images that may be copies of others")
    max_near_duplicates: Share = Field(default=0.05, description="share of good images that may be near copies")
    near_duplicate_bits: int = Field(default=6, ge=0, le=64, description="as in split.near_duplicate_bits")
    drift_false_alarm: Fraction = Field(
        default=0.01, description="chance that images like the reference count as drifted, all statistics together"
    )
    drift_effect: Fraction = Field(default=0.1, description="share of the images by which a distribution must differ")
    camera_effect: Fraction = Field(
        default=0.2, description="as drift_effect, for what the pictures show and where: the camera check"
    )
    severity: dict[str, Weight] = Field(default={}, description="error, warning or off, by name of the check")

    @model_validator(mode="after")
    def _checks_are_known(self) -> Self:
        for name in self.severity:
            if name not in CHECKS:
                meant = did_you_mean(name, CHECKS) or f"they are {', '.join(CHECKS)}"
                raise ValueError(f"`severity` has no check {name!r}; {meant}")
        return self
