"""The page of the data contract stands alone, shows what was found, and bears whatever is missing."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from morphad.base.errors import BadInputError
from morphad.data.contract import check_manifest
from morphad.data.snapshot.copying import Reject
from morphad.report.contract_page import write_contract_page
from morphad.settings import ValidateSettings
from tests.data.contract_rows import clean
from tests.report.test_page import HOSTILE, _Elements


def pixels(path: str) -> np.ndarray:
    if path.endswith("0004.png"):
        raise BadInputError(f"{path}: not found")
    rng = np.random.default_rng(int(re.sub(r"\D", "", path) or 0))
    return rng.integers(0, 255, (60, 90), np.uint8)


def faulty() -> pd.DataFrame:
    rows = clean(60, 6, seed=1)
    rows.loc[2, "path"] = f"train/good/{HOSTILE}"
    rows.loc[:4, "contrast"] = 0.5
    rows.loc[10:40, "brightness"] *= 1.5
    rows.loc[50, ["height", "width"]] = 100, 150
    rows["perceptual_hash"] = [text[2:] + text[:2] for text in rows["perceptual_hash"]]
    return rows


def written(path: Path, rows: pd.DataFrame, reference: pd.DataFrame | None, **options: object) -> str:
    result = check_manifest(rows, ValidateSettings(), "caps", reference=reference, **options)  # type: ignore[arg-type]
    write_contract_page(path, result, rows, reference, pixels=pixels, created="2025-03-01 14:05 UTC")
    return path.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("page") / "contract.html", faulty(), clean(100))


def test_the_page_stands_alone(page: str) -> None:
    elements = _Elements(page)
    assert not elements.open
    assert not {tag for tag, _ in elements.tags} & {"script", "link", "iframe", "object", "embed"}
    for tag, attributes in elements.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("data:image/", "#")), (tag, attributes)
    assert "default-src 'none'" in page
    ids = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "<script" not in page


def test_it_says_what_is_wrong_what_to_do_and_shows_it(page: str) -> None:
    assert "The data of caps break their contract in 4 respects" in page
    for name in ("blank", "brightness_limits", "camera", "brightness_drift"):
        assert f"<h3><code>{name}</code></h3>" in page
    assert "5 good images without content (grey levels deviate by less than 2)." in page
    assert "Remove them; check that the part is in the picture." in page
    assert "cannot be read" in page  # the fifth, whose file is gone
    assert page.count("data:image/jpeg") >= 20
    assert "average of 48 new good images" in page
    assert re.search(r"brightness 1\d\d", page)
    assert "100 x 150 px, RGB, 8 bits" in page
    assert sum(tag == "svg" for tag, _ in _Elements(page).tags) == 7  # of statistics that vary
    assert "Distributions differ by" in page or "Shifted against the reference" in page


def test_clean_data_say_so_and_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    first = written(tmp_path / "a.html", clean(), None)
    assert "The data of caps keep their contract." in first
    assert "There is no reference yet" in first
    assert "alarm" not in re.sub(r"<style>.*?</style>", "", first, flags=re.DOTALL)
    assert written(tmp_path / "b.html", clean(), None) == first


def test_whatever_is_missing_there_is_a_page(tmp_path: Path) -> None:
    rejects = [Reject(HOSTILE, "is empty (0 bytes)")]
    for rows in (clean(0, 0), clean(0, 3), clean(1, 0), clean(30, 0).assign(brightness=100.0)):
        _Elements(written(tmp_path / "page.html", rows, None, rejects=rejects))
        _Elements(written(tmp_path / "page.html", rows, clean(40, 0, seed=3)))


def test_a_page_of_many_offenders_stays_small(tmp_path: Path) -> None:
    rows = clean(3000)
    rows["contrast"] = 0.5
    text = written(tmp_path / "page.html", rows, None)
    assert "and 2,800 more, all in the JSON file" in text
    assert len(text) < 1_000_000
