"""Which false-reject rate so many good images can carry, known before anything is trained."""

import math
from fractions import Fraction

from morphad.base.wording import counted, exact_percent


def images_for(rate: float) -> int:
    """The least number of good calibration images with which a false-reject rate is attainable: n >= 1 / rate - 1."""
    needed = math.ceil(1 / Fraction(str(rate))) - 1
    return needed - 1 if needed > 1 and 1 / needed <= rate else needed


def tightest_rate(images: int, unseen: int = 0) -> float:
    """The lowest rate that so many good calibration images can carry, 1 / (n + 1) rounded up to two digits.

    Those that are rejected unseen count as false rejects already, and raise it.

    >>> tightest_rate(12), tightest_rate(49), tightest_rate(999)
    (0.077, 0.02, 0.001)
    """
    rate = Fraction(min(1 + unseen, images), images + 1)
    step = Fraction(10) ** (math.floor(math.log10(rate)) - 1)
    return float(math.ceil(rate / step) * step)


def calibration_images(good: int, share: float) -> int:
    """How many of a line's good images calibrate the threshold: the whole number nearest to the share.

    Images that must not be parted, such as near copies, can make it a few more or fewer.
    """
    return math.floor(good * Fraction(str(share)) + Fraction(1, 2))


def good_for(rate: float, share: float) -> int:
    """How many good images a line needs for a rate, where a share of them calibrates the threshold."""
    return math.ceil((images_for(rate) - Fraction(1, 2)) / Fraction(str(share)))


def outlook(good: int, share: float, rate: float | str) -> str | None:
    """What is to be said before a training that cannot reach the rate; None where it can.

    Args:
        good: Good images of the line.
        share: Of them, for calibration (`split.calibration`).
        rate: The rate asked for (`calibrate.false_reject_rate`), or "attainable".
    """
    if isinstance(rate, str):
        return None
    calibration = calibration_images(good, share)
    if calibration >= images_for(rate) or good == 0:
        return None
    tightest = (
        f"the tightest is {exact_percent(tightest_rate(calibration))} now" if calibration else "there is none yet"
    )
    return (
        f"a false-reject rate of {exact_percent(rate)} needs about {good_for(rate, share):,} good images, "
        f"{images_for(rate):,} of them for calibration; with {counted(good, 'good image')} {tightest}: add images, or "
        "set calibrate.false_reject_rate to that or to attainable"
    )
