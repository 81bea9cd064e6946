"""Where images come from: what is found, with which label, and what is refused by name, row and column."""

import sys
import unicodedata
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image as Pillow

from morphad.base.errors import BadInputError
from morphad.data.source.finding import find_images
from morphad.data.source.image import SourceImage
from morphad.data.source.layouts import endings
from morphad.settings import IngestSettings


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.new("L", (4, 4)).save(root / name, "PNG")
    return root


def found(path: Path | str, source: str = "folder", limit: int | None = None) -> list[SourceImage]:
    return find_images(IngestSettings(source=source, path=str(path), limit=limit))  # type: ignore[arg-type]


def listing(root: Path, text: str) -> Path:
    put(root, "a.png", "b.png", "sub/c.png", "m.png")
    (root / "list.csv").write_text(text, encoding="utf-8")
    return root / "list.csv"


def test_mvtec_layout_gives_labels_kinds_masks_and_origin(tmp_path: Path) -> None:
    put(
        tmp_path,
        "train/good/000.png",
        "test/good/000.png",
        "test/crack/000.png",
        "test/dent/000.JPG",
        "test/dent/1.png",
    )
    put(tmp_path, "ground_truth/crack/000_mask.png", "ground_truth/dent/000.bmp")
    (tmp_path / "readme.txt").write_text("not an image")
    (tmp_path / "test/dent/Thumbs.db").write_text("not an image")
    put(tmp_path, ".cache/x.png", "test/dent/.hidden.png")
    images = {image.name: image for image in found(tmp_path)}
    assert sorted(images) == [
        "test/crack/000.png", "test/dent/000.JPG", "test/dent/1.png", "test/good/000.png", "train/good/000.png"
    ]  # fmt: skip
    crack, dent, good = images["test/crack/000.png"], images["test/dent/000.JPG"], images["train/good/000.png"]
    assert (crack.label, crack.defect, crack.origin) == ("defect", "crack", "test/crack")
    assert (good.label, good.defect, good.origin, good.mask) == ("good", "", "train/good", None)
    assert crack.mask == tmp_path / "ground_truth/crack/000_mask.png"
    assert dent.mask == tmp_path / "ground_truth/dent/000.bmp"
    assert images["test/dent/1.png"].mask is None


def test_mask_without_an_image_is_named(tmp_path: Path) -> None:
    put(
        tmp_path,
        "train/good/0.png",
        "test/crack/0.png",
        "ground_truth/crack/0_mask.png",
        "ground_truth/crack/7_mask.png",
    )
    with pytest.raises(BadInputError, match=r"ground_truth/crack/7_mask\.png mask no image"):
        found(tmp_path)


def test_images_outside_the_layout_are_named(tmp_path: Path) -> None:
    put(tmp_path, "train/good/0.png", "extra/x.png")
    with pytest.raises(BadInputError, match=r"extra/x\.png lie outside train/<kind>"):
        found(tmp_path)


def test_flat_folder_holds_good_images_only(tmp_path: Path) -> None:
    put(tmp_path, "b.png", "a.PNG")
    assert [(image.name, image.label) for image in found(tmp_path)] == [("a.PNG", "good"), ("b.png", "good")]
    put(tmp_path, "bad/c.png")
    with pytest.raises(BadInputError, match=r"bad/c\.png lie in subfolders.*good/ and defect/"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("good", "defect"),
    [("good", "defect"), ("ok", "ng"), ("OK", "NG"), ("io", "nio"), ("gut", "schlecht"), ("Pass", "Fail")],
)
def test_two_folders_are_good_and_defect_images(tmp_path: Path, good: str, defect: str) -> None:
    put(tmp_path, f"{good}/0.png", f"{good}/lot 7/1.png", f"{defect}/2.png", f"{defect}/crack/3.png")
    put(tmp_path, f"ground_truth/{defect}/crack/3_mask.png")
    images = {image.name: image for image in found(tmp_path)}
    assert {name: (image.label, image.defect, image.origin) for name, image in images.items()} == {
        f"{good}/0.png": ("good", "", good),
        f"{good}/lot 7/1.png": ("good", "", good),
        f"{defect}/2.png": ("defect", "", defect),
        f"{defect}/crack/3.png": ("defect", "crack", defect),
    }
    assert images[f"{defect}/crack/3.png"].mask == tmp_path / f"ground_truth/{defect}/crack/3_mask.png"


