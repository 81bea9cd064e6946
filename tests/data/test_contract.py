"""Clean lines pass; a planted fault of each kind is caught by name."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow

from morphad.data.contract import Finding, check_manifest
from morphad.data.manifest import SCHEMA, snapshot
from morphad.data.sources import find_images
from morphad.settings import IngestSettings, ValidateSettings

DEFAULT = ValidateSettings()


def clean(good: int = 30, defects: int = 6) -> pd.DataFrame:
    rows = []
    for n in range(good + defects):
        is_good = n < good
        digest = hashlib.sha256(str(n).encode()).hexdigest()
        rows.append({
            "path": f"{'train/good' if is_good else 'test/crack'}/{n:03}.png",
            "sha256": digest, "line": "caps", "label": "good" if is_good else "defect",
            "defect": "" if is_good else "crack", "mask": "" if is_good else f"masks/{n:03}.png",
            "mask_sha256": "" if is_good else digest, "group": "", "origin": "", "acquired": "",
            "bytes": 1000, "height": 200, "width": 300, "mode": "RGB", "bit_depth": 8,
            "brightness": 100.0, "contrast": 30.0, "sharpness": 50.0, "dark": 0.0, "saturated": 0.0,
            "masked": 0.0 if is_good else 0.1, "perceptual_hash": digest,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=SCHEMA.names)


def planted(**values: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Put values into the third row (a good image)."""

    def plant(manifest: pd.DataFrame) -> pd.DataFrame:
        for column, value in values.items():
            manifest.loc[2, column] = value
        return manifest

    return plant


