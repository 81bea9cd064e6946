"""Section `calibrate`: what the threshold guarantees."""

from pydantic import Field

from morphad.settings.base import Fraction, Settings


class CalibrateSettings(Settings):
    """The threshold's guarantee."""

    false_reject_rate: Fraction = Field(default=0.05, description="good parts rejected at most, guaranteed on average")
    confidence: Fraction = Field(default=0.95, description="of the upper bound on the false-reject rate")
