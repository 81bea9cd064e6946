"""Nothing is on two sides, shares are met, the holdout stays, and the order of rows does not matter."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphad.base.errors import BadInputError, CheckFailedError
from morphad.data.split.holdout import FrozenHoldout
from morphad.data.split.near_copies import components, near_pairs
from morphad.data.split.roles import split_manifest
from morphad.settings import SplitSettings

DEFAULT = SplitSettings()
USED = ["train", "calibration", "holdout"]


def flipped(base: int, places: list[int]) -> str:
    """A perceptual hash: 256 random bits named by `base`, with some of them turned over."""
    bits = int(hashlib.sha256(f"look {base}".encode()).hexdigest(), 16)
    for place in places:
        bits ^= 1 << place
    return f"{bits:064x}"


def distance(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def row(number: int, label: str = "good", group: str = "", look: str | None = None, lot: str = "") -> dict[str, Any]:
    return {
        "path": f"{label}/{number:05}.png",
        "sha256": hashlib.sha256(f"bytes {number}".encode()).hexdigest(),
        "label": label,
        "defect": "" if label == "good" else "crack",
        "mask": "",
        "mask_sha256": "",
        "masked": 0.0,
        "group": group,
        "lot": lot,
        "shift": "",
        "camera": "",
        "acquired": "",
        "peak": 250,
        "perceptual_hash": look or flipped(number, []),
    }


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows)


def plain(good: int, defects: int = 0, start: int = 0) -> pd.DataFrame:
    return frame([row(start + n) for n in range(good)] + [row(start + 50_000 + n, "defect") for n in range(defects)])


images = st.builds(
    lambda label, group, base, places: (label, group, flipped(base, places)),
    st.sampled_from(["good", "good", "good", "defect"]),
    st.sampled_from(["", "", "", "lot1", "lot2", "lot3"]),
    st.integers(0, 25),
    st.lists(st.integers(0, 255), max_size=9, unique=True),
)


def manifest_of(drawn: list[tuple[str, str, str]], start: int = 0) -> pd.DataFrame:
    return frame([row(start + n, label, group, look) for n, (label, group, look) in enumerate(drawn)])


def assert_no_leak(result: pd.DataFrame, bits: int) -> None:
    used = result[result["role"].isin(USED)].to_dict("records")
    for n, a in enumerate(used):
        for b in used[:n]:
            near = distance(a["perceptual_hash"], b["perceptual_hash"]) <= bits
            if a["label"] == b["label"] == "good" and (near or (a["group"] and a["group"] == b["group"])):
                assert a["role"] == b["role"]
            if a["label"] != b["label"]:
                assert not near


@settings(max_examples=40, deadline=None)
@given(st.lists(images, min_size=8, max_size=60), st.integers(0, 5))
def test_no_unit_is_on_two_sides(drawn: list[tuple[str, str, str]], seed: int) -> None:
    try:
        result, frozen = split_manifest(manifest_of(drawn), DEFAULT, seed, None)
    except CheckFailedError:
        return
    assert set(result["role"]) <= {*USED, "excluded"}
    assert set(USED) <= set(result.loc[result["label"] == "good", "role"])
    assert ((result["role"] == "excluded") == (result["reason"] != "")).all()
    assert set(result.loc[result["label"] == "defect", "role"]) <= {"holdout"}
    assert_no_leak(result, DEFAULT.near_duplicate_bits)
    assert {image.sha256 for image in frozen.images} == set(result.loc[result["role"] == "holdout", "sha256"])


@settings(max_examples=25, deadline=None)
@given(st.lists(images, min_size=20, max_size=50), st.lists(images, max_size=60), st.integers(0, 5))
def test_the_holdout_stays_whatever_arrives(
    first: list[tuple[str, str, str]], later: list[tuple[str, str, str]], seed: int
) -> None:
    try:
        before, frozen = split_manifest(manifest_of(first), DEFAULT, seed, None)
        grown = pd.concat([manifest_of(first), manifest_of(later, start=1000)], ignore_index=True)
        after, same = split_manifest(grown, DEFAULT, seed, frozen)
    except CheckFailedError:
        return
    assert same is frozen
    held = set(before.loc[before["role"] == "holdout", "sha256"])
    assert set(after.loc[after["role"] == "holdout", "sha256"]) == held
    late = after.iloc[len(first) :]
    assert set(late.loc[late["label"] == "defect", "role"]) <= {"excluded"}
    assert_no_leak(after, DEFAULT.near_duplicate_bits)


@settings(max_examples=40, deadline=None)
@given(st.lists(images, min_size=12, max_size=50), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(drawn: list[tuple[str, str, str]], random: object) -> None:
    manifest = manifest_of(drawn)
    order = list(range(len(manifest)))
    random.shuffle(order)  # type: ignore[attr-defined]
    try:
        result, frozen = split_manifest(manifest, DEFAULT, 1, None)
    except CheckFailedError:
        return
    shuffled, other = split_manifest(manifest.iloc[order], DEFAULT, 1, None)
    assert list(shuffled["path"]) == list(manifest["path"].iloc[order])
    assert shuffled.sort_index()["role"].tolist() == result["role"].tolist()
    assert other == frozen


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 400), st.floats(0.05, 0.5), st.floats(0.05, 0.35), st.integers(0, 100))
def test_shares_are_met(count: int, calibration: float, holdout: float, seed: int) -> None:
    chosen = SplitSettings(calibration=calibration, holdout=holdout)
    roles = split_manifest(plain(count), chosen, seed, None)[0]["role"].value_counts()
    assert abs(roles["holdout"] - holdout * count) <= 1
    assert abs(roles["calibration"] - calibration * count) <= 1
    assert roles.sum() == count and roles["train"] >= 1


def test_shares_with_groups_are_met_within_half_a_group() -> None:
    manifest = frame([row(n, group=f"lot{n // 7}") for n in range(350)])
    roles = split_manifest(manifest, DEFAULT, 0, None)[0]["role"].value_counts()
    assert abs(roles["holdout"] - 70) <= 4
    assert abs(roles["calibration"] - 87.5) <= 4


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5])
def test_three_images_give_one_of_each(share: float) -> None:
    chosen = SplitSettings(calibration=share, holdout=min(share, 0.3))
    assert sorted(split_manifest(plain(3, 2), chosen, 0, None)[0]["role"]) == [
        "calibration", "holdout", "holdout", "holdout", "train"
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_say_what_to_do(count: int) -> None:
    with pytest.raises(
        CheckFailedError, match=rf"{count} good images make {count} independent unit.*at least 3.*Add good"
    ):
        split_manifest(plain(count, 4), DEFAULT, 0, None)


def test_one_group_or_one_look_is_one_unit() -> None:
    with pytest.raises(CheckFailedError, match=r"30 good images make 1 independent unit .*give finer groups"):
        split_manifest(frame([row(n, group="lot") for n in range(30)]), DEFAULT, 0, None)
    alike = frame([row(n, look=flipped(0, [n % 6])) for n in range(30)])
    with pytest.raises(CheckFailedError, match=r"lower split\.near_duplicate_bits \(0 ties only equal bytes\)"):
        split_manifest(alike, DEFAULT, 0, None)
    result, _ = split_manifest(alike, SplitSettings(near_duplicate_bits=0), 0, None)
    assert set(result["role"]) == set(USED)


def test_all_images_identical_are_one_unit() -> None:
    same = plain(10)
    same["sha256"] = same["sha256"].iloc[0]
    with pytest.raises(CheckFailedError, match="1 good images make 1 independent unit"):
        split_manifest(same, DEFAULT, 0, None)


def test_of_images_with_the_same_bytes_one_is_used() -> None:
    manifest = plain(20, 2)
    again = manifest.iloc[[4, 20]].assign(path=["zz/copy.png", "zz/crack.png"])
    result, _ = split_manifest(pd.concat([manifest, again], ignore_index=True), DEFAULT, 0, None)
    assert result["role"].tolist()[-2:] == ["excluded", "excluded"]
    assert result["reason"].tolist()[-2:] == ["same bytes as good/00004.png", "same bytes as defect/50000.png"]


def test_copies_tie_the_groups_they_lie_in() -> None:
    rows = [row(n, group=f"lot{n // 5}") for n in range(40)]
    rows.append({**rows[0], "path": "zz.png", "group": "lot1"})
    result, _ = split_manifest(frame(rows), DEFAULT, 0, None)
    assert result["role"].iloc[:10].nunique() == 1


def test_the_same_bytes_good_and_defect_name_both_files() -> None:
    manifest = plain(10, 2)
    manifest.loc[11, "sha256"] = manifest.loc[3, "sha256"]
    with pytest.raises(
        CheckFailedError, match=r"good/00003\.png is labelled good and defect/50001\.png, the same bytes"
    ):
        split_manifest(manifest, DEFAULT, 0, None)


def test_a_good_near_copy_of_a_holdout_defect_is_excluded() -> None:
    manifest = plain(12, 1)
    manifest.loc[3, "perceptual_hash"] = flipped(50_000, [1, 2])
    manifest.loc[4, "perceptual_hash"] = flipped(50_000, [])
    result, frozen = split_manifest(manifest, DEFAULT, 0, None)
    assert result["role"].tolist()[3:5] == ["excluded", "excluded"]
    assert result.loc[3, "reason"] == "near copy of the defect image defect/50000.png in the holdout"
    assert split_manifest(manifest, DEFAULT, 0, frozen)[0]["role"].tolist() == result["role"].tolist()


def test_what_is_tied_to_the_frozen_holdout_is_excluded_when_it_arrives() -> None:
    manifest = frame([row(n, group=f"lot{n // 2}") for n in range(40)])
    result, frozen = split_manifest(manifest, DEFAULT, 0, None)
    held = result[result["role"] == "holdout"].iloc[0]
    arrivals = frame([
        row(900, group=held["group"]),
        row(901, look=held["perceptual_hash"]),
        row(902, group="new"),
        {**row(903), "sha256": held["sha256"], "path": "aa.png"},
    ])  # fmt: skip
    after, _ = split_manifest(pd.concat([manifest, arrivals], ignore_index=True), DEFAULT, 0, frozen)
    assert after["role"].tolist()[40:42] == ["excluded", "excluded"]
    assert after["reason"].iloc[40].startswith("near copy of the holdout image good/")
    assert after["role"].iloc[42] in {"train", "calibration"}
    assert (after["role"].iloc[43], after["reason"].iloc[43]) == ("excluded", f"same bytes as {held['path']}")
    assert after["role"].iloc[:40].eq("holdout").equals(result["role"].eq("holdout"))


def test_new_images_hardly_move_old_ones() -> None:
    before, frozen = split_manifest(plain(400, 20), DEFAULT, 0, None)
    grown = pd.concat([plain(400, 20), plain(100, 10, start=2000)], ignore_index=True)
    after, _ = split_manifest(grown, DEFAULT, 0, frozen)
    moved = (after["role"].iloc[:420].to_numpy() != before["role"].to_numpy()).sum()
    assert moved <= 20
    roles = after[after["label"] == "good"]["role"].value_counts()
    assert roles["holdout"] == 80
    assert abs(roles["calibration"] - 125) <= 1


def test_missing_holdout_images_are_named() -> None:
    manifest = plain(30, 3)
    _, frozen = split_manifest(manifest, DEFAULT, 0, None)
    with pytest.raises(
        CheckFailedError, match=r"missing: .*defect/50001\.png.*restore them, or set split\.renew_holdout"
    ):
        split_manifest(manifest.drop(index=31), DEFAULT, 0, frozen)
    renewed, other = split_manifest(manifest.drop(index=31), SplitSettings(renew_holdout=True), 0, frozen)
    assert other.id != frozen.id
    assert set(renewed.loc[renewed["label"] == "defect", "role"]) == {"holdout"}


def test_frozen_holdout_survives_json_and_tampering_is_seen() -> None:
    _, frozen = split_manifest(plain(30, 3), DEFAULT, 7, None)
    value = frozen.to_json()
    assert FrozenHoldout.from_json(value) == frozen
    with pytest.raises(BadInputError, match=r"data/caps/holdout\.json: its images do not match"):
        FrozenHoldout.from_json({**value, "images": value["images"][1:]}, "data/caps/holdout.json")
    for broken in (None, [], {}, {**value, "images": "x"}, {**value, "seed": "many"}):
        with pytest.raises(BadInputError, match="not a frozen holdout"):
            FrozenHoldout.from_json(broken)


def test_columns_of_an_earlier_split_are_replaced() -> None:
    result, frozen = split_manifest(plain(30, 3), DEFAULT, 0, None)
    again, _ = split_manifest(result, DEFAULT, 0, frozen)
    assert list(again.columns) == list(result.columns)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.lists(st.integers(0, 255), max_size=8)), max_size=40), st.integers(1, 9)
)
def test_near_pairs_are_exactly_those_of_all_comparisons(drawn: list[tuple[int, list[int]]], bits: int) -> None:
    hashes = sorted({flipped(base, places) for base, places in drawn})
    found = {
        (min(a, b), max(a, b)) for left, right in near_pairs(hashes, bits) for a, b in zip(left, right, strict=True)
    }
    expected = {(a, b) for b in range(len(hashes)) for a in range(b) if distance(hashes[a], hashes[b]) <= bits}
    assert found == expected


def test_components() -> None:
    pairs = iter([(np.array([0, 3]), np.array([1, 4])), (np.array([4]), np.array([1]))])
    labels = components(6, pairs)
    assert labels[0] == labels[1] == labels[3] == labels[4]
    assert len(set(labels.tolist())) == 3
    assert components(3, iter([])).tolist() == [0, 1, 2]


def test_real_lines_split_without_exclusions(real_sets: Path, tmp_path: Path) -> None:
    from morphad.data.snapshot.copying import snapshot
    from morphad.data.source.finding import find_images
    from morphad.settings import IngestSettings

    ingest = IngestSettings(path=str(real_sets / "mvtec" / "bottle"), limit=30)
    manifest, _ = snapshot(find_images(ingest), tmp_path, ingest, "bottle")
    result, _ = split_manifest(manifest, DEFAULT, 0, None)
    assert result[result["label"] == "good"]["role"].value_counts().to_dict() == {
        "train": 16, "calibration": 8, "holdout": 6
    }  # fmt: skip
