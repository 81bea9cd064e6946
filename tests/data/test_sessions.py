"""Sessions: which images keep together, and what is told of the ground that a threshold stands on."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphad.base.errors import CheckFailedError
from morphad.data.split.roles import split_manifest
from morphad.data.split.sessions import By, intraclass, session_facts, session_keys
from morphad.settings import SplitSettings
from morphad.settings.checks import STATISTICS

RNG = np.random.default_rng(0)


def manifest(count: int = 120, **columns: Any) -> pd.DataFrame:
    rows = pd.DataFrame({
        "path": [f"{n:04}.png" for n in range(count)],
        "sha256": [f"{n:064x}" for n in range(count)],
        "label": "good",
        "peak": 250, "perceptual_hash": [RNG.bytes(32).hex() for _ in range(count)],
        "masked": 0.0, "width": 100, "height": 80,
    })  # fmt: skip
    for name in ("defect", "mask", "mask_sha256", "group", "lot", "shift", "camera", "acquired"):
        rows[name] = ""
    for name in STATISTICS:
        if name not in {"aspect", "width", "height"}:
            rows[name] = RNG.normal(100, 5, count)
    return rows.assign(**columns)


def lots(count: int, size: int) -> list[str]:
    return [f"L{n // size}" for n in range(count)]


def split(rows: pd.DataFrame, by: By = "auto", seed: int = 0) -> pd.DataFrame:
    return split_manifest(rows, SplitSettings(by=by), seed, None)[0]


def parted(rows: pd.DataFrame, column: str) -> int:
    known = rows[(rows[column] != "") & (rows["role"] != "excluded")]
    return int((known.groupby(column)["role"].nunique() > 1).sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 30), st.integers(1, 9), st.integers(0, 3), st.sampled_from(["lot", "shift", "camera"]))
def test_a_session_never_parts(number: int, size: int, seed: int, column: Any) -> None:
    rows = manifest(number * size, **{column: lots(number * size, size)})
    result = split(rows, column, seed)
    assert parted(result, column) == 0
    assert set(result["role"]) == {"train", "calibration", "holdout"}


def test_by_itself_lots_come_before_shifts_and_cameras_do_not_count() -> None:
    rows = manifest(120, lot=lots(120, 10), shift=["A", "B", "C"] * 40, camera=["left", "right"] * 60)
    assert session_keys(rows, "auto").iloc[0] == "lot L0"
    assert session_keys(rows.assign(lot=""), "auto").iloc[0] == "shift A"
    assert (session_keys(rows.assign(lot="", shift=""), "auto") == "").all()
    assert session_keys(rows, "camera").nunique() == 2
    days = rows.assign(lot="", acquired=[f"2025-03-{n % 9 + 1:02}T08:00:00" for n in range(120)])
    assert session_keys(days, "auto").iloc[0] == "shift 2025-03-01 A"
    assert session_keys(days, "day").iloc[1] == "day 2025-03-02"
    assert parted(split(rows), "lot") == 0
    assert parted(split(rows.assign(lot="")), "shift") == 0


def test_images_of_unknown_lot_stand_alone() -> None:
    rows = manifest(120, lot=[*lots(60, 10), *[""] * 60])
    result = split(rows)
    assert parted(result, "lot") == 0
    assert result.loc[result["lot"] == "", "role"].nunique() == 3


def test_too_few_lots_are_parted_by_themselves_but_not_against_the_settings() -> None:
    rows = manifest(120, lot=lots(120, 60))
    assert parted(split(rows), "lot") == 2
    with pytest.raises(CheckFailedError, match=r"120 good images make 2 independent units .*another split\.by"):
        split(rows, "lot")
    assert parted(split(manifest(120, lot=lots(120, 10)), "group"), "lot") > 0


def test_a_group_and_a_lot_both_hold() -> None:
    rows = manifest(120, lot=lots(120, 5), group=[f"G{n % 40}" if n % 40 < 2 else "" for n in range(120)])
    result = split(rows)
    assert parted(result, "lot") == parted(result, "group") == 0


def test_new_lots_hardly_move_old_ones_and_the_holdout_stays() -> None:
    before, frozen = split_manifest(manifest(200, lot=lots(200, 10)), SplitSettings(), 0, None)
    later = manifest(260, lot=lots(260, 10))
    later.loc[:199, "perceptual_hash"] = before["perceptual_hash"]
    after, _ = split_manifest(later, SplitSettings(), 0, frozen)
    assert (after["role"].iloc[:200].to_numpy() != before["role"].to_numpy()).mean() < 0.15
    assert after["role"].iloc[:200].eq("holdout").equals(before["role"].eq("holdout"))
    assert parted(after, "lot") == 0


def test_facts_count_sessions_by_role() -> None:
    facts = session_facts(split(manifest(120, lot=lots(120, 10))), "auto")
    assert facts.by == "lot" and facts.dependence is None and facts.effective_images is None
    assert sum(role.sessions for role in facts.roles.values()) == 12
    assert sum(role.images for role in facts.roles.values()) == 120
    assert facts.shared_sessions == 0 and facts.warnings() == []
    assert facts.roles["calibration"].squares == 100 * facts.roles["calibration"].sessions
    assert facts.sentences()[0].startswith("Good images come from ")


def test_nothing_known_is_said() -> None:
    facts = session_facts(split(manifest()), "auto")
    assert facts.by == "" and facts.warnings() == []
    assert "assumes independent images" in facts.sentences()[0]


def test_few_sessions_and_shared_ones_are_warned_of() -> None:
    few = session_facts(split(manifest(120, lot=lots(120, 24))), "auto")
    assert few.roles["calibration"].sessions == 1
    assert few.warnings()[0].startswith("The threshold rests on 1 lot: 24 calibration images of so few lots hardly say")
    shared = session_facts(split(manifest(120, lot=lots(120, 60))), "auto")
    assert shared.shared_sessions == 2
    assert any(warning.startswith("Training and calibration share 2 lots") for warning in shared.warnings())
    days = manifest(120, acquired=[f"2025-03-{n % 9 + 1:02}T08:00:00" for n in range(120)])
    assert session_facts(split(days), "auto").warnings() == []
    assert "are of days that training has, too (9 of 9)" in session_facts(split(days), "auto").sentences()[1]


def test_a_session_shift_is_measured_and_warned_of() -> None:
    rows = split(manifest(300, lot=lots(300, 10)))
    assert session_facts(rows, "auto").shifts == ()
    brighter = rows["brightness"] + 20.0 * (rows["role"] == "calibration")
    facts = session_facts(rows.assign(brightness=brighter), "auto")
    assert [shift.statistic for shift in facts.shifts] == ["brightness"]
    assert facts.shifts[0].distance > 0.9
    assert facts.shifts[0].calibration - facts.shifts[0].train == pytest.approx(20, abs=3)
    warning = facts.warnings()[-1]
    assert warning.startswith(
        "Calibration images come from another session than training images, and it shows in their"
    )
    assert "brightness" in warning
    aspect = rows["width"].where(rows["role"] != "calibration", 140)
    assert {shift.statistic for shift in session_facts(rows.assign(width=aspect), "auto").shifts} == {"width", "aspect"}


def test_random_splits_are_not_called_shifted() -> None:
    alarms = sum(bool(session_facts(split(manifest(150), seed=seed), "auto").shifts) for seed in range(40))
    assert alarms <= 1


def test_alike_scores_within_lots_make_fewer_images() -> None:
    rng = np.random.default_rng(1)
    rows = split(manifest(600, lot=lots(600, 20)))
    levels = {lot: rng.normal() for lot in rows["lot"].unique()}
    for spread, lowest, highest in ((0.0, 100, 200), (3.0, 5, 20)):
        scores = pd.Series(rng.normal(size=600) + spread * rows["lot"].map(levels).to_numpy(), index=rows["path"])
        roles = rows.set_index("path")["role"]
        facts = session_facts(rows, "auto", scores[roles == "calibration"].to_numpy(), scores[roles == "holdout"])
        assert facts.effective_images is not None and lowest <= facts.effective_images <= highest
        assert facts.dependence is not None and 0 <= facts.dependence.distance <= 1


def test_intraclass_recomputed_by_hand() -> None:
    session = np.repeat(["a", "b", "c"], 4)
    scores = np.array([1.0, 2, 3, 4, 9, 10, 11, 12, 5, 6, 7, 8])
    means, grand = np.array([2.5, 10.5, 6.5]), 6.5
    between = 4 * ((means - grand) ** 2).sum() / 2
    within = 3 * 5.0 / 9
    assert intraclass(scores, session) == pytest.approx((between - within) / (between + 3 * within))
    assert intraclass(scores, np.repeat("a", 12)) is None
    assert intraclass(scores, np.array([""] * 12)) is None
    assert intraclass(scores[:3], session[[0, 4, 8]]) is None
    assert intraclass(np.zeros(12), session) == 0.0


def test_intraclass_of_independent_scores_is_mostly_nought() -> None:
    rng = np.random.default_rng(0)
    session = np.repeat([str(n) for n in range(8)], 25)
    assert np.mean([intraclass(rng.normal(size=200), session) == 0 for _ in range(200)]) == pytest.approx(
        0.95, abs=0.04
    )
