"""Parts in place from params.yaml to verdicts and papers: who is told that a part is not there, and by what."""

import io
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from ruamel.yaml import YAML

from morphad.base.files import read_json, sha256_file
from morphad.cli import main
from morphad.decision.calibration import NOTHING_TO_SCORE
from morphad.registry.published import PublishedModel
from morphad.settings import presets
from plates import HEIGHT, WIDTH, anywhere, part
from project import LINE, Project, assert_told
from tiny import TRAIN

ALIGNED: dict[str, Any] = {**TRAIN, "align": "shift", "image_size": [96, 128], "optimiser": {"steps": 0}}


def save(file: Path, pixels: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


def camera(root: Path) -> Path:
    """A set in MVTec AD layout: plates that lie anywhere; of the defects one is that there is none."""
    for i, warp in enumerate(anywhere(40, 1)):
        save(root / "train/good" / f"{i:03}.png", part(i, warp))
    for i, warp in enumerate(anywhere(6, 2)):
        save(root / "test/good" / f"{i:03}.png", part(100 + i, warp))
    save(root / "test/missing" / "000.png", part(300, absent=True))
    for i, warp in enumerate(anywhere(5, 3)):
        save(root / "test/spot" / f"{i:03}.png", part(200 + i, warp, defect=True))
        mask = Image.new("L", (WIDTH, HEIGHT))
        ImageDraw.Draw(mask).polygon([warp.at(*at) for at in ((44, 52), (49, 52), (49, 57), (44, 57))], fill=255)
        save(root / "ground_truth/spot" / f"{i:03}_mask.png", np.asarray(mask))
    return root


def configured(project: Project, **train: Any) -> None:
    project.configure(
        ingest={"path": str(project.camera)},
        split={"near_duplicate_bits": 0},
        train={**ALIGNED, **train},
        calibrate={"false_reject_rate": 0.2},
    )


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("plates"))
    camera(project.camera)
    configured(project)
    project.done("ingest", "split", "train", "calibrate", "evaluate")
    return project


def test_figures_page_and_predictions_say_where_the_part_was_not_found(evaluated: Project) -> None:
    figures = read_json(evaluated.place.report / "metrics.json")
    assert figures["align"] == {"kind": "shift", "lost": {"good": 0, "defect": 1}}
    assert figures["escape"]["count"] == 0
    assert figures["pixel_auroc"] > 0.8
    page = (evaluated.place.report / "index.html").read_text()
    assert "A picture whose part is not found is rejected unseen: 0 good images and 1 defect image" in page
    assert "part not found: agrees with the good ones by" in page
    assert "1 rejected unseen" in page
    table = pd.read_csv(evaluated.place.report / "predictions.csv")
    [row] = table[table["reason"].notna()].to_dict("records")
    assert row["path"] == "test/missing/000.png"
    assert row["rejected"]
    assert row["score"] == NOTHING_TO_SCORE


def test_verdicts_on_files_and_batches_have_the_reason(evaluated: Project, tmp_path: Path) -> None:
    absent = save(tmp_path / "in" / "absent.png", part(9, absent=True))
    save(tmp_path / "in" / "good.png", part(9))
    model = str(evaluated.place.detector)
    code, out, err = evaluated.run("predict", str(tmp_path / "in"), "--model", model, "--heatmaps", str(tmp_path / "h"))
    assert code == 0
    first, second = out.splitlines()[1:]
    assert first.split("\t")[0] == "reject"
    assert first.split("\t")[2:] == ["-", str(absent)]
    assert second.split("\t")[2] != "-"
    assert f"{absent}: part not found: " in err
    with Image.open(tmp_path / "h" / "absent.png") as drawn:
        assert drawn.size == (WIDTH, HEIGHT)
    code, out, err = evaluated.run(
        "batch-predict", str(tmp_path / "in"), "--model", model, "--out", str(tmp_path / "t.csv")
    )
    assert code == 0, err
    table = pd.read_csv(tmp_path / "t.csv").set_index("path")
    assert table.loc["absent.png", "rejected"]
    assert table.loc["absent.png", "reason"].startswith("part not found: ")
    assert pd.isna(table.loc["good.png", "reason"])
    assert table["error"].isna().all()


