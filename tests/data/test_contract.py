"""Clean lines pass; a planted fault of each kind is caught by name; weights and JSON are as documented."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from exhaustive import sample
from morphad.data.contract import Finding, check_manifest
from morphad.data.snapshot.copying import Reject
from morphad.settings import ValidateSettings
from morphad.settings.checks import CHECKS, SIZES, STATISTICS
from tests.data.contract_rows import clean

DEFAULT = ValidateSettings()
NOW = datetime(2025, 6, 1, tzinfo=UTC)
GOOD, CRACK = 2, 61  # rows
ROLES = ["train", "calibration", "holdout"]

Plant = Callable[[pd.DataFrame], pd.DataFrame]


def put(row: int | slice, **values: object) -> Plant:
    def plant(manifest: pd.DataFrame) -> pd.DataFrame:
        for column, value in values.items():
            manifest.loc[row, column] = value
        return manifest

    return plant


def copy(column: str, source: int, target: int | slice) -> Plant:
    def plant(manifest: pd.DataFrame) -> pd.DataFrame:
        manifest.loc[target, column] = manifest.loc[source, column]
        return manifest

    return plant


def both(*plants: Plant) -> Plant:
    def plant(manifest: pd.DataFrame) -> pd.DataFrame:
        for one in plants:
            manifest = one(manifest)
        return manifest

    return plant


def timed(manifest: pd.DataFrame) -> pd.DataFrame:
    """A minute between images, in the order of their names."""
    start = NOW - timedelta(days=5)
    return manifest.assign(acquired=[(start + timedelta(minutes=n)).isoformat() for n in range(len(manifest))])


def with_roles(manifest: pd.DataFrame) -> pd.DataFrame:
    good = manifest["label"] == "good"
    roles = pd.Series([ROLES[n % 3] for n in range(len(manifest))]).where(good, "holdout")
    return manifest.assign(role=roles.astype("str"), reason="")


def found(manifest: pd.DataFrame, settings: ValidateSettings = DEFAULT, **options: object) -> dict[str, Finding]:
    result = check_manifest(manifest, settings, "caps", now=NOW, **options)  # type: ignore[arg-type]
    assert len({finding.name for finding in result.findings}) == len(result.findings)
    assert {name for name, state in result.states.items() if state == "broken"} == {f.name for f in result.findings}
    return {finding.name: finding for finding in result.findings}


def test_clean_lines_have_no_findings() -> None:
    assert found(clean()) == {}
    assert found(timed(clean())) == {}
    assert found(with_roles(clean())) == {}
    result = check_manifest(clean(), DEFAULT, "caps")
    assert result.counts == {"images": 66, "good": 60, "defect": 6, "new_good": 60}
    assert result.states["camera"] == result.states["role_counts"] == "not applicable"
    assert result.states["no_groups"] == "off"


# Faults that are planted together, each into images of its own: (check, what is planted, paths found, words).
FAULTS: dict[str, tuple[Plant, list[tuple[str, Plant, list[int], str]]]] = {
    "rows": (
        lambda manifest: manifest,
        [
            ("unique_paths", put(1, path="train/good/0000.png"), [0, 1], "2 rows with the path of another"),
            ("sha256_format", put(2, sha256="ABC"), [2], "1 row without a SHA-256: train/good/0002.png"),
            ("line", put(3, line="bolts"), [3], "1 image of another line than caps"),
            ("label", put(4, label="ok"), [4], "neither good nor defect"),
            ("conflicting_labels", copy("sha256", 5, 65), [5, 65], "test/crack/0065.png, train/good/0005.png"),
            ("good_with_kind", put(6, defect="dent"), [6], "1 good image with a kind of defect"),
            ("good_with_mask", put(7, masked=0.2, mask="masks/x.png"), [7], "whose masks mark a defect"),
            ("defect_without_kind", put(60, defect=""), [60], "1 defect image of no kind"),
            ("conflicting_defects", both(copy("sha256", 61, 62), put(62, defect="dent")), [61, 62], "another kind"),
            ("defect_without_mask", put(63, mask="", masked=0.0), [63], "without a mask, though others have one"),
            ("empty_mask", put(64, masked=0.0), [64], "marks nothing"),
        ],
    ),
    "pictures": (
        lambda manifest: manifest,
        [
            ("black", put(0, contrast=0.0, brightness=0.0, dark=1.0, sharpness=0.0), [0], "1 good image all black"),
            ("white", put(1, contrast=0.0, brightness=255.0, saturated=1.0, sharpness=0.0), [1], "all white"),
            ("blank", put(2, contrast=0.5), [2], "1 good image without content"),
            ("blurred", put(3, sharpness=0.1), [3], "without any sharp detail"),
            ("unusable_defect", put(61, contrast=0.5), [61], "1 defect image black, white, blank or"),
            ("size", put(26, height=100, width=150), [26], "1 image not of 200 x 300 px as the others"),
            ("channels", put(4, mode="L"), [4], "not of colour as the others"),
            ("bit_depth", put(5, bit_depth=16), [5], "not of 8 bits as the others"),
            ("duplicates", put(slice(6, 19), sha256="0" * 64), [*range(7, 20)], "13 of 60 good images are byte copies"),
            ("near_duplicates", copy("perceptual_hash", 20, slice(21, 24)), [*range(21, 25)], "4 of 60 good images"),
        ],
    ),
    "time": (
        timed,
        [
            ("acquired_format", put(0, acquired="yesterday"), [0], "write it as 2025-03-01T14:05:00Z"),
            ("acquired_future", put(1, acquired="2031-01-01T00:00:00Z"), [1], "1 image from the future"),
            ("acquired_implausible", put(2, acquired="1970-01-01T00:03:00Z"), [2], "before the year 2000"),
            ("acquired_missing", put(3, acquired=""), [3], "without a time (acquired), though others have one"),
            ("time_order", put(9, acquired="2025-05-28T12:00:00Z"), [9], "breaks the order of their names"),
            ("group_missing", put(slice(1, 65), group="1"), [0], "without a group, though others have one"),
            ("lot_missing", put(slice(2, 65), lot="1"), [0, 1], "2 images without a lot"),
            ("shift_missing", put(slice(1, 65), shift="A"), [0], "without a shift"),
            ("camera_missing", put(slice(1, 65), camera="left"), [0], "without a camera"),
        ],
    ),
    "roles": (
        with_roles,
        [
            ("leakage_bytes", copy("sha256", 0, 1), [0, 1], "whose bytes are in two roles"),
            ("leakage_near", copy("perceptual_hash", 3, 4), [3, 4], "near copies of one in another of the roles"),
            ("leakage_group", put(slice(6, 7), group="7"), [6, 7], "whose group is in two roles"),
            ("role_counts", put(slice(15, 59), role="train"), [], "calibration has 5 of 8, holdout has 5 of 10"),
        ],
    ),
}
TOGETHER = {"group_missing"}  # what planting in `roles` brings with it


@cache
def planted(theme: str) -> tuple[dict[str, Finding], list[str]]:
    manifest = clean()
    base, faults = FAULTS[theme]
    manifest = base(manifest)
    for _, plant, _, _ in faults:
        manifest = plant(manifest)
    settings = ValidateSettings.model_validate({"min_role": {"calibration": 8, "holdout": 10}})
    return found(manifest, settings), manifest["path"].tolist()


@pytest.mark.parametrize(("theme", "number"), [(theme, n) for theme in FAULTS for n in range(len(FAULTS[theme][1]))])
def test_each_planted_fault_is_caught_by_name(theme: str, number: int) -> None:
    name, _, rows, words = FAULTS[theme][1][number]
    findings, paths = planted(theme)
    assert findings[name].paths == tuple(sorted(paths[row] for row in rows))
    assert findings[name].count == len(rows)
    assert findings[name].severity == CHECKS[name]
    assert words in findings[name].sentence


@pytest.mark.parametrize("theme", FAULTS)
def test_nothing_else_is_found(theme: str) -> None:
    assert set(planted(theme)[0]) - TOGETHER == {name for name, *_ in FAULTS[theme][1]} - TOGETHER


@cache
def outliers(factor: float) -> dict[str, Finding]:
    """The n-th statistic of the n-th image is another; where the width is, so is the aspect."""
    manifest = clean()
    manifest["width"] += manifest.index % 2  # of no one size, or that would be said of those of another
    for row, name in enumerate(STATISTICS):
        if name == "aspect":
            continue
        manifest[name] = manifest[name].astype(float)
        if name in {"dark", "saturated"}:
            manifest.loc[row, name] = 0.1 * factor
        else:
            manifest.loc[row, name] *= factor if name != "entropy" else factor**0.3
    return found(manifest)


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_an_image_unlike_the_others_is_told_by_its_statistic(name: str, factor: float) -> None:
    findings = outliers(factor)
    assert all(other.endswith(("_outliers", "_extremes")) for other in findings)
    if name in {"dark", "saturated"} and factor < 1:  # fewer black or white pixels than others are no fault
        assert f"{name}_outliers" not in findings
        return
    finding = findings.get(f"{name}_extremes") or findings[f"{name}_outliers"]
    rows = [STATISTICS.index("height"), STATISTICS.index("width")] if name == "aspect" else [STATISTICS.index(name)]
    assert finding.paths == tuple(f"train/good/{row:04}.png" for row in rows)
    assert finding.severity == CHECKS[finding.name]
    assert f"of 60 with {'an' if name in {'entropy', 'aspect'} else 'a'} " in finding.message
    assert "(limit from the others)" in finding.message


FAR = {"brightness": 255.0, "contrast": 5.0, "sharpness": 5000.0, "entropy": 2.0, "dark": 0.9, "saturated": 0.9}


@pytest.mark.parametrize("name", sample(list(FAR), 2))
def test_an_image_far_outside_stops_the_line_but_many_are_another_state_of_it(name: str) -> None:
    def even(seed: int = 0) -> pd.DataFrame:
        return clean(seed=seed).assign(brightness=lambda rows: 120 + (rows["brightness"] - 120) / 3)

    def told(*rows: int, **options: pd.DataFrame) -> list[tuple[str, str, int]]:
        manifest = even().astype(dict.fromkeys(FAR, "float64"))
        manifest.loc[list(rows), name] = FAR[name]
        return [(finding.name, finding.severity, finding.count) for finding in found(manifest, **options).values()]

    assert set(FAR) == set(STATISTICS) - set(SIZES)
    assert told(7) == [(f"{name}_extremes", "error", 1)]
    assert told(7, reference=even(1)) == [(f"{name}_extremes", "error", 1)]
    assert told(7, 8, 9, 10) == [(f"{name}_outliers", "warning", 4)]
    assert told(7, 8, 9, 10, reference=even(1)) == [(f"{name}_limits", "error", 4)]


def test_a_blur_is_told_by_what_is_usual_in_the_line() -> None:
    finding = found(put(7, sharpness=3.0)(clean()))["blurred"]
    assert finding.paths == ("train/good/0007.png",)
    assert "below 3.2" in finding.message
    smooth = clean().assign(sharpness=lambda rows: rows["sharpness"] / 30)
    assert found(smooth) == {}  # of a smooth part, sharp


def test_sizes_are_held_against_the_one_of_the_reference_and_not_where_they_vary() -> None:
    cropped = clean(seed=1).assign(height=190)
    finding = found(cropped, reference=clean())["size"]
    assert (finding.count, finding.severity) == (66, "error")
    assert "66 images not of 200 x 300 px as the reference" in finding.message
    varied = clean()
    varied["width"] += varied.index % 5
    assert found(varied) == {}


def test_a_copy_is_told_and_many_are_an_error() -> None:
    assert found(copy("sha256", 6, 7)(clean()))["copies"].sentence == (
        "1 good image with the same bytes as one before: train/good/0007.png; remove them; the split uses one of each"
    )
    assert found(copy("sha256", 6, slice(7, 20))(clean())).keys() == {"duplicates"}


def test_empty_unreadable_and_too_few_good() -> None:
    assert list(found(clean(0, 0))) == ["empty"]
    rejects = [Reject("a.png", "is empty (0 bytes)"), Reject("b.png", "not found")]
    finding = found(clean(), rejects=rejects)["unreadable"]
    assert finding.sentence.startswith("2 images that cannot be used (is empty (0 bytes), not found): a.png, b.png")
    assert "only 3 good images, at least 20 are needed" in found(clean(3))["min_good"].message
    assert list(found(clean(0, 4))) == ["min_good"]
    assert found(clean(3), ValidateSettings(min_good=3)) == {}


def test_all_images_alike() -> None:
    findings = found(copy("perceptual_hash", 0, slice(0, 59))(clean()))
    assert findings.keys() == {"identical", "near_duplicates"}
    assert findings["identical"].sentence.count("train/good/") == 5
    assert "and 55 more" in findings["identical"].sentence


def test_lines_without_defects_or_without_masks_are_only_warned_of() -> None:
    assert [(f.name, f.severity) for f in found(clean(60, 0)).values()] == [("no_defects", "warning")]
    unmasked = clean().assign(mask="", masked=0.0)
    assert [(f.name, f.severity) for f in found(unmasked).values()] == [("no_masks", "warning")]


def test_kinds_of_defect_are_held_against_the_settings_or_the_reference() -> None:
    misspelt = put(CRACK, defect="carck")(clean())
    finding = found(misspelt, ValidateSettings(defect_kinds=("crack", "dent")))["defect_kinds"]
    assert finding.paths == ("test/crack/0061.png",)
    assert "validate.defect_kinds does not know (crack, dent)" in finding.message
    assert "the reference does not know (crack)" in found(misspelt, reference=clean(seed=1))["defect_kinds"].message
    assert found(misspelt) == {}


def test_parts_of_a_set_count_as_roles_for_leakage() -> None:
    parts = [("train/good", "test/good")[n % 2] if n < 60 else "test/crack" for n in range(66)]
    manifest = copy("sha256", 0, 1)(clean().assign(origin=parts))
    finding = found(manifest)["leakage_bytes"]
    assert finding.paths == ("train/good/0000.png", "train/good/0001.png")
    assert "two parts of the set" in finding.message


def test_names_that_do_not_follow_time_are_no_fault() -> None:
    manifest = timed(clean())
    manifest["acquired"] = manifest["acquired"].sample(frac=1, random_state=0).to_numpy()
    assert found(manifest) == {}


def test_names_are_in_their_natural_order_and_groups_by_themselves() -> None:
    manifest = timed(clean())
    manifest["path"] = [f"train/good/{n}.png" for n in range(len(manifest))]
    assert found(manifest) == {}
    two = manifest.assign(camera=["left", "right"] * 33)
    two.loc[two["camera"] == "right", "acquired"] = manifest["acquired"].iloc[:33].to_numpy()  # its clock runs slower
    assert found(two) == {}


def test_weights_are_overridden_and_switched_off() -> None:
    manifest = put(GOOD, contrast=0.5)(clean())
    assert found(manifest, ValidateSettings(severity={"blank": "warning"}))["blank"].severity == "warning"
    result = check_manifest(manifest, ValidateSettings(severity={"blank": "off"}), "caps")
    assert result.findings == ()
    assert result.states["blank"] == "off"
    result = check_manifest(clean(), ValidateSettings(severity={"no_groups": "error"}), "caps")
    assert [finding.name for finding in result.errors] == ["no_groups"]
    rejects = [Reject("a.png", "is empty")]
    assert (
        check_manifest(clean(), ValidateSettings(severity={"unreadable": "off"}), "caps", rejects=rejects).errors == ()
    )


def test_errors_come_first_and_braces_in_paths_do_no_harm() -> None:
    manifest = put(GOOD, group="7", path="train/good/{n}{0}.png", contrast=0.0)(clean())
    findings = list(found(manifest).values())
    assert [finding.severity for finding in findings] == ["error", "warning"]
    assert "train/good/{n}{0}.png" in findings[0].sentence


def test_16_bit_lines_are_told_of_the_white_level() -> None:
    dark = clean().assign(bit_depth=16, contrast=0.4)
    assert "ingest.white_level" in found(dark)["blank"].remedy


def test_the_json_is_as_documented() -> None:
    result = check_manifest(put(GOOD, contrast=0.5)(clean()), DEFAULT, "caps", reference=clean(seed=1), now=NOW)
    value = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert list(value) == [
        "format_version", "line", "passed", "data_hash", "counts", "reference", "findings", "checks", "statistics",
        "camera",
    ]  # fmt: skip
    assert (value["format_version"], value["line"], value["passed"]) == (1, "caps", False)
    assert value["findings"] == [
        {
            "name": "blank",
            "severity": "error",
            "message": "1 good image without content (grey levels deviate by less than 2)",
            "remedy": "remove them; check that the part is in the picture",
            "count": 1,
            "paths": ["train/good/0002.png"],
        }
    ]
    assert set(value["checks"]) == set(CHECKS)
    assert set(value["checks"].values()) == {"met", "broken", "off", "not applicable"}
    assert value["reference"]["good"] == 60
    assert set(value["statistics"]) == set(STATISTICS)
    brightness = value["statistics"]["brightness"]
    assert set(brightness) == {"median", "reference_median", "limits", "shift"}
    assert set(brightness["limits"]) == {"low", "high", "source"}
    assert set(brightness["shift"]) == set(value["camera"]["shift"]) == {"effect", "allowed", "p_value", "drifted"}


def test_it_works_in_silence_and_leaves_nothing_behind(tmp_path: Path) -> None:
    clean().to_parquet(tmp_path / "m.parquet")
    code = (
        "import pandas as pd; from morphad.data.contract import check_manifest; from morphad.settings import *;"
        f"m = pd.read_parquet({str(tmp_path / 'm.parquet')!r});"
        "assert check_manifest(m, ValidateSettings(), 'caps', reference=m).findings == ()"
    )
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=home,
        env={**os.environ, "HOME": str(home)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.iterdir()) == []


def test_data_docs_on_demand(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    check_manifest(put(GOOD, contrast=0.5)(clean()), DEFAULT, "caps", data_docs=folder)
    assert "Data Docs" in (folder / "index.html").read_text(encoding="utf-8")
    assert len(list((folder / "validations").rglob("*.html"))) == 6  # one a set of rows


def test_masks_that_mark_most_of_most_pictures_may_be_inverted() -> None:
    finding = found(put(slice(60, 65), masked=0.93)(clean()))["inverted_masks"]
    assert finding.severity == "warning"
    assert finding.message == "6 defect images with a mask that marks more than half of the picture"
    assert "invert the masks" in finding.remedy
    # One large defect among others is none.
    assert "inverted_masks" not in found(put(60, masked=0.93)(clean()))


@pytest.mark.parametrize(
    ("peak", "white_level", "proposed"),
    [(16, 65535, "4095"), (4, 65535, "1023"), (64, 65535, "16383"), (64, 16383, "4095")],
)
def test_a_camera_of_fewer_bits_than_its_files_is_noticed(peak: int, white_level: int, proposed: str) -> None:
    rows = clean().assign(bit_depth=16, peak=peak)
    finding = found(rows, white_level=white_level)["white_level"]
    assert finding.severity == "warning"
    assert f"no value is above {proposed}" in finding.message
    assert f"set ingest.white_level: {proposed} and ingest again" in finding.remedy


def test_files_whose_bits_are_in_use_are_as_they_should_be() -> None:
    assert "white_level" not in found(clean().assign(bit_depth=16, peak=[16] * 65 + [200]))
    assert "white_level" not in found(clean().assign(bit_depth=16, peak=250), white_level=4095)
    assert "white_level" not in found(clean().assign(bit_depth=16, peak=10), white_level=1023)
    assert "white_level" not in found(clean().assign(bit_depth=8, peak=10))
