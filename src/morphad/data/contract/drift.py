"""Whether new images as a whole are like the reference: a test a statistic, two of what the pictures show and where."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from morphad.data.contract.findings import StatisticDrift
from morphad.data.contract.limits import ENOUGH
from morphad.settings import ValidateSettings
from morphad.settings.checks import STATISTICS

Values = NDArray[np.float64]
Bits = NDArray[np.uint8]

CAMERA = "camera"
_BLOCK = 4096
# Times sqrt(1/n), the effect that n images of no difference exceed once in twenty times: of a distribution, of the most
# deviating of 256 places.
_CHANCE = (1.36, 1.8)
_CAMERA_TESTS = (f"{CAMERA} places", f"{CAMERA} whole")


@dataclass(frozen=True)
class _Test:
    p_value: float
    effect: float


def shifts(new: pd.DataFrame, reference: pd.DataFrame, settings: ValidateSettings) -> dict[str, StatisticDrift]:
    """Compare good images that the reference does not hold with those that it holds.

    Each statistic: two-sample Kolmogorov-Smirnov. The camera: for each of the 256 places of the perceptual hash,
    whether it is 1 as often as in the reference (the most deviating of them, with Bonferroni's correction); and for
    each picture, how unlike the reference's average it is, tested as a statistic. The hash compares a picture's own low
    frequencies with each other, so that light and contrast hardly move it, while a shift, a turn or another crop of an
    aligned part does.

    A shift is one whose p-value, adjusted by Holm's method over all tests, is below `settings.drift_false_alarm`, and
    whose effect is above what is allowed. So images like the reference give any shift at all with at most that chance.
    Allowed is `settings.drift_effect` (for the camera `settings.camera_effect`), or, if that is more, by how much the
    reference's lots (shifts, groups, days: the first that all its images have) differ from the whole of it, beside
    chance: images of one lot are no random sample of a line.

    Args:
        new: At least `ENOUGH` rows, or nothing is tested.
        reference: Likewise.
        settings: Chance of a false alarm, effects.

    Returns:
        By statistic, and "camera".
    """
    if len(new) < ENOUGH or len(reference) < ENOUGH:
        return {}
    tests = _tests(new, reference)
    adjusted = dict(zip(tests, _holm(np.array([test.p_value for test in tests.values()])), strict=True))
    between = _between_sessions(reference)
    by_chance = np.sqrt(1 / len(new) + 1 / len(reference))
    found: dict[str, StatisticDrift] = {}
    for name, test in tests.items():
        key = CAMERA if name in _CAMERA_TESTS else name
        floor = settings.camera_effect if key == CAMERA else settings.drift_effect
        allowed = floor
        if name in between:
            allowed = max(floor, between[name] + _CHANCE[name == _CAMERA_TESTS[0]] * float(by_chance))
        drifted = bool(adjusted[name] < settings.drift_false_alarm and test.effect > allowed)
        shift = StatisticDrift(test.effect, allowed, float(adjusted[name]), drifted)
        if key not in found or (shift.drifted, shift.effect - shift.allowed) > (
            found[key].drifted,
            found[key].effect - found[key].allowed,
        ):
            found[key] = shift
    return found


def unlikeness(new: pd.DataFrame, reference: pd.DataFrame) -> Values:
    """How unlike the reference's average picture each new one is; higher is more unlike."""
    return _unlike(_bits(new), *_surprise(_bits(reference)))


def _tests(new: pd.DataFrame, reference: pd.DataFrame) -> dict[str, _Test]:
    tests: dict[str, _Test] = {
        name: _kolmogorov_smirnov(new[name].to_numpy(np.float64), reference[name].to_numpy(np.float64))
        for name in STATISTICS
    }
    ours, theirs = _bits(new), _bits(reference)
    tests[_CAMERA_TESTS[0]] = _places(ours, theirs)
    ones, zeros = _surprise(theirs)
    tests[_CAMERA_TESTS[1]] = _kolmogorov_smirnov(
        _unlike(ours, ones, zeros), _unlike(theirs, *_surprise(theirs, own=True))
    )
    return tests


def _kolmogorov_smirnov(first: Values, second: Values) -> _Test:
    # The asymptotic p-value: with ties, as in shares of dark pixels, it is too high rather than too low.
    result = stats.ks_2samp(first, second, method="asymp")
    return _Test(float(result.pvalue), float(result.statistic))


def _places(first: Bits, second: Bits) -> _Test:
    """Two proportions at each place, with a correction for continuity; the most deviating place counts."""
    n, m = len(first), len(second)
    p, q = first.mean(axis=0), second.mean(axis=0)
    pooled = (n * p + m * q) / (n + m)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    difference = np.maximum(np.abs(p - q) - (1 / n + 1 / m) / 2, 0)
    z = np.divide(difference, deviation, out=np.zeros_like(difference), where=deviation > 0)
    return _Test(float(min(1.0, 2 * stats.norm.sf(z.max()) * len(z))), float(np.abs(p - q).max()))


def _between_sessions(reference: pd.DataFrame) -> dict[str, float]:
    """By how much lots of the reference differ from the whole of it, beyond what their size explains; by test."""
    labels = next((labels for labels in _sessions(reference) if 3 <= labels.nunique() < len(labels) / ENOUGH), None)
    if labels is None:
        return {}
    bits = _bits(reference)
    whole = bits.mean(axis=0)
    columns: dict[str, Values] = {name: reference[name].to_numpy(np.float64) for name in STATISTICS}
    columns[_CAMERA_TESTS[1]] = _unlike(bits, *_surprise(bits, own=True))
    ordered = {name: np.sort(values) for name, values in columns.items()}
    found = dict.fromkeys([*STATISTICS, *_CAMERA_TESTS], 0.0)
    for rows in labels.groupby(labels).indices.values():
        if len(rows) < ENOUGH:
            continue
        chance, chance_of_places = (factor / np.sqrt(len(rows)) for factor in _CHANCE)
        for name, values in columns.items():
            found[name] = max(found[name], _distance(np.sort(values[rows]), ordered[name]) - chance)
        places = np.abs(bits[rows].mean(axis=0) - whole).max() - chance_of_places
        found[_CAMERA_TESTS[0]] = max(found[_CAMERA_TESTS[0]], float(places))
    return found


def _sessions(reference: pd.DataFrame) -> "list[pd.Series[str]]":
    """Ways to find images of one session, the best first; none where a session is not known for all images."""
    ways = [reference[name] for name in ("lot", "shift", "group")] + [reference["acquired"].str.slice(0, 10)]
    return [way.reset_index(drop=True) for way in ways if (way != "").all()]


def _distance(part: Values, whole: Values) -> float:
    """The largest difference of the shares of sorted values below, or at or below, any value."""
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    return max(
        float(
            np.abs(
                np.searchsorted(part, part, side) / len(part) - np.searchsorted(whole, part, side) / len(whole)
            ).max()
        )
        for side in sides
    )


def _bits(rows: pd.DataFrame) -> Bits:
    """The perceptual hashes as 0 and 1, [N, 256]."""
    octets = np.frombuffer(bytes.fromhex("".join(rows["perceptual_hash"])), np.uint8)
    return np.unpackbits(octets.reshape(len(rows), -1), axis=1)


def _surprise(bits: Bits, own: bool = False) -> tuple[Values, Values]:
    """What a 1, and a 0, at each place costs: the negative logarithm of its share, drawn in by half a picture.

    With `own` the picture in question does not count for its share: pictures that took part in an average would
    seem more like it than new ones.
    """
    ones, n = bits.sum(axis=0, dtype=np.float64), len(bits)
    if own:
        return -np.log((ones - 0.5).clip(0.5) / n), -np.log((n - ones - 0.5).clip(0.5) / n)
    return -np.log((ones + 0.5) / (n + 1)), -np.log((n - ones + 0.5) / (n + 1))


def _unlike(bits: Bits, ones: Values, zeros: Values) -> Values:
    """The mean cost of the bits [N, 256]; in blocks, for as floats they would need eight times their memory."""
    weights = (ones - zeros) / len(ones)
    blocks = [bits[start : start + _BLOCK] @ weights for start in range(0, len(bits), _BLOCK)]
    return np.asarray(np.concatenate(blocks) + zeros.mean())


def _holm(p_values: Values) -> Values:
    """p-values adjusted so that the chance of any false rejection keeps to the level, whatever depends on what."""
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted
