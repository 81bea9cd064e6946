"""A published version as what was published: its own code and decoding, in a process of its own, whatever is here."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import morphad
from morphad.base.errors import BadInputError, ServiceError
from morphad.base.files import sha256_json
from morphad.cli import main
from morphad.inspection import DetectorModel, score_files
from morphad.model.detector import Detector
from morphad.model.storage import FORMAT_VERSION
from morphad.registry import DatasetFacts, Registry, published, worker
from morphad.registry.published import PublishedModel
from morphad.settings import Decoding, RegisterSettings

TWELVE_BITS = Decoding(white_level=4095)


def encoded(pixels: "np.ndarray[Any, Any]", kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def twelve_bits(seed: int, shape: tuple[int, int] = (40, 48)) -> bytes:
    """Pixels as the tiny detector learned them, from a camera of 12 bits."""
    grey = np.random.default_rng(seed).normal(120, 10, shape).clip(0, 255)
    return encoded((grey * 16).astype(np.uint16))


PICTURES = [*map(twelve_bits, range(20)), encoded(np.full((32, 32), 120, np.uint8), "JPEG")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry, whose name no URL would hold as it is."""
    return tmp_path_factory.mktemp("Prüfung #1, 100 %")


@pytest.fixture(scope="module")
def registry(store: Path) -> Registry:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Registry(RegisterSettings(tracking_uri=f"sqlite:///{store / 'mlflow.db'}"))


@pytest.fixture(scope="module")
def detector(tiny_detector: Path, place: Path) -> Path:
    """The tiny detector, as trained on images of a camera of 12 bits."""
    loaded = Detector.load(tiny_detector)
    loaded.decoding = TWELVE_BITS
    loaded.save(place / "detector")
    return place / "detector"


def publish(registry: Registry, line: str, detector: Path, place: Path) -> Path:
    """Publish and promote a detector, and fetch the version."""
    report = place / f"report of {line}"
    report.mkdir()
    (report / "index.html").write_text("<h1>report</h1>")
    facts = DatasetFacts(Path("data/x/manifest.parquet"), "a" * 64, "f" * 64)
    done = registry.publish(line, detector, report, params={}, metrics={}, tags={}, dataset=facts)
    version = registry.promote(line, done.version, {"reasons": ["first"]}, "test")
    return registry.download_model(version, place / line)


@pytest.fixture(scope="module")
def version(registry: Registry, detector: Path, place: Path) -> Path:
    return publish(registry, "of-now", detector, place)


