"""`morphad check`: any folder, without a project; and what `morphad validate` makes of the champion's data."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageFilter
from ruamel.yaml import YAML

from exhaustive import EXHAUSTIVE
from morphad.base.files import read_json
from morphad.cli import main
from morphad.data.manifest import read_manifest, write_manifest
from morphad.data.snapshot.copying import look
from morphad.data.source.finding import find_images
from morphad.settings import IngestSettings
from morphad.steps.paths import LinePaths


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


PARTS = {"train/good": 60, "test/good": 8, "test/spot": 6, "ground_truth/spot": 6}


@pytest.fixture(params=["drawn", "real"] if EXHAUSTIVE else ["drawn"])
def camera(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Some bottles, to be spoilt: drawn ones, and real ones where they are at hand."""
    folder = tmp_path / "bottles"
    real = request.getfixturevalue("real_sets") / "mvtec/bottle" if request.param == "real" else None
    rng = np.random.default_rng(0)
    for part, count in PARTS.items():
        (folder / part).mkdir(parents=True)
        for number in range(count):
            target = folder / part / (f"{number:03}_mask.png" if "ground" in part else f"{number:03}.png")
            if real is None:
                draw_bottle(part, rng).save(target)
            else:
                shutil.copy(real / part.replace("spot", "broken_large") / target.name, target)
    return folder


def draw_bottle(part: str, rng: np.random.Generator) -> Pillow.Image:
    """A ring seen from above, 256 x 256 px, with soft shades of its own under noise; a spot, or its mask."""
    radius = np.hypot(*(np.mgrid[:256, :256] - 127.5))
    spot = np.hypot(*(np.mgrid[:256, :256] - 90)) < 12
    if "ground" in part:
        return Pillow.fromarray((255 * spot).astype(np.uint8))
    shades = Pillow.fromarray(rng.integers(0, 60, (10, 10), np.uint8)).resize((256, 256), Pillow.Resampling.BICUBIC)
    noise = rng.normal(0, rng.uniform(3, 5), (256, 256))
    grey = 60 + 90 * (radius < 110) - 50 * (radius < 60) + np.asarray(shades) + noise
    grey[spot & ("spot" in part)] = 230
    return Pillow.fromarray(np.stack([grey.clip(0, 255)] * 3, axis=-1).astype(np.uint8))


def change(file: Path, how: Callable[[Pillow.Image], Pillow.Image]) -> str:
    how(Pillow.open(file)).save(file)
    return "/".join(file.parts[-3:])


