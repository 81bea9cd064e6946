"""Steps on files alone: what they write, what they keep, and what a run that was cut off leaves behind."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from morphad.base.errors import BadInputError, CheckFailedError
from morphad.base.files import read_json
from morphad.data.manifest import read_manifest
from morphad.inspection import DetectorModel
from morphad.jobs.predict import find_to_predict, predict
from morphad.model.detector import Detector
from morphad.model.training import loop
from morphad.registry import Registry, detector_hash
from morphad.report.pictures import Example
from morphad.report.verdict import read_verdict
from morphad.settings import IngestSettings, LineSettings, SplitSettings
from morphad.settings.reading import resolve
from morphad.steps.calibrate import calibrate as calibrate_step
from morphad.steps.evaluate import evaluate as evaluate_step
from morphad.steps.ingest import ingest as ingest_step
from morphad.steps.paths import LinePaths
from morphad.steps.reference import follow_champion
from morphad.steps.register import register
from morphad.steps.split import split as split_step
from morphad.steps.train import train as train_step
from tiny import TRAIN

LINE = "weave"
OPTIMISER = {**TRAIN["optimiser"], "steps": 4}


def settings_of(camera: Path, **sections: Any) -> LineSettings:
    own = {
        "ingest": {"path": str(camera)},
        "train": {**TRAIN, "checkpoint_seconds": 0, "optimiser": OPTIMISER},
        "calibrate": {"false_reject_rate": 0.2},
        "evaluate": {"bootstrap": 100},
        **sections,
    }
    return resolve({"lines": {LINE: own}}).line(LINE)


@pytest.fixture
def camera(tmp_path: Path, make_set: Callable[..., Path]) -> Path:
    return make_set(tmp_path / "camera", good=40, test_good=4, defects=4)


@pytest.fixture
def place(tmp_path: Path) -> LinePaths:
    return LinePaths.checkout(tmp_path / "project", LINE)


def ingest(place: LinePaths, settings: LineSettings) -> dict[str, Any]:
    return ingest_step(settings, place)


def split(place: LinePaths, settings: LineSettings) -> dict[str, Any]:
    return split_step(settings, place, 0)


def train(place: LinePaths, settings: LineSettings) -> dict[str, Any]:
    return train_step(settings, place, 0)


def calibrate(place: LinePaths, settings: LineSettings) -> dict[str, Any]:
    return calibrate_step(settings, place)


def evaluate(place: LinePaths, settings: LineSettings, detector: Path | None = None) -> dict[str, Any]:
    return evaluate_step(settings, place if detector is None else replace(place, detector=detector), 0)


def test_a_line_run_twice_gives_the_same_bytes(camera: Path, place: LinePaths) -> None:
    settings = settings_of(camera)

    def run() -> dict[str, bytes]:
        ingest(place, settings)
        split(place, settings)
        train(place, settings)
        calibrate(place, settings)
        evaluate(place, settings)
        kept = [path for path in place.manifest.parents[2].rglob("*") if path.is_file() and path.name != "index.html"]
        kept = [path for path in kept if place.memory not in path.parents]
        return {str(path.relative_to(place.manifest.parents[2])): path.read_bytes() for path in kept}

    first = run()
    second = run()
    # The page says when it was made; all else is the same, so DVC has nothing new to store.
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_images_of_several_sizes_are_evaluated_each_at_its_own(camera: Path, place: LinePaths) -> None:
    rng = np.random.default_rng(0)
    for i, size in enumerate([(70, 41), (33, 90)]):
        image, mask = rng.integers(60, 200, size, dtype=np.uint8), np.zeros(size, np.uint8)
        image[10:20, 10:20], mask[10:20, 10:20] = 255, 255
        for part, name, pixels in (("test", f"odd{i}.png", image), ("ground_truth", f"odd{i}_mask.png", mask)):
            (camera / part / "=odd").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(camera / part / "=odd" / name)
    settings = settings_of(camera)
    ingest(place, settings)
    split(place, settings)
    train(place, settings)
    calibrate(place, settings)
    figures = evaluate(place, settings)

    assert figures["n_masks"] == 6
    predictions = pd.read_csv(place.report / "predictions.csv")
    assert list(predictions) == ["path", "label", "defect", "score", "rejected", "p_value"]
    assert len(predictions) == figures["n_good"] + figures["n_defect"]
    rows = read_manifest(place.split)
    assert set(predictions["defect"].dropna()) == {"spot", "'=odd"}  # no formula for a spreadsheet
    assert set(predictions["path"]) == set(rows.loc[rows["role"] == "holdout", "path"])


def test_pictures_of_the_holdout_are_scored_once_and_those_on_the_page_have_these_heatmaps(
    camera: Path, place: LinePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(camera)
    for step in (ingest, split, train, calibrate):
        step(place, settings)
    scored: list[Any] = []
    shown: list[Any] = []
    predict_all, make = Detector.predict, Example.of

    def counting(model: Detector, images: Any) -> Any:
        for prediction in predict_all(model, images):
            scored.append(prediction)
            yield prediction

    def noting(image: Any, prediction: Any, **facts: Any) -> Example:
        shown.append(prediction)
        return make(image, prediction, **facts)

    monkeypatch.setattr(Detector, "predict", counting)
    monkeypatch.setattr(Example, "of", noting)
    figures = evaluate(place, settings)
    assert len(scored) == figures["n_good"] + figures["n_defect"]
    assert len(shown) > 4
    for drawn in shown:
        (found,) = [each for each in scored if each.score == drawn.score]
        assert (drawn.rejected, drawn.p_value) == (found.rejected, found.p_value)
        np.testing.assert_array_equal(drawn.heatmap, found.heatmap)


def test_the_holdout_stays_while_images_are_added_and_is_missed_when_they_go(
    camera: Path, place: LinePaths, make_set: Callable[..., Path], tmp_path: Path
) -> None:
    settings = settings_of(camera)
    ingest(place, settings)
    first = split(place, settings)
    held = place.holdout.read_bytes()
    more = make_set(tmp_path / "more", good=20, test_good=0, defects=3, seed=5)
    for path in [*(more / "train" / "good").iterdir(), *(more / "test" / "spot").iterdir()]:
        target = camera / path.relative_to(more)
        path.rename(target.with_name(f"new-{path.name}"))
    ingest(place, settings)
    second = split(place, settings)
    assert place.holdout.read_bytes() == held
    assert second["holdout_id"] == first["holdout_id"]
    assert second["train"] > first["train"]
    assert second["excluded"] >= 3  # defects that came later

    gone = json.loads(held)["images"][0]["path"]
    (camera / gone).unlink()
    for mask in (camera / "ground_truth").rglob(f"{Path(gone).stem}_mask.png"):
        mask.unlink()
    ingest(place, settings)
    with pytest.raises(CheckFailedError, match="missing") as failure:
        split(place, settings)
    assert gone in str(failure.value)
    assert place.holdout.read_bytes() == held
    renewed = split(place, settings.model_copy(update={"split": SplitSettings(renew_holdout=True)}))
    assert renewed["holdout_id"] != first["holdout_id"]


def test_a_training_that_was_cut_off_goes_on_and_ends_the_same(
    camera: Path, place: LinePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(camera)
    ingest(place, settings)
    split(place, settings)
    train(place, settings)
    unbroken = detector_hash(place.fitted)
    assert not place.checkpoint.exists()

    step = loop._Loop.step

    def cut(self: Any, number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt
        step(self, number)

    before = (place.fitted / "detector.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(loop._Loop, "step", cut)
        with pytest.raises(KeyboardInterrupt):
            train(place, settings)
    assert place.checkpoint.exists()
    assert (place.fitted / "detector.json").read_bytes() == before  # what was there still is
    assert train(place, settings)["resumed_from"] == 3
    assert detector_hash(place.fitted) == unbroken  # the same in the registry, too
    assert not place.checkpoint.exists()


def test_a_detector_without_calibration_is_not_evaluated(camera: Path, place: LinePaths) -> None:
    settings = settings_of(camera)
    ingest(place, settings)
    split(place, settings)
    train(place, settings)
    with pytest.raises(BadInputError, match=r"fitted: has no calibration; run `morphad calibrate weave`"):
        evaluate(place, settings, place.fitted)
    assert not place.report.exists()


def test_a_snapshot_that_was_damaged_is_told_by_file(camera: Path, place: LinePaths) -> None:
    settings = settings_of(camera)
    ingest(place, settings)
    split(place, settings)
    rows = read_manifest(place.split)
    victim = place.snapshot / str(rows.loc[rows["role"] == "train", "path"].iloc[3])
    os.truncate(victim, 50)
    with pytest.raises(BadInputError, match=r"run `morphad ingest .*` again") as failure:
        train(place, settings)
    assert victim.name in str(failure.value)
    assert not place.fitted.exists()


def test_a_manifest_is_no_split(camera: Path, place: LinePaths) -> None:
    settings = settings_of(camera)
    ingest(place, settings)
    place.split.write_bytes(place.manifest.read_bytes())
    with pytest.raises(BadInputError, match="no column `role`; run `morphad split` first"):
        train(place, settings)


def test_a_new_ingest_replaces_the_snapshot_as_a_whole(camera: Path, place: LinePaths) -> None:
    settings = settings_of(camera)
    first = ingest(place, settings)
    (camera / "train" / "good" / "000.png").unlink()
    second = ingest(place, settings)
    assert not (place.snapshot / "train" / "good" / "000.png").exists()
    assert second["good"] == first["good"] - 1
    assert second["data_hash"] != first["data_hash"]
    assert [path.name for path in place.snapshot.parent.iterdir() if path.name.startswith(".")] == []


def test_a_registered_version_is_described_by_its_card(
    camera: Path, place: LinePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MORPHAD_IMAGE_DIGEST", "sha256:feed")
    settings = settings_of(camera, register={"tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"})
    ingest(place, settings)
    split(place, settings)
    train(place, settings)
    calibrate(place, settings)
    evaluate(place, settings)
    done = register(settings, place)
    with Registry(settings.register_)._connection.session() as client:
        version = client.get_model_version(done["model_name"], str(done["version"]))
        card = Path(client.download_artifacts(done["run_id"], "report/card.md")).read_text()
        run = client.get_run(done["run_id"])
        experiment = client.get_experiment(run.info.experiment_id)
    assert version.tags["image_digest"] == "sha256:feed"
    assert version.description == card
    assert run.data.tags["mlflow.note.content"] == card  # what the run's page shows
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"  # its page begins with runs
    figures = read_json(place.report / "metrics.json")
    assert set(run.data.metrics) == {
        "auroc", "auroc_low", "overkill", "overkill_high", "escape", "escape_high", "guaranteed_overkill", "aupro",
        "n",
    }  # fmt: skip
    assert run.data.metrics["auroc"] == figures["image_auroc"]
    assert run.data.metrics["escape_high"] == figures["escape"]["high"]
    assert run.data.metrics["n"] == figures["n_good"] + figures["n_defect"]
    assert f"**{read_verdict(place.report, place.detector).sentence}**" in card
    assert "- `spot`: " in card
    assert "`small` with random weights" in card
    assert "`sha256:feed`" in card
    assert not (place.report / "card.md").exists()  # an output of another step's folder would start that step again


def test_heatmaps_of_one_name_are_refused_by_name(camera: Path, tmp_path: Path) -> None:
    images = [camera / "test" / kind / "000.png" for kind in ("good", "spot")]
    assert find_to_predict([*images, images[0]]) == [(path, None) for path in [*images, images[0]]]
    with pytest.raises(BadInputError, match=r"maps/000\.png: several images"):
        find_to_predict(images, tmp_path / "maps")


def test_heatmaps_of_a_folder_lie_as_its_images_do(tiny_detector: Path, camera: Path, tmp_path: Path) -> None:
    model = DetectorModel(Detector.load(tiny_detector))
    images = find_to_predict([camera / "test"], tmp_path / "maps")
    read = [path for path, _ in predict(model, images, IngestSettings(path="x"))]
    assert read == sorted((camera / "test").rglob("*.png"))
    maps = sorted(path.relative_to(tmp_path / "maps") for path in (tmp_path / "maps").rglob("*.png"))
    assert maps == [path.relative_to(camera / "test") for path in read]


@pytest.fixture
def twelve_bits(camera: Path) -> Path:
    """The same images from a camera of 12 bits, in files of 16."""
    for path in [*(camera / "train").rglob("*.png"), *(camera / "test").rglob("*.png")]:
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 16).save(path)
    return camera


def test_a_detector_keeps_its_decoding_and_is_not_gone_on_with_under_another(
    twelve_bits: Path, place: LinePaths, tmp_path: Path
) -> None:
    settings = settings_of(twelve_bits, ingest={"path": str(twelve_bits), "white_level": 4095})
    changed = settings_of(twelve_bits)
    ingest(place, settings)
    split(place, settings)
    train(place, settings)
    calibrate(place, settings)
    before = detector_hash(place.detector)
    told = "trained with ingest.white_level 4095, settings now say 65535.*run `morphad train weave` again, or set it"
    with pytest.raises(BadInputError, match=told):
        calibrate(place, changed)
    with pytest.raises(BadInputError, match=told):
        evaluate(place, changed)
    assert detector_hash(place.detector) == before
    assert evaluate(place, settings)["n_good"] > 0
    assert Detector.load(place.detector).decoding == settings.ingest.decoding
    detector = Detector.load(place.detector)
    detector.decoding = changed.ingest.decoding
    detector.save(tmp_path / "other")
    assert detector_hash(tmp_path / "other") != before  # another decoding is another detector


def test_a_white_level_that_changes_no_image_stops_nothing(camera: Path, place: LinePaths) -> None:
    settings = settings_of(camera)
    ingest(place, settings)
    split(place, settings)
    train(place, settings)
    calibrate(place, settings_of(camera, ingest={"path": str(camera), "white_level": 4095}))
    assert Detector.load(place.detector).decoding.white_level == 65535


def test_before_the_first_registration_no_champion_is_known(place: LinePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    address = f"sqlite:///{place.manifest.parents[2] / 'mlflow.db'}"
    settings = resolve({"lines": {LINE: {"ingest": {"path": "x"}, "register": {"tracking_uri": address}}}}).line(LINE)
    assert follow_champion(settings, place) is None
    assert len(read_manifest(place.reference)) == 0
    assert not (place.manifest.parents[2] / "mlflow.db").exists()