@pytest.mark.parametrize("names", [("ok/0.png", "scratch/1.png"), ("ng/0.png",), ("ok/0.png", "io/1.png")])
def test_other_folders_are_not_guessed_at(tmp_path: Path, names: tuple[str, ...]) -> None:
    put(tmp_path, *names)
    with pytest.raises(BadInputError, match="lie in subfolders"):
        found(tmp_path)


@pytest.mark.parametrize("name", ["test/Good", "test/OK", "test/io"])
def test_a_kind_that_sounds_good_is_asked_about(tmp_path: Path, name: str) -> None:
    put(tmp_path, "train/good/0.png", "test/crack/0.png", f"{name}/0.png")
    with pytest.raises(BadInputError, match=f"is {name} good, or a kind of defect.*rename it to test/good"):
        found(tmp_path)


def test_files_that_are_no_images_are_counted_by_ending(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "sub.png")
    for name in ("a.txt", "b.TXT", "c.bmp2", "README", ".hidden", "a.json"):
        (tmp_path / name).write_text("x")
    aside: list[str] = []
    find_images(IngestSettings(path=str(tmp_path)), aside=aside)
    assert endings(aside) == {".txt": 2, ".bmp2": 1, "no ending": 1, ".json": 1}


def test_missing_empty_and_wrong_kind_of_path(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="folder not found"):
        found(tmp_path / "none")
    with pytest.raises(BadInputError, match=r"no images found; expected files ending in \.bmp"):
        found(tmp_path)
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(BadInputError, match="not a folder"):
        found(tmp_path / "x.png")
    with pytest.raises(BadInputError, match="listing not found"):
        found(tmp_path, "listing")


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside", "x.png")
    root = put(tmp_path / "root", "a.png")
    (root / "inner.png").symlink_to(root / "a.png")
    assert len(found(root)) == 2
    (root / "link.png").symlink_to(outside / "x.png")
    with pytest.raises(BadInputError, match=r"link\.png: a link that leads out of"):
        found(root)
    (root / "link.png").unlink()
    (root / "folder").symlink_to(outside)
    with pytest.raises(BadInputError, match="folder: a link that leads out of"):
        found(root)


def test_names_that_no_table_can_hold_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "fine äß 日本.png", "line\nbreak.png")
    with pytest.raises(BadInputError, match=r"line\\nbreak\.png.*rename"):
        found(tmp_path)


def test_limit_takes_evenly_from_each_kind(tmp_path: Path) -> None:
    put(tmp_path, *(f"train/good/{n:02}.png" for n in range(10)), *(f"test/crack/{n}.png" for n in range(5)))
    put(tmp_path, "test/dent/0.png")
    names = [image.name for image in found(tmp_path, limit=2)]
    assert names == [
        "test/crack/0.png",
        "test/crack/2.png",
        "test/dent/0.png",
        "train/good/00.png",
        "train/good/05.png",
    ]
    assert len(found(tmp_path, limit=100)) == 16


def test_listing_with_every_column(tmp_path: Path) -> None:
    path = listing(
        tmp_path,
        "\ufeffpath,label,defect,mask,group,acquired\na.png,good,,,lot1,2025-03-31T14:05:00\n"
        "sub/c.png,defect,crack,m.png,lot2,\nb.png,,,,,\n",
    )
    a, b, c = found(path, "listing")
    assert (a.name, a.label, a.group, a.acquired) == ("a.png", "good", "lot1", "2025-03-31T14:05:00")
    assert (b.label, b.defect, b.group, b.acquired, b.mask) == ("good", "", "", "", None)
    assert (c.name, c.label, c.defect) == ("sub/c.png", "defect", "crack")
    assert c.mask == (tmp_path / "m.png").resolve()


def test_names_that_were_made_harmless_for_spreadsheets_are_found(tmp_path: Path) -> None:
    path = listing(tmp_path, "path,label,defect,mask\n'=a.png,defect,'-dent,'+m.png\n")
    for name in ("a.png", "m.png"):
        (tmp_path / name).rename(tmp_path / f"{'=' if name == 'a.png' else '+'}{name}")
    (only,) = found(path, "listing")
    assert (only.name, only.defect, only.mask) == ("=a.png", "-dent", (tmp_path / "+m.png").resolve())