def in_defect(**values: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def plant(manifest: pd.DataFrame) -> pd.DataFrame:
        for column, value in values.items():
            manifest.loc[31, column] = value
        return manifest

    return plant


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_a_clean_manifest_has_no_findings() -> None:
    assert check_manifest(clean(), DEFAULT, "caps") == []


def copy_bytes(source: int, target: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def plant(manifest: pd.DataFrame) -> pd.DataFrame:
        manifest.loc[target, "sha256"] = manifest.loc[source, "sha256"]
        return manifest

    return plant


@pytest.mark.parametrize(
    ("plant", "name", "severity", "words"),
    [
        (planted(path="train/good/001.png"), "unique_paths", "error", "2 rows share a path: train/good/001.png"),
        (planted(sha256="ABC"), "sha256_format", "error", "1 rows hold no SHA-256: train/good/002.png"),
        (planted(line="bolts"), "line", "error", "another line than caps: train/good/002.png"),
        (planted(label="ok"), "label", "error", "neither good nor defect: train/good/002.png"),
        (planted(contrast=0.5), "low_contrast", "error", "train/good/002.png; remove them"),
        (in_defect(contrast=0.5), "low_contrast_defect", "warning", "test/crack/031.png"),
        (planted(height=900), "size_outliers", "warning", "median of 200 x 300 px (validate.max_size_ratio): train/"),
        (planted(width=100), "size_outliers", "warning", "train/good/002.png"),
        (planted(mode="L"), "mixed_channels", "warning", "1 images are not colour as the others: train/good/002.png"),
        (planted(bit_depth=16), "mixed_bit_depth", "warning", "do not have 8 bits as the others: train/good/002.png"),
        (planted(masked=0.2, mask="masks/x.png"), "good_with_mask", "error", "labelled good but their masks"),
        (copy_bytes(2, 32), "conflicting_labels", "error", "test/crack/032.png, train/good/002.png"),
        (in_defect(mask="", masked=0.0), "defect_without_mask", "warning", "test/crack/031.png"),
        (in_defect(masked=0.0), "empty_mask", "warning", "marks nothing: test/crack/031.png"),
    ],
)
def test_each_planted_fault_is_caught_by_name(
    plant: Callable[[pd.DataFrame], pd.DataFrame], name: str, severity: str, words: str
) -> None:
    findings = by_name(check_manifest(plant(clean()), DEFAULT, "caps"))
    assert list(findings) == [name]
    assert findings[name].severity == severity
    assert words in findings[name].message
    assert findings[name].count == (2 if name in {"unique_paths", "conflicting_labels"} else 1)


def test_empty_and_too_few_good() -> None:
    assert by_name(check_manifest(clean(0, 0), DEFAULT, "caps")).keys() == {"empty"}
    few = by_name(check_manifest(clean(3), DEFAULT, "caps"))
    assert few.keys() == {"min_good"}
    assert "only 3 good images, at least 20 are needed" in few["min_good"].message
    assert by_name(check_manifest(clean(0, 4), DEFAULT, "caps")).keys() == {"min_good"}
    assert check_manifest(clean(3), ValidateSettings(min_good=3), "caps") == []


def test_copies_beyond_their_share() -> None:
    manifest = clean()
    manifest.loc[1:6, "sha256"] = manifest.loc[0, "sha256"]
    assert check_manifest(manifest, DEFAULT, "caps") == []
    manifest.loc[7, "sha256"] = manifest.loc[0, "sha256"]
    finding = by_name(check_manifest(manifest, DEFAULT, "caps"))["duplicates"]
    assert (finding.severity, finding.count) == ("error", 7)
    assert "7 of 30 good images are byte copies of others, at most 20% may be" in finding.message


def test_all_images_alike() -> None:
    manifest = clean()
    manifest.loc[:29, "perceptual_hash"] = "0" * 64
    finding = by_name(check_manifest(manifest, DEFAULT, "caps"))["identical"]
    assert "all 30 good images look the same" in finding.message
    assert finding.message.count("train/good/") == 5
    assert "and 25 more" in finding.message


def test_the_same_bytes_as_two_kinds_of_defect() -> None:
    manifest = copy_bytes(30, 31)(clean())
    manifest.loc[31, "defect"] = "dent"
    finding = by_name(check_manifest(manifest, DEFAULT, "caps"))["conflicting_defects"]
    assert (finding.severity, finding.count) == ("warning", 2)


def test_lines_without_defects_or_without_masks_are_only_warned_of() -> None:
    assert [(f.name, f.severity) for f in check_manifest(clean(30, 0), DEFAULT, "caps")] == [("no_defects", "warning")]
    unmasked = clean().assign(mask="", masked=0.0)
    assert [(f.name, f.severity) for f in check_manifest(unmasked, DEFAULT, "caps")] == [("no_masks", "warning")]


def test_errors_come_first_and_braces_in_paths_do_no_harm() -> None:
    manifest = planted(mode="L", path="train/good/{paths}{0}.png", contrast=0.0)(clean())
    findings = check_manifest(manifest, DEFAULT, "caps")
    assert [finding.severity for finding in findings] == ["error", "warning"]
    assert "train/good/{paths}{0}.png" in findings[0].message


def test_16_bit_lines_are_told_of_the_white_level() -> None:
    dark = clean().assign(bit_depth=16, contrast=0.4)
    assert "ingest.white_level" in by_name(check_manifest(dark, DEFAULT, "caps"))["low_contrast"].message


def test_it_works_in_silence_and_leaves_nothing_behind(tmp_path: Path) -> None:
    clean().to_parquet(tmp_path / "m.parquet")
    code = (
        "import pandas as pd; from morphad.data.contract import check_manifest; from morphad.settings import *;"
        f"assert check_manifest(pd.read_parquet({str(tmp_path / 'm.parquet')!r}), ValidateSettings(), 'caps') == []"
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


def real(source: str, path: str, tmp_path: Path, limit: int | None) -> list[Finding]:
    ingest = IngestSettings(source=source, path=path, limit=limit)  # type: ignore[arg-type]
    manifest, _ = snapshot(find_images(ingest), tmp_path, ingest, "caps", "test")
    return check_manifest(manifest, DEFAULT, "caps")


@pytest.mark.parametrize("name", ["mvtec/bottle", "mvtec/screw", "magnetic_tile"])
def test_real_lines_have_no_errors(name: str, real_sets: Path, tmp_path: Path) -> None:
    findings = real("folder", str(real_sets / name), tmp_path, limit=40)
    assert [finding for finding in findings if finding.severity == "error"] == []


@pytest.mark.parametrize("name", ["mono", "poly"])
def test_demo_lines_have_no_errors(name: str, tmp_path: Path) -> None:
    pytest.importorskip("elpv_dataset")
    findings = real("demo", name, tmp_path, limit=40)
    assert [finding for finding in findings if finding.severity == "error"] == []


def test_a_black_picture_and_one_of_another_size_from_the_camera(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for n in range(25):
        side = 60 if n == 7 else 20
        pixels = rng.integers(0, 256, (side, side), np.uint8) * (n != 3)
        Pillow.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"in/{n:02}.png")
    findings = by_name(real("folder", str(tmp_path / "in"), tmp_path / "out", None))
    assert "03.png" in findings["low_contrast"].message
    assert "07.png" in findings["size_outliers"].message
