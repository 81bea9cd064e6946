"""Section `calibrate`: what the threshold guarantees."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from morphad.settings.base import Fraction, Settings


def _rate(value: Any) -> Any:
    if value == "attainable" or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1):
        return value
    raise ValueError("expected a number > 0 and < 1, such as 0.02, or attainable")


class CalibrateSettings(Settings):
    """The threshold's guarantee."""

    false_reject_rate: Annotated[float | Literal["attainable"], BeforeValidator(_rate)] = Field(
        default=0.05,
        description="good parts rejected at most, guaranteed on average; attainable: the lowest that the images allow",
    )
    confidence: Fraction = Field(default=0.95, description="of the upper bound on the false-reject rate")