@pytest.fixture(scope="module")
def model(version: Path) -> Iterator[PublishedModel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
        with PublishedModel(version, "models:/morphad-of-now/1") as started:
            yield started


@pytest.fixture(scope="module")
def here(detector: Path) -> DetectorModel:
    return DetectorModel(Detector.load(detector))


@pytest.fixture(scope="module")
def scores_in_16_bits(tiny_detector: Path) -> list[float | None]:
    """What comes of pictures of 12 bits that are read as if they had 16: all are dark."""
    return [answer.score for answer in DetectorModel(Detector.load(tiny_detector)).predict(PICTURES)]


@pytest.mark.parametrize("heatmaps", [False, True])
def test_it_answers_as_the_detector_does(
    model: PublishedModel, here: DetectorModel, scores_in_16_bits: list[float | None], heatmaps: bool
) -> None:
    there = list(model.predict(PICTURES, heatmaps=heatmaps))
    expected = list(here.predict(PICTURES, heatmaps=heatmaps))
    assert model.threshold == here.threshold
    assert model.decoding == TWELVE_BITS
    assert [answer.score for answer in there] == pytest.approx([answer.score for answer in expected], rel=1e-5)
    assert [answer.p_value for answer in there] == [answer.p_value for answer in expected]
    assert [answer.rejected for answer in there] == [answer.rejected for answer in expected]
    assert [answer.score for answer in there] != pytest.approx(scores_in_16_bits, rel=0.1)
    for one, other in zip(there, expected, strict=True):
        assert (one.heatmap is None) == (other.heatmap is None) == (not heatmaps)
        if one.heatmap is not None and other.heatmap is not None:
            assert one.heatmap == pytest.approx(other.heatmap, abs=0.6 / 255)


def test_images_that_cannot_be_read_spoil_no_other(model: PublishedModel, here: DetectorModel) -> None:
    images = PICTURES.copy()
    images[3], images[7], images[19] = b"", PICTURES[7][:200], b"no image"
    there, expected = list(model.predict(images)), list(here.predict(images))
    assert [answer.error for answer in there] == [answer.error for answer in expected]
    assert [number for number, answer in enumerate(there) if answer.error] == [3, 7, 19]
    assert there[3].error == "is empty (0 bytes)"
    for one, other in zip(there, expected, strict=True):
        assert one.score == (None if other.score is None else pytest.approx(other.score, rel=1e-5))
        assert one.rejected == other.rejected


def test_who_leaves_off_in_the_middle_can_ask_again(model: PublishedModel, here: DetectorModel) -> None:
    next(model.predict(PICTURES * 3))
    assert [answer.score for answer in model.predict(PICTURES[:2])] == pytest.approx(
        [answer.score for answer in here.predict(PICTURES[:2])], rel=1e-5
    )
    assert list(model.predict([])) == []


def test_a_large_image_has_a_heatmap_of_its_size(model: PublishedModel) -> None:
    (answer,) = model.predict([twelve_bits(0, (3001, 2003))], heatmaps=True)
    assert answer.heatmap is not None
    assert answer.heatmap.shape == (3001, 2003)
    assert 0 <= answer.heatmap.min() <= answer.heatmap.max() <= 1


def test_images_are_taken_as_they_are_needed(model: PublishedModel) -> None:
    ahead = most = 0

    def images() -> Iterator[bytes]:
        nonlocal ahead, most
        for _ in range(200):
            ahead += 1
            most = max(most, ahead)
            yield PICTURES[0]

    for _ in model.predict(images()):
        ahead -= 1
    assert (ahead, most <= 48) == (0, True)


def test_files_are_scored_and_the_one_that_cannot_be_is_named(
    model: PublishedModel, here: DetectorModel, tmp_path: Path
) -> None:
    files = [tmp_path / f"größe {number}.png" for number in range(3)]
    for file, picture in zip(files, PICTURES, strict=False):
        file.write_bytes(picture)
    scores = score_files(model, files, "scoring")
    assert scores == pytest.approx([answer.score for answer in here.predict(PICTURES[:3])], rel=1e-5)
    files[1].write_bytes(PICTURES[1][:100])
    with pytest.raises(BadInputError, match=r"größe 1\.png: damaged or not supported"):
        score_files(model, files, "scoring")
    files[1].unlink()
    with pytest.raises(BadInputError, match=r"größe 1\.png: not found"):
        score_files(model, files, "scoring")


def test_its_process_has_nobodys_credentials(model: PublishedModel) -> None:
    assert model._process is not None
    environment = Path(f"/proc/{model._process.pid}/environ").read_text()
    assert "s3cret" not in environment
    assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false" in environment


def test_a_version_of_another_format_is_scored_with_its_own_code_and_decoding(
    registry: Registry, detector: Path, here: DetectorModel, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published by another morphad: its detector has another format, and its code reads no other."""
    package = Path(shutil.copytree(Path(morphad.__file__).parent, place / "earlier" / "morphad"))
    module = package / "model" / "storage.py"
    text = module.read_text()
    assert f"FORMAT_VERSION = {FORMAT_VERSION}\n" in text
    module.write_text(text.replace(f"FORMAT_VERSION = {FORMAT_VERSION}\n", "FORMAT_VERSION = 77\n"))
    old = Path(shutil.copytree(detector, place / "old"))
    description = json.loads((old / "detector.json").read_text())
    del description["own_sha256"]
    description["format_version"] = 77
    text = json.dumps({**description, "own_sha256": sha256_json(description)})
    (old / "detector.json").write_text(text)
    with pytest.raises(BadInputError, match="format version 77"):
        Detector.load(old)
    with monkeypatch.context() as patch:
        patch.setattr(morphad, "__file__", str(package / "__init__.py"))
        folder = publish(registry, "of-then", old, place)
    with PublishedModel(folder) as model:
        answers = list(model.predict(PICTURES))
        assert model.threshold == here.threshold
    expected = list(here.predict(PICTURES))
    assert [answer.score for answer in answers] == pytest.approx([answer.score for answer in expected], rel=1e-5)
    assert [answer.rejected for answer in answers] == [answer.rejected for answer in expected]


def test_a_process_that_is_killed_is_told_and_leaves_nothing(version: Path) -> None:
    with PublishedModel(version, "models:/morphad-of-now/1") as model:
        process = model._process
        assert process is not None
        answers = model.predict(PICTURES * 5)
        next(answers)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ServiceError, match=r"^models:/morphad-of-now/1: .* ended by SIGKILL.*memory.*run it again"):
            list(answers)
    assert process.returncode == -signal.SIGKILL
    assert not Path(f"/proc/{process.pid}").exists()
    with pytest.raises(ServiceError, match="does not run"):
        list(model.predict(PICTURES))


@pytest.fixture
def copied(version: Path, tmp_path: Path) -> Path:
    """A version to be changed."""
    return Path(shutil.copytree(version, tmp_path / "copied"))


def test_a_version_that_needs_what_is_not_there_says_what(copied: Path) -> None:
    (copied / "code" / "morphad" / "model" / "detector.py").write_text("import a_package_of_then\n")
    with pytest.raises(ServiceError, match=r"cannot be loaded here \(.*a_package_of_then.*requirements\.txt"):
        PublishedModel(copied).__enter__()


def test_the_code_of_here_is_no_stand_in_for_that_of_the_version(copied: Path) -> None:
    shutil.rmtree(copied / "code")
    (copied / "code").mkdir()
    with pytest.raises(ServiceError, match=r"cannot be loaded here \((ModuleNotFoundError|ImportError)"):
        PublishedModel(copied).__enter__()


def test_a_process_that_takes_too_long_to_start_is_ended(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_START_SECONDS", 0.05)
    model = PublishedModel(version)
    with pytest.raises(ServiceError, match="did not start within"):
        model.__enter__()
    assert model._process is None


def test_the_process_ends_when_nobody_asks_any_more(version: Path) -> None:
    """Also one that is still loading: what was killed cannot end it."""
    process = subprocess.Popen([sys.executable, "-P", worker.__file__, str(version)], stdin=subprocess.PIPE)
    assert process.stdin is not None
    started = time.monotonic()
    process.stdin.close()
    assert process.wait(60) == 0
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("missing", ["MLmodel", "artifacts/detector/detector.json"])
def test_a_folder_that_is_no_version_is_told(copied: Path, missing: str) -> None:
    (copied / missing).unlink()
    with pytest.raises(BadInputError, match=missing.rsplit("/", maxsplit=1)[-1]):
        PublishedModel(copied)


@pytest.fixture
def project(registry: Registry, version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose settings decode otherwise than the champion of its line, with six pictures in `in`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number, picture in enumerate(PICTURES[:6]):
        (tmp_path / "in" / f"{number:02}.png").write_bytes(picture)
    (tmp_path / "params.yaml").write_text(f"lines: {{{version.name}: {{ingest: {{path: in, white_level: 65535}}}}}}\n")
    return tmp_path


def test_verbs_judge_as_the_version_does_whatever_the_settings_say_now(
    project: Path, here: DetectorModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "of-now", "in", "--heatmaps", "maps"]) == 0
    said = capsys.readouterr()
    assert said.err == "# model: models:/morphad-of-now/1\n"
    expected = [
        (
            {True: "reject", False: "accept"}[bool(answer.rejected)],
            f"{answer.p_value:.4f}",
            f"{answer.score:.4f}",
        )
        for answer in here.predict(PICTURES[:6])
    ]
    assert "accept" in {verdict for verdict, _, _ in expected}
    rows = [row.split("\t") for row in said.out.splitlines()[1:]]
    assert [tuple(row[:2]) for row in rows] == [one[:2] for one in expected]
    assert [float(row[2]) for row in rows] == pytest.approx([float(one[2]) for one in expected], abs=2e-4)
    with Image.open(project / "maps" / "00.png") as drawn:
        assert drawn.size == (48, 40)
        assert np.asarray(drawn).mean() > 60  # the image beneath is as bright as the version sees it

    assert main(["batch-predict", "of-now", "in", "--out", "table.csv"]) == 0
    table = [row.split(",") for row in (project / "table.csv").read_text().splitlines()]
    column = {name: [row[i] for row in table[1:]] for i, name in enumerate(table[0])}
    assert column["rejected"] == [str(verdict == "reject") for verdict, _, _ in expected]
    assert [f"{float(value):.4f}" for value in column["p_value"]] == [p_value for _, p_value, _ in expected]
    assert set(column["model"]) == {"models:/morphad-of-now/1"}
