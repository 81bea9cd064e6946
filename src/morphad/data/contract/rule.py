"""What a check is: an expectation, and the words for when it is not met."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

# The rows that a rule checks. "new" are usable good images that the reference does not hold, "masked" defect images
# with a mask; "figures" is one row of figures of the whole.
Rows = Literal["images", "fresh", "good", "new", "defect", "masked", "figures"]


@dataclass(frozen=True)
class Rule:
    """One expectation on some of the rows.

    Attributes:
        name: Of the check, one of `morphad.settings.checks.CHECKS`.
        expectation: Its class in Great Expectations.
        arguments: What it is given.
        message: What is wrong when it is not met; "{n}" becomes how many images do not meet it, with `noun`.
        remedy: What to do then.
        noun: What it counts.
        rows: The rows that it checks.
        paths: The images that it concerns, where the expectation names none.
    """

    name: str
    expectation: str
    arguments: dict[str, Any]
    message: str
    remedy: str
    noun: str = "image"
    rows: Rows = "images"
    paths: Sequence[str] | None = field(default=None, repr=False)


def between(column: str, low: float | None = None, high: float | None = None, **further: Any) -> dict[str, Any]:
    """Arguments for an expectation of values from `low` to `high`."""
    bounds = {"min_value": low, "max_value": high}
    return {"column": column, **{key: value for key, value in bounds.items() if value is not None}, **further}


def flag(name: str, message: str, remedy: str, *, column: str = "", noun: str = "image", rows: Rows = "images") -> Rule:
    """No image has 1 in the column."""
    arguments = between(column or name, high=0)
    return Rule(name, "ExpectColumnValuesToBeBetween", arguments, message, remedy, noun, rows)
