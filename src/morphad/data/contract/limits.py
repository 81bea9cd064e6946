"""Where the values of each statistic should lie, drawn from the reference, or from the set itself."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphad.data.contract.findings import Limits
from morphad.settings import ValidateSettings
from morphad.settings.checks import SIZES, STATISTICS, Statistic

ENOUGH = 20  # images to draw limits from, or to compare

# Grey levels that deviate by less show nothing; sharp pictures of smooth parts have a variance of the Laplacian of 3.
LEAST_CONTRAST = 2.0
MOST_AT_AN_END = 0.99  # share of the pixels at black, or at white
_LEAST_SHARPNESS = 0.5
# Of the line's median: rounding to whole grey levels leaves some in any blur. Good images of five real lines have 0.09
# and more.
_LEAST_OF_SHARPNESS = 0.04
# Times the fence. In 10,000 samples of 20 good images of five real lines the farthest lay at 3.8 times.
_FAR = 5


@dataclass(frozen=True)
class _Scale:
    """How a statistic is measured.

    Attributes:
        low: The least value that there can be.
        high: The largest.
        spread: An interquartile range below which a difference is of no account; in logarithms where `ratio`.
        ratio: Whether its values are compared by their ratios.
    """

    low: float
    high: float
    spread: float
    ratio: bool = False


_SCALES: Mapping[Statistic, _Scale] = {
    "brightness": _Scale(0, 255, 2),
    "contrast": _Scale(0, 127.5, 0.05, ratio=True),
    "sharpness": _Scale(0, np.inf, 0.1, ratio=True),
    "entropy": _Scale(0, 8, 0.1),
    "dark": _Scale(0, 1, 0.05),
    "saturated": _Scale(0, 1, 0.05),
    # Together with a fence of 3 they allow crops that vary by 3 %.
    "height": _Scale(0, np.inf, 0.01, ratio=True),
    "width": _Scale(0, np.inf, 0.01, ratio=True),
    "aspect": _Scale(0, np.inf, 0.01, ratio=True),
}


def least_sharpness(rows: pd.DataFrame) -> float:
    """The variance of the Laplacian below which a picture of this line shows nothing sharp."""
    usual = float(rows.loc[rows["label"] == "good", "sharpness"].median())
    return max(_LEAST_SHARPNESS, _LEAST_OF_SHARPNESS * usual)  # the first where there is no good image


def line_limits(
    good: pd.DataFrame, reference: pd.DataFrame | None, settings: ValidateSettings
) -> dict[Statistic, Limits]:
    """Limits of each statistic: those of the settings, else the reference's, else the images' own.

    They are Tukey's fences: `settings.fence` interquartile ranges beyond the quartiles, on a logarithmic scale where
    values are compared by ratio. Up to a quarter of bad images moves them little. Those of a reference always hold the
    middle 98 % of it, for these were accepted.

    Args:
        good: Usable good images, with the columns of `STATISTICS`.
        reference: Likewise of the reference; None without one.
        settings: With limits that were given.

    Returns:
        Limits by statistic; none for those where the images are too few to draw them from, or all values are allowed.
    """
    basis, source = (good, "set") if reference is None or len(reference) < ENOUGH else (reference, "reference")
    found: dict[Statistic, Limits] = {}
    for name in STATISTICS:
        if name in settings.limits:
            found[name] = Limits(*settings.limits[name], "settings")
        elif len(basis) >= ENOUGH:
            low, high = _fences(basis[name].to_numpy(np.float64), _SCALES[name], settings.fence, source == "reference")
            if low is not None or high is not None:
                found[name] = Limits(low, high, source)
    return found


def far_limits(
    good: pd.DataFrame, reference: pd.DataFrame | None, settings: ValidateSettings
) -> dict[Statistic, Limits]:
    """Limits that an image of the line does not get near: as `line_limits`, the fence `_FAR` times as far away.

    None for sizes, which have a check of their own; where limits were given; and where more than
    `settings.max_outliers` of the images are beyond them, which is another state of the line and no slip.
    """
    far = line_limits(good, reference, settings.model_copy(update={"fence": _FAR * settings.fence}))
    return {
        name: limit
        for name, limit in far.items()
        if name not in SIZES and limit.source != "settings" and _beyond(good[name], limit) <= settings.max_outliers
    }


def _beyond(values: "pd.Series[float]", limit: Limits) -> float:
    """The share of values outside a limit."""
    low = -np.inf if limit.low is None else limit.low
    high = np.inf if limit.high is None else limit.high
    return 1 - float(values.between(low, high).mean())


def _fences(
    values: np.ndarray[tuple[int], np.dtype[np.float64]], scale: _Scale, fence: float, accepted: bool
) -> tuple[float | None, float | None]:
    measured = np.log(np.maximum(values, 1e-6)) if scale.ratio else values
    first, lower, upper, last = np.quantile(measured, [0.01, 0.25, 0.75, 0.99])
    reach = fence * max(upper - lower, scale.spread)
    low, high = float(lower - reach), float(upper + reach)
    if accepted:
        low, high = min(low, float(first)), max(high, float(last))
    if scale.ratio:
        low, high = float(np.exp(low)), float(np.exp(high))
    return (low if low > scale.low else None), (high if high < scale.high else None)
