"""Real lines keep the contract, whole and one half against the other."""

from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from morphad.data.contract import check_manifest
from morphad.data.snapshot.copying import look
from morphad.data.source.finding import find_images
from morphad.settings import IngestSettings, ValidateSettings

TRUE = {
    # What is told of each, and true: solar cells and screws have no masks, four tiles have empty ones, and one cell
    # (cell0011, of mean grey level 59) is by far the darkest of its line.
    "bottle": set(),
    "screw": {"no_masks"},
    "magnetic_tile": {"empty_mask"},
    "mono": {"no_masks", "brightness_outliers"},
    "poly": {"no_masks"},
}
LINES = ["mvtec/bottle", "mvtec/screw", "magnetic_tile", "mono", "poly"]


@cache
def rows(path: str) -> pd.DataFrame:
    source = "folder" if "/" in path else "demo"
    settings = IngestSettings(source=source, path=path, limit=130)  # type: ignore[arg-type]
    manifest, rejects = look(find_images(settings), settings, "caps")
    assert rejects == []
    return manifest


@pytest.fixture(params=LINES)
def manifest(request: pytest.FixtureRequest) -> pd.DataFrame:
    if request.param in {"mono", "poly"}:
        pytest.importorskip("elpv_dataset")
        return rows(request.param)
    folder: Path = request.getfixturevalue("real_sets")
    return rows(str(folder / request.param))


def test_real_lines_are_told_nothing_but_the_truth(manifest: pd.DataFrame, request: pytest.FixtureRequest) -> None:
    result = check_manifest(manifest, ValidateSettings(), "caps")
    line = request.node.callspec.params["manifest"].rpartition("/")[2]
    assert result.errors == ()
    assert {finding.name for finding in result.warnings} <= TRUE[line]
    outliers = [finding for finding in result.warnings if finding.name == "brightness_outliers"]
    assert all(finding.paths == ("images/cell0011.png",) for finding in outliers)


def test_one_half_of_a_real_line_is_like_the_other(manifest: pd.DataFrame, request: pytest.FixtureRequest) -> None:
    reference = manifest.sample(frac=0.5, random_state=1)
    new = manifest.drop(reference.index)
    result = check_manifest(new, ValidateSettings(), "caps", reference=reference)
    line = request.node.callspec.params["manifest"].rpartition("/")[2]
    assert result.errors == ()
    assert {finding.name for finding in result.warnings} <= TRUE[line]
    assert result.states["camera"] == result.states["brightness_drift"] == "met"
