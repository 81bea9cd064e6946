"""How messages say things: rates as percent with a sensible number of digits, plural nouns, what was meant."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from morphad.base.errors import BadInputError


def percent(rate: float, digits: int = 1) -> str:
    """A measured fraction as percent: 0.05 -> "5.0 %", 0.0481 -> "4.8 %", 1 -> "100 %", 0.0001 -> "below 0.1 %".

    A rate that is not exactly 0 or 1 never reads as such.
    """
    if rate in {0, 1}:
        return f"{100 * rate:.0f} %"
    text = f"{100 * rate:.{digits}f}"
    smallest = 10.0**-digits
    if rate > 0 and float(text) == 0:
        return f"below {smallest:g} %"
    if rate < 1 and float(text) >= 100:
        return f"above {100 - smallest:g} %"
    return f"{text} %"


def exact_percent(rate: float) -> str:
    """A settings value as percent, as precisely as it was written: 0.0005 -> "0.05 %"."""
    return f"{100 * rate:.10g} %"


def points(difference: float) -> str:
    """A difference of two rates in percentage points, with its sign: -0.012 -> "-1.2"."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 image", "5,000 images"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question for who mistyped a name, "did you mean train?"; "" where no known name is close to it.

    A name that has the given one as a word of it is meant before those that are only spelled alike: zone, time_zone.
    """
    names, typed = list(known), name.lower()
    near = [each for each in names if typed in re.split(r"[-_ ]", each)]
    near = near or get_close_matches(typed, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


def checked_fraction(value: float, what: str) -> float:
    """`value` if it lies strictly between 0 and 1.

    Raises:
        BadInputError: It does not.
    """
    if not 0 < value < 1:
        raise BadInputError(f"{what} = {value!r}: expected a fraction above 0 and below 1, such as 0.05")
    return float(value)
