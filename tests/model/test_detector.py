"""The detector as a whole: fitted, calibrated, stored, damaged, read again."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import SafetensorError

from morphad.base.errors import BadInputError
from morphad.model import storage as module
from morphad.model.detector import Detector
from morphad.model.records import Prediction
from morphad.settings import CalibrateSettings, TrainSettings
from morphad.settings.presets import train_settings

Pixels = NDArray[np.uint8]


def settings(**changed: Any) -> TrainSettings:
    return train_settings(
        {
            "device": "cpu",
            "image_size": (32, 48),
            "backbone": "small",
            "weights": "none",
            "cases": {"heights": (1, 3), "widths": (1, 3)},
            "optimiser": {"steps": 2, "batch_size": 4, "precision": "float32"},
            "score": {"layers": ("stage2",), "channels": 8, "memory": 50},
            **changed,
        }
    )


def parts(count: int, seed: int, *shape: int) -> list[Pixels]:
    rng = np.random.default_rng(seed)
    return [rng.normal(120, 10, shape or (40, 60, 3)).clip(0, 255).astype(np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def fitted() -> Detector:
    detector = Detector(settings(), seed=3).fit(parts(20, 0))
    return detector.calibrate(parts(25, 1), CalibrateSettings(false_reject_rate=0.1))


@pytest.fixture
def stored(fitted: Detector, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "detector")
    return tmp_path / "detector"


def assert_equal(left: Detector, right: Detector, images: list[Pixels]) -> None:
    assert np.array_equal(left.score_samples(images), right.score_samples(images))
    for one, other in zip(left.predict(images), right.predict(images), strict=True):
        assert (one.score, one.rejected, one.p_value) == (other.score, other.rejected, other.p_value)
        assert np.array_equal(one.heatmap, other.heatmap)


class TestUse:
    def test_predictions_agree_with_scores_threshold_and_calibration(self, fitted: Detector) -> None:
        assert fitted.calibration_ is not None
        images = [*parts(20, 2), np.zeros((40, 60, 3), np.uint8)]
        scores = fitted.score_samples(images)
        predictions = list(fitted.predict(iter(images)))

        assert scores.dtype == np.float64
        assert [p.score for p in predictions] == scores.tolist()
        assert [p.rejected for p in predictions] == (scores > fitted.calibration_.threshold).tolist()
        assert [p.p_value for p in predictions] == fitted.calibration_.p_values(scores).tolist()
        assert predictions[-1].rejected is True
        assert predictions[-1].p_value == pytest.approx(1 / 26)

    def test_heatmaps_have_the_size_of_their_images(self, fitted: Detector) -> None:
        images = [*parts(1, 0, 40, 60), *parts(1, 0, 90, 31, 3), *parts(1, 0, 7, 200), *parts(1, 0, 1, 1)]
        for image, prediction in zip(images, fitted.predict(images), strict=True):
            assert prediction.heatmap.shape == image.shape[:2]
            assert prediction.heatmap.dtype == np.float32
            assert np.isfinite(prediction.heatmap).all()

    def test_an_image_is_scored_alone(self, fitted: Detector) -> None:
        images = parts(20, 2)
        alone = np.concatenate([fitted.score_samples([image]) for image in images])
        np.testing.assert_allclose(alone, fitted.score_samples(images), rtol=1e-4, atol=1e-4)

    def test_the_heatmap_scale_is_fixed_with_the_threshold_in_the_middle(self, fitted: Detector) -> None:
        assert fitted.calibration_ is not None
        assert fitted.heatmap_scale_ is not None
        low, high = fitted.heatmap_scale_
        assert low < high
        assert (low + high) / 2 == pytest.approx(fitted.calibration_.threshold, rel=1e-6)

    def test_grey_images_are_the_same_as_repeated_ones(self, fitted: Detector) -> None:
        grey = parts(3, 5, 40, 60)
        repeated = [np.repeat(image[..., None], 3, axis=2) for image in grey]
        assert np.array_equal(fitted.score_samples(grey), fitted.score_samples(repeated))

    def test_views_and_read_only_arrays_are_taken(self, fitted: Detector) -> None:
        image = parts(1, 5)[0]
        turned = np.ascontiguousarray(image[::-1])[::-1]
        turned.flags.writeable = False
        assert np.array_equal(fitted.score_samples([turned]), fitted.score_samples([image]))

    def test_a_grey_detector_takes_grey_and_colour(self) -> None:
        detector = Detector(settings(colour="grey"), seed=0).fit(parts(20, 0, 40, 60))
        assert np.isfinite(detector.score_samples([*parts(2, 1, 40, 60), *parts(2, 1)])).all()

    def test_no_images_give_no_scores(self, fitted: Detector) -> None:
        assert fitted.score_samples([]).shape == (0,)
        assert list(fitted.predict([])) == []

    @pytest.mark.parametrize(
        "image",
        [
            np.zeros((8, 8), np.float32),
            np.zeros((8, 8), np.uint16),
            np.zeros((8, 8, 4), np.uint8),
            np.zeros((8, 8, 1), np.uint8),
            np.zeros(8, np.uint8),
            np.zeros((2, 8, 8, 3), np.uint8),
            np.zeros((0, 8), np.uint8),
            np.zeros((8, 0, 3), np.uint8),
        ],
    )
    def test_what_is_no_image_is_told(self, fitted: Detector, image: NDArray[Any]) -> None:
        with pytest.raises(BadInputError, match=r"expected an image uint8 \[H, W\] or \[H, W, 3\], got"):
            fitted.score_samples([image])
        with pytest.raises(BadInputError, match="expected an image"):
            Detector(settings()).fit([image])


class TestFit:
    def test_equal_seeds_give_equal_detectors(self, fitted: Detector) -> None:
        again = Detector(settings(), seed=3).fit(parts(20, 0))
        again.calibrate(parts(25, 1), CalibrateSettings(false_reject_rate=0.1))
        assert_equal(again, fitted, parts(5, 2))
        other = Detector(settings(), seed=4).fit(parts(20, 0))
        assert not np.array_equal(other.score_samples(parts(5, 2)), fitted.score_samples(parts(5, 2)))

    def test_fitted_again_it_forgets_what_was_before(self, fitted: Detector) -> None:
        twice = Detector(settings(), seed=3).fit(parts(20, 7))
        twice.calibrate(parts(25, 1), CalibrateSettings(false_reject_rate=0.1))
        twice.fit(parts(20, 0))
        assert twice.calibration_ is None
        assert twice.heatmap_scale_ is None
        assert np.array_equal(twice.score_samples(parts(5, 2)), fitted.score_samples(parts(5, 2)))

    def test_too_few_images_are_told_before_any_training(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def train(*_: object) -> None:
            raise AssertionError("trained in vain")

        monkeypatch.setattr("morphad.model.training.fit.train_network", train)
        with pytest.raises(BadInputError, match="at least 10 good training images, got 9; add images"):
            Detector(settings()).fit(parts(9, 0))
        with pytest.raises(BadInputError, match="no good images to train on"):
            Detector(settings()).fit([])

    def test_layers_that_the_backbone_lacks_are_told(self) -> None:
        with pytest.raises(BadInputError, match=r"train\.score\.layers = \['blocks\.1'\]: small has no layer"):
            Detector(settings(score={"layers": ("blocks.1",)})).fit(parts(20, 0))

    def test_an_unfitted_detector_says_so(self, tmp_path: Path) -> None:
        detector = Detector(settings())
        for use in (
            lambda: detector.score_samples(parts(1, 0)),
            lambda: list(detector.predict(parts(1, 0))),
            lambda: detector.save(tmp_path / "x"),
            lambda: detector.calibrate(parts(1, 0), CalibrateSettings()),
        ):
            with pytest.raises(BadInputError, match="not fitted"):
                use()
        assert list(tmp_path.iterdir()) == []


class TestCalibration:
    def test_too_few_images_leave_no_threshold_and_say_how_many_are_needed(self, tmp_path: Path) -> None:
        detector = Detector(settings(), seed=3).fit(parts(20, 0))
        detector.calibrate(parts(5, 1), CalibrateSettings(false_reject_rate=0.05))
        assert detector.calibration_ is not None
        assert detector.calibration_.threshold is None
        assert "at least 19" in detector.calibration_.guarantee
        assert detector.heatmap_scale_ is not None

        detector.save(tmp_path / "detector")
        for used in (detector, Detector.load(tmp_path / "detector")):
            prediction = next(used.predict(parts(1, 2)))
            assert prediction.rejected is None
            assert prediction.p_value is not None

    def test_without_calibration_there_is_neither_verdict_nor_p_value(self, tmp_path: Path) -> None:
        detector = Detector(settings(), seed=3).fit(parts(20, 0))
        detector.save(tmp_path / "fitted")
        for used in (detector, Detector.load(tmp_path / "fitted")):
            prediction = next(used.predict(parts(1, 2)))
            assert (prediction.rejected, prediction.p_value) == (None, None)
            assert used.calibration_ is None
            assert used.heatmap_scale_ is None

    def test_no_images_are_refused(self, fitted: Detector) -> None:
        with pytest.raises(BadInputError, match="no good images to calibrate on"):
            fitted.calibrate([], CalibrateSettings())
        assert fitted.calibration_ is not None


class TestFolder:
    @pytest.mark.parametrize("kind", ["density", "transformation"])
    def test_what_is_stored_reads_back_the_same(self, kind: str, tmp_path: Path) -> None:
        score = {"kind": kind, "layers": ("stage2",), "channels": 8, "memory": 50, "cases": 2}
        detector = Detector(settings(score=score), seed=3).fit(parts(20, 0))
        detector.calibrate(parts(25, 1), CalibrateSettings(false_reject_rate=0.1))
        detector.save(tmp_path / "detector")
        read = Detector.load(tmp_path / "detector")

        assert_equal(read, detector, parts(5, 2))
        assert read.settings == detector.settings
        assert (read.seed, read.table) == (detector.seed, detector.table)
        assert read.calibration_ == detector.calibration_
        assert read.heatmap_scale_ == detector.heatmap_scale_
        assert read.training_ == detector.training_
        read.save(tmp_path / "again")
        assert {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()} == {
            file.name: file.read_bytes() for file in (tmp_path / "detector").iterdir()
        }

    def test_nothing_in_it_can_be_executed(self, stored: Path) -> None:
        assert sorted(file.name for file in stored.iterdir()) == [
            "detector.json",
            "network.safetensors",
            "scorer.safetensors",
        ]
        assert all(not file.read_bytes().startswith((b"PK", b"\x80")) for file in stored.iterdir())

    def test_it_can_be_calibrated_anew_after_reading(self, stored: Path) -> None:
        read = Detector.load(stored)
        read.calibrate(parts(25, 1), CalibrateSettings(false_reject_rate=0.5))
        assert read.calibration_ is not None
        assert read.calibration_.false_reject_rate == 0.5
        read.save(stored)
        assert Detector.load(stored).calibration_ == read.calibration_

    @pytest.mark.parametrize("name", ["network.safetensors", "scorer.safetensors"])
    def test_damaged_tensors_are_named(self, name: str, stored: Path) -> None:
        whole = (stored / name).read_bytes()
        flipped = bytearray(whole)
        flipped[-5] ^= 1
        for damaged in (bytes(flipped), whole[: len(whole) // 2], b""):
            (stored / name).write_bytes(damaged)
            with pytest.raises(BadInputError, match="not the file that was saved") as failure:
                Detector.load(stored)
            assert str(stored / name) in str(failure.value)
        (stored / name).unlink()
        with pytest.raises(BadInputError, match="missing"):
            Detector.load(stored)

    @pytest.mark.parametrize(
        "change",
        [
            lambda d: d["settings"].update(image_size=[64, 64]),
            lambda d: d["settings"].update(colour=3),
            lambda d: d["calibration"].update(threshold=1e9),
            lambda d: d["calibration"]["scores"].append(1e9),
            lambda d: d.update(heatmap_scale=None),
            lambda d: d.update(seed=1),
            lambda d: d.update(extra=float("nan")),
            lambda d: d.update(cases=[3]),
            lambda d: d.update(sha256="x"),
            lambda d: d.pop("settings"),
            lambda d: d.pop("own_sha256"),
        ],
    )
    def test_a_changed_description_is_named(self, change: Callable[[dict[str, Any]], object], stored: Path) -> None:
        description = json.loads((stored / "detector.json").read_text())
        change(description)
        (stored / "detector.json").write_text(json.dumps(description))
        with pytest.raises(BadInputError, match="fetch or train it again") as failure:
            Detector.load(stored)
        assert str(stored) in str(failure.value)

    @pytest.mark.parametrize(
        "change",
        [
            lambda d: d.update(cases=[3]),
            lambda d: d.update(cases=["identity"]),
            lambda d: d.update(sha256="x"),
            lambda d: d.update(settings=[]),
            lambda d: d.update(training="x"),
            lambda d: d.update(heatmap_scale=None),
            lambda d: d.update(precision="int4"),
            lambda d: d.pop("calibration"),
        ],
    )
    def test_a_strange_description_with_a_right_hash_is_an_error_too(
        self, change: Callable[[dict[str, Any]], object], stored: Path
    ) -> None:
        description = json.loads((stored / "detector.json").read_text())
        change(description)
        del description["own_sha256"]
        description["own_sha256"] = module.sha256_json(description)
        (stored / "detector.json").write_text(json.dumps(description))
        with pytest.raises(BadInputError) as failure:
            Detector.load(stored)
        assert str(stored) in str(failure.value)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ('{"format_version": 1}', "format version 1, this morphad reads 10"),
            ("[]", "format version None"),
            ("{}", "format version None"),
            ('{"format_version": 1', "not valid JSON"),
            ("", "not valid JSON"),
        ],
    )
    def test_another_format_is_named(self, text: str, told: str, stored: Path) -> None:
        (stored / "detector.json").write_text(text)
        with pytest.raises(BadInputError, match=told) as failure:
            Detector.load(stored)
        assert str(stored / "detector.json") in str(failure.value)

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match=r"nowhere/detector\.json: not found"):
            Detector.load(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        ],
    )
    @pytest.mark.parametrize("failing", ["network", "scorer"])
    def test_a_full_disk_leaves_the_stored_detector_whole(
        self, failing: str, error: Exception, fitted: Detector, stored: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save = module.save_file

        def full(tensors: dict[str, Any], path: Path) -> None:
            if path.name.startswith(failing):
                path.write_bytes(b"half")
                raise error
            save(tensors, path)

        monkeypatch.setattr(module, "save_file", full)
        with pytest.raises(BadInputError, match=r"detector.*: cannot write \(.*No space left"):
            fitted.save(stored)
        assert [entry.name for entry in stored.parent.iterdir()] == ["detector"]
        assert_equal(Detector.load(stored), fitted, parts(2, 2))

    def test_it_works_where_it_was_copied_to(self, stored: Path, fitted: Detector, tmp_path: Path) -> None:
        moved = Path(shutil.copytree(stored, tmp_path / "elsewhere"))
        shutil.rmtree(stored)
        assert_equal(Detector.load(moved), fitted, parts(2, 2))


def test_a_prediction_cannot_be_changed(fitted: Detector) -> None:
    prediction = next(fitted.predict(parts(1, 2)))
    assert isinstance(prediction, Prediction)
    with pytest.raises(AttributeError):
        prediction.rejected = False  # type: ignore[misc]
