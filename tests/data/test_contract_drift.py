"""Limits and shifts against a reference: silent where nothing changed, and not where something did."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from benchmarks.contract_power import CHANGES, describe, measure
from morphad.data.contract import Result, check_manifest, comparable
from morphad.data.contract.drift import _distance, _holm, shifts
from morphad.settings import ValidateSettings
from morphad.settings.checks import STATISTICS
from tests.data.contract_rows import clean

DEFAULT = ValidateSettings()


def names(result: Result) -> set[str]:
    return {finding.name for finding in result.findings}


def drifted(new: pd.DataFrame, reference: pd.DataFrame) -> set[str]:
    found = shifts(comparable(new), comparable(reference), DEFAULT)
    return {name for name, shift in found.items() if shift.drifted}


def test_random_halves_of_one_line_keep_to_the_false_alarm_rate() -> None:
    everything = comparable(clean(400, 0))
    alarms = 0
    for seed in range(200):
        order = np.random.default_rng(seed).permutation(len(everything))
        found = shifts(everything.iloc[order[:200]], everything.iloc[order[200:]], DEFAULT)
        alarms += any(shift.drifted for shift in found.values())
    assert alarms <= stats.binom.ppf(0.999, 200, DEFAULT.drift_false_alarm)


@pytest.mark.parametrize("sizes", [(20, 2000), (2000, 20), (1000, 1000)])
def test_uneven_and_large_samples_keep_to_it_too(sizes: tuple[int, int]) -> None:
    everything = comparable(clean(sum(sizes), 0, seed=3))
    for seed in range(15):
        order = np.random.default_rng(seed).permutation(len(everything))
        found = shifts(everything.iloc[order[: sizes[0]]], everything.iloc[order[sizes[0] :]], DEFAULT)
        assert not any(shift.drifted for shift in found.values())


@pytest.mark.parametrize("name", STATISTICS)
def test_a_shift_is_told_by_the_statistic_that_shifted(name: str) -> None:
    new = clean(200, 0, seed=1)
    new[name if name != "aspect" else "width"] *= {"brightness": 1.1, "dark": 0}.get(name, 1.1)
    new["dark"] += 0.02 * (name == "dark")
    expected = {name} | ({"aspect"} if name in {"height", "width"} else {"width"} if name == "aspect" else set())
    if name == "saturated":
        new["saturated"] += 0.005
    assert drifted(new, clean(400, 0)) == expected


def test_another_part_or_crop_is_told_as_the_camera() -> None:
    new = clean(100, 0, seed=1)
    new["perceptual_hash"] = [text[2:] + text[:2] for text in new["perceptual_hash"]]
    result = check_manifest(new, DEFAULT, "caps", reference=clean(100, 0))
    assert [finding.name for finding in result.errors] == ["camera"]
    assert result.camera is not None
    assert result.camera.drifted
    assert "set validate.severity.camera to warning" in result.errors[0].remedy
    assert len(result.errors[0].paths) == 24
    assert names(check_manifest(new, DEFAULT, "caps")) == {"no_defects"}  # without a reference


def test_few_images_are_not_compared() -> None:
    assert shifts(comparable(clean(19, 0)), comparable(clean(100, 0)), DEFAULT) == {}
    result = check_manifest(clean(19, 6), ValidateSettings(min_good=1), "caps", reference=clean(100, 6, seed=1))
    assert result.states["camera"] == result.states["brightness_drift"] == "not applicable"


def test_only_images_that_the_reference_does_not_hold_are_looked_at() -> None:
    reference = clean(200)
    reference.loc[:30, "brightness"] = 30.0  # accepted once
    result = check_manifest(reference, DEFAULT, "caps", reference=reference)
    assert (result.findings, result.counts["new_good"]) == ((), 0)
    later = clean(60, 0, seed=1)
    later["sharpness"] *= 0.5
    both = pd.concat([reference, later.assign(path="late/" + later["path"])], ignore_index=True)
    result = check_manifest(both, DEFAULT, "caps", reference=reference)
    # As a share of all images they are 23 %; against the reference they are all of the new ones.
    assert result.counts["new_good"] == 60
    assert "sharpness_drift" in names(result)
    assert all(path.startswith("late/") for finding in result.findings for path in finding.paths)


def test_lots_that_differ_among_themselves_are_allowed_to() -> None:
    rng = np.random.default_rng(0)

    def lots(count: int, spread: float, seed: int) -> pd.DataFrame:
        rows = clean(50 * count, 0, seed=seed)
        rows["lot"] = [f"{seed}-{n // 50}" for n in range(len(rows))]
        rows["brightness"] += np.repeat(rng.normal(0, spread, count), 50)
        return rows

    reference = lots(12, 6.0, 0)
    unlabelled = reference.assign(lot="")
    later = [lots(1, 6.0, seed) for seed in range(1, 21)]
    assert sum(bool(drifted(lot, reference)) for lot in later) <= 4  # one in 13 is further out than twelve before
    assert sum(bool(drifted(lot, unlabelled)) for lot in later) >= 7  # what is won by giving lots
    far = lots(1, 0.0, 20)
    far["brightness"] += 40
    assert drifted(far, reference) == {"brightness"}


def test_limits_come_from_the_reference() -> None:
    reference, new = clean(300), clean(60, 6, seed=1)
    result = check_manifest(new, DEFAULT, "caps", reference=reference)
    first, third = np.quantile(comparable(reference)["brightness"], [0.25, 0.75])
    limits = next(facts.limits for facts in result.statistics if facts.name == "brightness")
    assert limits is not None
    assert (limits.source, limits.low) == ("reference", pytest.approx(first - 3 * (third - first)))
    new.loc[:2, "brightness"] = 60.0
    result = check_manifest(new, DEFAULT, "caps", reference=reference)
    assert [(f.name, f.severity, f.count) for f in result.findings] == [("brightness_outliers", "warning", 3)]
    new.loc[:3, "brightness"] = 60.0
    finding = check_manifest(new, DEFAULT, "caps", reference=reference).findings[0]
    assert (finding.name, finding.severity, finding.count) == ("brightness_limits", "error", 4)
    assert "4 good images of 60" in finding.message
    assert "at most 5 % may be (validate.max_outliers)" in finding.message
    # Drawn from the images themselves, limits only warn: half a line may have other light than the other half.
    assert names(check_manifest(new, DEFAULT, "caps")) == {"brightness_outliers"}


def test_what_the_reference_kept_is_within_its_limits() -> None:
    reference = clean(500, 0)
    reference.loc[:9, "brightness"] = 60.0  # 2 %, accepted
    new = clean(100, 6, seed=1)
    new.loc[0, "brightness"] = 61.0
    assert check_manifest(new, DEFAULT, "caps", reference=reference).findings == ()


def test_limits_of_the_settings_win() -> None:
    settings = ValidateSettings(limits={"brightness": (118.0, None)}, max_outliers=0.0)
    finding = check_manifest(clean(), settings, "caps", reference=clean(seed=1)).findings[0]
    assert (finding.name, finding.severity) == ("brightness_limits", "error")
    assert "with a brightness below 118 (limit validate.limits.brightness)" in finding.message


@given(
    arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 9)),
    arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 9)),
)
@settings(max_examples=100, deadline=None)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_the_distance_is_that_of_kolmogorov_and_smirnov(part: np.ndarray, whole: np.ndarray) -> None:
    expected = stats.ks_2samp(part, whole, method="asymp").statistic
    assert _distance(np.sort(part), np.sort(whole)) == pytest.approx(expected)


@given(arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)))
@settings(max_examples=100, deadline=None)
def test_holm_lies_between_the_p_value_and_bonferroni(p_values: np.ndarray) -> None:
    adjusted = _holm(p_values)
    assert (adjusted >= p_values).all()
    assert (adjusted <= np.minimum(p_values * len(p_values), 1) + 1e-12).all()
    assert adjusted.min() == pytest.approx(min(1.0, p_values.min() * len(p_values)))


def test_planted_shifts_of_real_images_are_seen_and_random_halves_are_not(real_sets: Path) -> None:
    changes = ("none", "brightness +10 %", "blur, sigma 1 px", "shift 5 px", "turn 5 degrees")
    told = measure(describe(str(real_sets / "mvtec/bottle"), 120, {name: CHANGES[name] for name in changes}), 6)
    assert told["none"]["statistics"] <= 0.05  # of 60 divisions
    assert told["none"]["camera"] <= 0.05
    assert told["brightness +10 %"]["statistics"] == told["blur, sigma 1 px"]["statistics"] == 1
    assert told["shift 5 px"]["camera"] == told["turn 5 degrees"]["camera"] == 1
    assert told["blur, sigma 1 px"]["camera"] == 0