@pytest.mark.parametrize(("on_disk", "listed"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_form_of_unicode_is_found(tmp_path: Path, on_disk: str, listed: str) -> None:
    there = unicodedata.normalize(on_disk, "Prüfung/Stück.png")
    put(tmp_path, there)
    (tmp_path / "list.csv").write_text(f"path\n{unicodedata.normalize(listed, there)}\n", encoding="utf-8")
    assert [image.name for image in found(tmp_path / "list.csv", "listing")] == [there]


def test_listing_as_parquet(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    rows = {
        "path": ["a.png", "b.png"],
        "group": [7, 8],
        "acquired": [datetime(2025, 1, 2), None],
        "label": ["good", None],
    }
    pd.DataFrame(rows).to_parquet(tmp_path / "list.parquet")
    a, b = found(tmp_path / "list.parquet", "listing")
    assert (a.group, a.acquired, b.acquired, b.label) == ("7", "2025-01-02T00:00:00", "", "good")
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(BadInputError, match=r"bad\.parquet: not a parquet table"):
        found(tmp_path / "bad.parquet", "listing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.png\n", "has no column `path`; its columns are file; a listing has some of the columns path, label"),
        ("", "has no column `path`; its columns are none"),
        ("Path,label\na.png,good\n", "has no column `path`; rename the column 'Path' to path"),
        (
            "path;label\na.png;good\n",
            "has no column `path`: its cells are separated by semicolons; save it with commas",
        ),
        ("path;label\na.png;good\n", "its cells are separated by semicolons; save it with commas"),
        ("path,lable\na.png,defect\n", "unknown column 'lable'; allowed"),
        ("path,path\na.png,a.png\n", "column 'path' is there twice"),
        ("path,label\na.png\n", "row 2 has 1 cells, expected 2"),
        ("path\na.png\n\nb.png\n", "row 3 is empty"),
        ("path,label\na.png,good\n,good\n", "row 3, column path: is empty"),
        ("path\nnone.png\n", "row 2, column path: 'none.png' is not a file"),
        ("path\nsub\\c.png\n", "not with a backslash"),
        ("path\n../outside.png\n", "row 2, column path: '../outside.png' leads out"),
        ("path\n/etc/hostname\n", "row 2, column path: '/etc/hostname' leads out"),
        ("path\nlink.png\n", "row 2, column path: 'link.png' leads out"),
        ("path,mask\na.png,../outside.png\n", "row 2, column mask: '../outside.png' leads out"),
        ("path,mask\na.png,no.png\n", "row 2, column mask: 'no.png' is not a file"),
        ("path,label\na.png,ok\n", "row 2, column label: 'ok'; expected good or defect"),
        ("path,label,defect\na.png,good,crack\n", "row 2, column defect: 'crack' of an image labelled good"),
        ("path,defect\na.png,good\n", "row 2, column defect: 'good'"),
        ("path,acquired\na.png,yesterday\n", "row 2, column acquired: 'yesterday'; expected ISO 8601"),
        ("path\na.png\nsub/../a.png\n", "row 3, column path: a.png is listed before, in row 2"),
        ('path\n"a.png\n', "not a CSV table"),
    ],
)
def test_faults_in_a_listing_name_file_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "outside.png")
    root = put(tmp_path / "home", "x.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(BadInputError) as caught:
        found(listing(root, text), "listing")
    assert "list.csv" in str(caught.value)
    assert message in str(caught.value)


def test_empty_listing_and_other_kinds_of_file(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no images found"):
        found(listing(tmp_path, "path\n"), "listing")
    (tmp_path / "list.xlsx").write_text("x")
    with pytest.raises(BadInputError, match=r"a \.csv or a \.parquet"):
        found(tmp_path / "list.xlsx", "listing")
    (tmp_path / "list.csv").write_bytes("path\nä.png\n".encode("latin-1"))
    with pytest.raises(BadInputError, match="UTF-8"):
        found(tmp_path / "list.csv", "listing")


def test_demo_lines() -> None:
    pytest.importorskip("elpv_dataset")
    images = found("mono", "demo")
    assert {(image.label, image.defect) for image in images} == {("good", ""), ("defect", "defective")}
    assert (sum(i.label == "good" for i in images), len(images)) == (588, 901)
    with pytest.raises(BadInputError, match="mono and poly"):
        found("duo", "demo")


def test_demo_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    with pytest.raises(BadInputError, match=r'pip install "morphad\[demo\]"'):
        found("mono", "demo")
