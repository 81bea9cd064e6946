"""Where training runs: what is missing is told before images are read, and what was expected but is not there, too."""

from pathlib import Path

import numpy as np
import pytest
import torch

from morphad.base.errors import BadInputError
from morphad.model.detector import Detector
from morphad.model.device import Placement, within_gpu_memory
from morphad.model.network import MorphologyNetwork
from morphad.model.training import placing
from morphad.model.training.placing import place_training
from morphad.settings import IngestSettings, LineSettings, TrainSettings
from morphad.settings.presets import train_settings
from morphad.steps.common import training_facts
from morphad.steps.paths import LinePaths
from morphad.steps.train import train

TINY = {
    "image_size": (32, 32),
    "backbone": "small",
    "weights": "none",
    "cases": {"heights": (1, 3), "widths": (1, 3)},
    "optimiser": {"steps": 2, "batch_size": 4, "precision": "float32"},
    "score": {"layers": ("stage2",), "channels": 8, "memory": 20},
}


def tiny(**values) -> TrainSettings:
    return train_settings({**TINY, **values})


def good(count=16):
    return list(np.random.default_rng(0).integers(0, 255, (count, 32, 32, 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(placing, "_DEVICE_NODE", Path("/no/such/device"))


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)


def test_auto_is_the_cpu_without_a_word_where_no_gpu_is_to_be_expected(monkeypatch):
    assert place_training(tiny()) == Placement(torch.device("cpu"), 1, None, None)
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "all")  # as images of CUDA say on any machine
    assert place_training(tiny()).warning is None
    assert place_training(tiny(device="cpu"), gpus=1).warning is None


@pytest.mark.parametrize("sign", ["step", "device", "container"])
def test_auto_that_falls_back_says_so_and_why(monkeypatch, tmp_path, sign):
    if sign == "device":
        monkeypatch.setattr(placing, "_DEVICE_NODE", tmp_path)
    if sign == "container":
        monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "GPU-0a1b")
    placement = place_training(tiny(), gpus=1 if sign == "step" else 0)
    assert placement.device.type == "cpu"
    told = {"step": "asked for 1 GPU:", "device": f"({tmp_path})", "container": "GPU-0a1b"}
    assert placement.warning.startswith("trained on the CPU although the")
    assert told[sign] in placement.warning
    assert "train.device" in placement.warning
    if sign == "device":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # somebody wished it so
        assert place_training(tiny()).warning is None


def test_the_fallback_is_on_record_with_the_detector_and_its_figures(tmp_path):
    settings = tiny()
    detector = Detector(settings, placement=place_training(settings, gpus=1)).fit(good())
    detector.save(tmp_path / "detector")
    training = Detector.load(tmp_path / "detector").training_
    assert (training.device, training.processes) == ("cpu", 1)
    assert "asked for 1 GPU" in training.warning
    assert training_facts(detector)["warning"] == training.warning
    quiet = training_facts(Detector(settings).fit(good()))
    assert "warning" not in quiet
    untrained = tiny(optimiser={**TINY["optimiser"], "steps": 0})
    assert training_facts(Detector(untrained).fit(good())) == {"device": "cpu", "processes": 1}


def test_cuda_that_is_not_there_ends_the_step_before_anything_is_read(tmp_path):
    with pytest.raises(BadInputError, match=r"train\.device = 'cuda': CUDA does not work here: \w+.*auto or cpu"):
        train(
            LineSettings(ingest=IngestSettings(path="x"), train=tiny(device="cuda")),
            LinePaths.checkout(tmp_path, "pcb"),
            0,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_what_was_trained_on_cuda_scores_without_it(tmp_path, precision):
    settings = tiny(device="cuda", optimiser={**TINY["optimiser"], "precision": precision})
    dtype = {"float32": None, "float16": torch.float16}[precision]
    detector = Detector(tiny()).fit(good())
    detector.settings, detector._placement = settings, Placement(torch.device("cpu"), 1, dtype, None)
    detector.save(tmp_path / "detector")
    loaded = Detector.load(tmp_path / "detector")
    assert loaded.settings.device == "cuda"
    np.testing.assert_array_equal(loaded.score_samples(good(3)), detector.score_samples(good(3)))


def test_processes_follow_settings_step_and_gpus(two_gpus):
    assert place_training(tiny()).processes == 1
    assert place_training(tiny(processes="auto")).processes == 2
    assert place_training(tiny(processes=2)).processes == 2
    assert place_training(tiny(), gpus=2).processes == 2
    assert place_training(tiny(device="cpu", processes=3)).processes == 3
    assert place_training(tiny(device="cpu", processes="auto")).processes == 1
    with pytest.raises(BadInputError, match=r"train\.processes = 4: each takes a GPU of its own, and 2 can be seen"):
        place_training(tiny(processes=4))
    with pytest.raises(BadInputError, match=r"train\.processes = 5: .* train\.optimiser\.batch_size = 4"):
        place_training(tiny(device="cpu", processes=5))


def test_a_gpu_too_small_is_told_with_what_to_do(monkeypatch):
    words = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free. If reserved but unallocated memory"
    )

    def exhausted(*_, **__):
        raise torch.OutOfMemoryError(words)

    with pytest.raises(BadInputError) as told, within_gpu_memory("scoring images"):
        exhausted()
    assert str(told.value) == (
        "scoring images: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free; end what else runs "
        "on this GPU, or hide it (CUDA_VISIBLE_DEVICES=-1) to use the CPU"
    )
    monkeypatch.setattr(MorphologyNetwork, "losses", exhausted)
    with pytest.raises(
        BadInputError,
        match=r"training with a batch of 4 images of 32 x 32 px: CUDA .* lower train.optimiser.batch_size",
    ):
        Detector(tiny()).fit(good())


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA placing")
@pytest.mark.parametrize("precision", ["auto", "float32", "float16"])
def test_two_gpus_learn_as_one_does(monkeypatch, tmp_path, precision):
    monkeypatch.undo()
    optimiser = {"steps": 20, "batch_size": 8, "precision": precision}
    one, both = (
        Detector(tiny(device="cuda", processes=count, optimiser=optimiser)).fit(
            good(), checkpoint=tmp_path / "checkpoint"
        )
        for count in (1, 2)
    )
    assert both.training_.processes == 2
    assert both.training_.resumed_from == 20
    two = Detector(tiny(device="cuda", processes=2, optimiser=optimiser)).fit(good())
    for record, same in zip(one.training_.history, two.training_.history, strict=True):
        assert record == pytest.approx(same, rel=0.05)