def test_a_published_version_answers_with_the_reason(evaluated: Project, tmp_path: Path) -> None:
    evaluated.done("register")
    registry = evaluated.registry
    folder = registry.download_model(registry.version(LINE, 1), tmp_path / "model")

    def encoded(pixels: Any) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    with PublishedModel(folder) as model:
        absent, good = model.predict([encoded(part(9, absent=True)), encoded(part(9))], heatmaps=True)
    assert (absent.rejected, absent.error) == (True, "")
    assert absent.reason.startswith("part not found: ")
    assert absent.score == NOTHING_TO_SCORE
    assert absent.heatmap is not None
    assert not absent.heatmap.any()
    assert good.reason == ""


def test_a_region_is_drawn_over_parts_in_line_and_its_anchor_is_asked_for(evaluated: Project) -> None:
    code, out, err = evaluated.run("region")
    assert code == 0, err
    [template] = evaluated.place.report.glob("region-template-*.png")
    anchor = template.stem.rpartition("-")[2]
    assert f"parts are put where the picture {anchor} has its own" in out
    picture = Image.open(template).convert("RGB")
    grey = np.asarray(picture.convert("L"), float)
    assert np.abs(np.diff(grey, axis=0)).max() > 60  # sharp: parts that lie anywhere have a mean without edges
    named = next(file for file in evaluated.camera.rglob("*.png") if sha256_file(file).startswith(anchor))
    own = np.asarray(Image.open(named).convert("L"), float)
    assert np.corrcoef(own.ravel(), grey.ravel())[0, 1] > 0.95
    ImageDraw.Draw(picture).rectangle((20, 20, 100, 80), fill=(0, 255, 0))
    picture.save(template)
    code, out, err = evaluated.run("region", "--from", str(template))
    assert code == 0, err
    region = YAML(typ="safe").load(out)["region"]
    assert region["anchor"] == anchor
    try:
        configured(evaluated, region={**region, "anchor": ""})
        assert_told(evaluated.run("train"), 2, "train.region has no `anchor`", f"morphad region {LINE}")
        configured(evaluated, region={**region, "anchor": "0" * 12})
        assert_told(evaluated.run("train"), 2, "no good picture has the SHA-256 000000000000...")
        configured(evaluated, region=region)
        evaluated.done("train", "calibrate", "evaluate")
        figures = read_json(evaluated.place.report / "metrics.json")
        assert figures["region"]["masks_outside"] == 0
        assert figures["pixel_auroc"] > 0.8
    finally:
        configured(evaluated)


def test_pictures_of_several_sizes_are_named_before_any_is_read(tmp_path: Path) -> None:
    project = Project(tmp_path)
    camera(project.camera)
    save(project.camera / "train/good/999.png", part(1)[:-2])
    configured(project)
    project.done("ingest", "split")
    assert_told(project.run("train"), 2, "999.png is 94 x 128 px, but train.align was learned on", "96 x 128 px")


def test_a_trial_rejects_a_picture_without_the_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**ALIGNED, "align": "none"}
    monkeypatch.setattr(presets, "PRESETS", MappingProxyType({"default": small, "fast": small}))
    monkeypatch.chdir(tmp_path)
    for i, warp in enumerate(anywhere(30, 1)):
        save(tmp_path / "caps" / f"{i:03}.png", part(i, warp))
    absent = save(tmp_path / "absent.png", part(9, absent=True))
    other = save(tmp_path / "other.png", part(9)[:-1])
    assert main(["try", "caps", "--align", "shift", "--also", str(absent), str(other)]) == 2
    out = capsys.readouterr().out
    assert f"{absent}\tpart not found: " in out
    assert "other.png: is 95 x 128 px" in out
    assert "part not found: agrees with" in Path("try.html").read_text()


@pytest.mark.parametrize("value", ["yes", "rotation", True])
def test_another_value_is_named_with_those_there_are(value: Any, tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.configure(train={**TRAIN, "align": value})
    assert_told(project.run("train"), 2, f"lines.{LINE}.train.align", "none", "shift", "similarity")


def test_shapes_of_a_line_without_align_need_no_anchor(make_set: Callable[..., Path], tmp_path: Path) -> None:
    project = Project(tmp_path)
    make_set(project.camera, good=30)
    project.configure(ingest={"path": str(project.camera)}, split={"near_duplicate_bits": 0})
    project.done("ingest")
    code, out, err = project.run("region")
    assert code == 0, err
    assert "parts are put" not in out
    assert (project.place.report / "region-template.png").exists()