def test_a_clean_folder_is_exit_0_and_leaves_nothing_behind(
    camera: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, err = run("check", camera)
    assert (code, err) == (0, "")
    assert out == f"{camera}: the data keep their contract: 0 errors, 0 warnings, 68 good and 6 defect images\n"
    assert {path.name for path in tmp_path.iterdir()} == {"bottles"}
    flat = camera / "train" / "good"
    code, out, _ = run("check", flat)
    assert code == 0
    assert out.startswith("warning: no_defects: there are no defect images; ")


def test_files_that_are_no_images_are_counted(camera: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    for name in ("Thumbs.db", "notes.txt", "more.txt"):
        (camera / "train" / "good" / name).write_text("x")
    _, out, _ = run("check", camera)
    assert f"{camera}: 3 files are no images: 2 .txt, 1 .db\n" in out


def test_planted_faults_in_images_are_each_named(
    camera: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    good = sorted((camera / "train/good").iterdir())
    planted = {
        "black": change(good[0], lambda image: Pillow.new("RGB", image.size)),
        "white": change(good[1], lambda image: Pillow.new("RGB", image.size, "white")),
        "blank": change(good[2], lambda image: Pillow.new("RGB", image.size, (90, 90, 90))),
        "blurred": change(good[3], lambda image: image.filter(ImageFilter.GaussianBlur(8))),
        "sharpness_outliers": change(good[4], lambda image: image.filter(ImageFilter.GaussianBlur(0.7))),
        "brightness_extremes": change(good[5], lambda image: image.point(lambda value: int(value * 0.6))),
        "channels": change(good[6], lambda image: image.convert("L")),
        "size": change(good[7], lambda image: image.crop((0, 0, 200, 256))),
        "copies": "train/good/twice.png",
        "leakage_bytes": "test/good/again.png",
        "leakage_near": "test/good/nearly.png",
        "conflicting_labels": "test/spot/good.png",
        "empty_mask": "test/spot/000.png",
        "unreadable": "train/good/011.png",
    }
    shutil.copy(good[8], camera / "test/good/again.png")
    shutil.copy(good[12], camera / "train/good/twice.png")
    Pillow.open(good[9]).save(camera / "test/good/nearly.jpg", quality=95)
    (camera / "test/good/nearly.jpg").rename(camera / "test/good/nearly.png")  # known by its content
    shutil.copy(good[10], camera / "test/spot/good.png")
    Pillow.new("L", (256, 256)).save(camera / "ground_truth/spot/000_mask.png")
    good[11].write_bytes(good[11].read_bytes()[:1000])

    code, out, err = run("check", camera, "--json", tmp_path / "found.json", "--page", tmp_path / "found.html")
    assert (code, err) == (1, "")
    found = {finding["name"]: finding for finding in read_json(tmp_path / "found.json")["findings"]}
    for name, path in planted.items():
        assert path in found[name]["paths"], name
        assert f"{found[name]['severity']}: {name}: " in out
    also = {name for name in set(found) - set(planted) if not name.endswith("_outliers")}
    assert also <= {"defect_without_mask"}
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert all(name in page for name in planted)
    assert page.count("data:image/jpeg") > len(planted)


def test_a_moved_camera_is_named_against_the_reference(
    camera: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    settings = IngestSettings(path=str(camera))
    images = sorted((camera / "train/good").iterdir())
    for number, file in enumerate(images):
        # One half as the champion knew it, the other 5 px away.
        change(file, lambda image, at=5 * (number % 2): image.crop((at, at, 246 + at, 246 + at)))  # type: ignore[misc]
    for file in (*(camera / "test").rglob("*.png"), *(camera / "ground_truth").rglob("*.png")):
        change(file, lambda image: image.crop((0, 0, 246, 246)))
    rows, _ = look(find_images(settings), settings, "caps")
    old = [f"train/good/{file.name}" for file in images[::2]]
    write_manifest(rows[rows["path"].isin(old) | rows["path"].str.startswith("test/")], tmp_path / "reference.parquet")

    code, out, _ = run("check", camera, "--reference", "reference.parquet", "--json", "found.json")
    assert code == 1
    assert re.search("^error: camera: what 30 new good images show, and where, is not as in the reference", out, re.M)
    found = read_json(tmp_path / "found.json")
    camera_finding = next(finding for finding in found["findings"] if finding["name"] == "camera")
    assert not set(camera_finding["paths"]) & set(old)
    assert found["camera"]["shift"]["drifted"] is True
    assert found["counts"]["new_good"] == 30


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "nowhere: not found; give a folder of images"),
        (["empty"], "empty: no images found"),
        (["bottles", "--reference", "caps"], "--reference caps: neither a manifest (.parquet) nor a line"),
        (["bottles", "--reference", "none.parquet"], "none.parquet: not found"),
        (["bottles", "--line", "caps"], "params.yaml: not found; run in the project's folder or give --params FILE"),
        (["bottles", "--json", "empty"], "empty: cannot write"),
        (["bottles", "--page"], "expected one argument"),
        ([], "required: FOLDER"),
    ],
)
def test_bad_use_is_exit_2(
    arguments: list[str], told: str, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bottles").mkdir()
    Pillow.new("L", (8, 8)).save(tmp_path / "bottles" / "1.png")
    code, _, err = run("check", *arguments)
    assert code == 2
    assert told in err


def test_a_listing_gives_groups_and_times_and_a_manifest_its_roles(
    camera: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    files = sorted((camera / "train/good").iterdir())
    rows = [f"{file.relative_to(camera)},lot-{n // 30},2025-03-01T10:{n:02}:00" for n, file in enumerate(files)]
    rows[7] = rows[7].replace("2025", "1970")
    (camera / "list.csv").write_text("path,group,acquired\n" + "\n".join(rows))
    code, out, _ = run("check", camera / "list.csv")
    assert code == 0
    assert "warning: acquired_implausible: 1 image from before the year 2000: train/good/007.png" in out

    settings = IngestSettings(source="listing", path=str(camera / "list.csv"))
    manifest, _ = look(find_images(settings), settings, "caps")
    roles = np.array(["train", "calibration", "holdout"])[np.arange(len(manifest)) % 3]
    write_manifest(manifest.assign(role=roles, reason=""), tmp_path / "split.parquet")
    code, out, _ = run("check", tmp_path / "split.parquet")
    assert code == 1
    assert "error: leakage_group: 60 good images whose group is in two roles" in out


def test_a_line_of_the_project_gives_limits_and_its_champions_data(
    tmp_path: Path, make_set: Callable[..., Path], run: Callable[..., tuple[int, str, str]]
) -> None:
    make_set(tmp_path / "camera", good=40)
    line: dict[str, Any] = {name: {} for name in ("split", "train", "calibrate", "evaluate", "register", "promote")}
    line |= {"ingest": {"path": "camera"}, "validate": {"limits": {"brightness": [None, 110]}}}
    YAML().dump({"lines": {"weave": line}}, tmp_path / "params.yaml")
    assert run("check", "camera")[0] == 0
    code, out, _ = run("check", "camera", "--line", "weave")
    assert code == 1
    assert "brightness above 110 (limit validate.limits.brightness)" in out

    place = LinePaths.checkout(tmp_path, "weave")
    line["validate"] = {}
    YAML().dump({"lines": {"weave": line}}, tmp_path / "params.yaml")
    assert run("ingest", "weave")[0] == 0
    code, out, _ = run("validate", "weave")
    assert (code, place.contract_page.is_file()) == (0, True)
    assert read_json(place.validation)["reference"] is None

    write_manifest(read_manifest(place.manifest), place.reference)  # as a promotion does
    make_set(tmp_path / "later", good=40, seed=1)
    for file in (tmp_path / "later" / "train" / "good").iterdir():
        change(file, lambda image: image.point(lambda value: min(255, int(value * 1.2))))
    for arguments in (("--line", "weave"), ("--reference", "weave")):
        code, out, _ = run("check", "later", *arguments)
        assert "brightness_limits" in out
        assert code == 1
    for file in (tmp_path / "later" / "train" / "good").iterdir():
        shutil.copy(file, tmp_path / "camera" / "train" / "good" / f"later-{file.name}")
    assert run("ingest", "weave")[0] == 0
    code, out, err = run("validate", "weave")
    assert code == 1
    assert "weave: the data breaks its contract:" in err
    assert "brightness_limits: 40 good images of 40" in err
    assert str(place.contract_page) in err or "reports/weave/contract.html" in err
    found = json.loads(place.validation.read_text())
    assert (found["passed"], found["counts"]["new_good"]) == (False, 40)
