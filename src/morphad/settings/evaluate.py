"""Section `evaluate`: what is measured on the holdout."""

from pydantic import Field

from morphad.settings.base import Fraction, Settings


class CostSettings(Settings):
    """Prices for the operating point by cost; all three or none."""

    overkill: float = Field(gt=0, description="price of one rejected good part")
    escape: float = Field(gt=0, description="price of one accepted defect part")
    defect_rate: Fraction = Field(description="expected share of defect parts on the line")


class EvaluateSettings(Settings):
    """What is measured on the holdout."""

    bootstrap: int = Field(default=1000, ge=100, le=100_000, description="resamples behind every interval")
    confidence: Fraction = 0.95
    parts_per_shift: int = Field(default=5000, ge=1)
    defect_rate: Fraction = Field(default=0.01, description="expected share of defect parts, for parts per shift")
    cost: CostSettings | None = Field(default=None, description="prices for the operating point by cost")
