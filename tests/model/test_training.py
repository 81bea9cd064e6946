"""The training loop: it learns, it is the same twice, and a killed run goes on as if nothing had happened."""

import json
import math
import multiprocessing
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from morphad.base.errors import BadInputError
from morphad.model.device import autocast_dtype
from morphad.model.morphology import case_table
from morphad.model.network import MorphologyNetwork
from morphad.model.records import TrainingResult
from morphad.model.training import loop as loops
from morphad.model.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from morphad.model.training.ending import noting_sigterm
from morphad.model.training.fit import train_network
from morphad.model.training.loop import learning_rate
from morphad.model.training.placing import resolve_device
from morphad.settings import OptimiserSettings, TrainSettings
from morphad.settings.presets import train_settings


def quick(checkpoint_seconds=0.0, **optimiser):
    values = {"steps": 8, "batch_size": 4, "precision": "float32", "learning_rate": 3e-3}
    return train_settings(
        {
            "device": "cpu",
            "backbone": "small",
            "weights": "none",
            "checkpoint_seconds": checkpoint_seconds,
            "cases": {"operators": ("erosion", "dilation"), "heights": (1, 5), "widths": (1, 5)},
            "optimiser": {**values, **optimiser},
        }
    )


def texture(count=12, side=32):
    noise = torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.avg_pool2d(noise, 3, 1, 1) * 255).to(torch.uint8)


def train(settings, checkpoint=None, images=None, seed=0) -> tuple[dict[str, torch.Tensor], TrainingResult]:
    table = case_table(settings.cases)
    network = MorphologyNetwork(settings, table, seed)
    images = texture() if images is None else images
    result = train_network(network, images, settings, table, seed, checkpoint)
    assert not network.training
    return network.state_dict(), result


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def die_at(monkeypatch):
    """Make the loop end with an error before a given step."""

    class Killed(Exception):  # noqa: N818
        pass

    def arm(fatal):
        step = loops._Loop.step

        def stepping(self, index):
            if index == fatal:
                raise Killed
            step(self, index)

        monkeypatch.setattr(loops._Loop, "step", stepping)
        return Killed

    yield arm


def test_learns_to_name_cases_and_sizes():
    _, result = train(quick(steps=100, batch_size=16))
    assert result.case_accuracy > 0.8
    assert result.height_accuracy > 0.8
    assert result.width_accuracy > 0.8
    assert result.history[-1]["loss"] < result.history[0]["loss"] / 4
    assert [record["step"] for record in result.history] == list(range(1, 101))
    json.dumps(result.history, allow_nan=False)


def test_history_has_about_a_hundred_records_of_means():
    optimiser = OptimiserSettings(steps=250)
    loop = object.__new__(loops._Loop)
    loop.settings, loop.history, loop.sums, loop.summed = optimiser, [], [0.0] * 4, 0
    for done in range(1, 251):
        loop._note([float(done), 1.0, 2.0, 3.0], done, 1e-3)
    assert len(loop.history) == 125
    assert loop.history[0] == {
        "step": 2, "learning_rate": 1e-3, "loss": 1.5, "case_loss": 1.0, "height_loss": 2.0, "width_loss": 3.0
    }  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_runs_are_equal_and_seeds_differ(precision):
    one, one_result = train(quick(precision=precision))
    two, two_result = train(quick(precision=precision))
    other, _ = train(quick(precision=precision), seed=1)
    assert equal(one, two)
    assert one_result == two_result
    assert not equal(one, other)


def test_global_random_state_neither_matters_nor_changes():
    torch.manual_seed(5)
    one, _ = train(quick())
    torch.manual_seed(6)
    state = torch.get_rng_state()
    two, _ = train(quick())
    assert equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("fatal", range(8))
def test_a_run_that_ends_before_any_step_resumes_exactly(tmp_path, die_at, monkeypatch, fatal):
    unbroken, unbroken_result = train(quick())
    checkpoint = tmp_path / "checkpoint.safetensors"
    killed = die_at(fatal)
    with pytest.raises(killed):
        train(quick(), checkpoint)
    monkeypatch.undo()
    resumed, result = train(quick(), checkpoint)
    assert result.resumed_from == fatal
    assert equal(resumed, unbroken)
    assert result.history == unbroken_result.history
    assert (result.case_accuracy, result.width_accuracy) == (
        unbroken_result.case_accuracy, unbroken_result.width_accuracy
    )  # fmt: skip


def test_the_checkpoint_of_a_finished_run_gives_its_result_again(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    done, result = train(quick(), checkpoint)
    again, again_result = train(quick(), checkpoint)
    assert equal(done, again)
    assert again_result.resumed_from == 8
    assert again_result.history == result.history
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


@pytest.mark.parametrize("change", ["settings", "seed", "images", "table"])
def test_checkpoint_of_another_training_is_ignored_with_a_message(tmp_path, caplog, change):
    checkpoint = tmp_path / "checkpoint.safetensors"
    train(quick(), checkpoint)
    settings, images, seed = quick(), texture(), 0
    if change == "settings":
        settings = quick(learning_rate=2e-3)
    elif change == "table":
        settings = settings.model_copy(
            update={"cases": settings.cases.model_copy(update={"operators": ("dilation", "erosion")})}
        )
    elif change == "seed":
        seed = 1
    else:
        images[0, 0, 0, 0] += 1
    _, result = train(settings, checkpoint, images, seed)
    assert result.resumed_from == 0
    assert "belongs to other settings" in caplog.text
    assert str(checkpoint) in caplog.text


def test_how_often_to_checkpoint_does_not_matter_for_resuming(tmp_path):
    train(quick(), tmp_path / "c")
    assert train(quick(checkpoint_seconds=5), tmp_path / "c")[1].resumed_from == 8


def test_damaged_checkpoint_is_ignored_with_a_message(tmp_path, caplog):
    checkpoint = tmp_path / "checkpoint.safetensors"
    unbroken, _ = train(quick(), checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    again, result = train(quick(), checkpoint)
    assert result.resumed_from == 0
    assert equal(again, unbroken)
    assert "unreadable" in caplog.text


def test_checkpoint_keeps_layout_and_every_optimiser_tensor(tmp_path):
    def fresh():
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(network.parameters())
        return network, optimiser

    network, optimiser = fresh()
    network(torch.rand(2, 3, 5, 5)).sum().backward()
    optimiser.step()
    save_checkpoint(tmp_path / "c", "f", network, optimiser, TrainingState(1, {"scaler": {"scale": 2.0}}))
    other, other_optimiser = fresh()
    assert load_checkpoint(tmp_path / "c", "f", other, other_optimiser) == TrainingState(1, {"scaler": {"scale": 2.0}})
    assert equal(network.state_dict(), other.state_dict())
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            restored = other_optimiser.state_dict()["state"][index][key]
            assert torch.equal(restored, value)
            assert restored.stride() == value.stride()


def test_unwritable_checkpoint_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="cannot write"):
        train(quick(), tmp_path / "file" / "checkpoint")


_FORKS = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def _prepared_server():
    """One process imports what is slow to import; those of the tests fork from it."""
    multiprocessing.set_forkserver_preload(["morphad.model.training.fit"])


def _slowly(folder, seconds, pause, pipe) -> None:
    """Train in a process of its own, say each step that is done, and leave the weights."""
    torch.set_num_threads(1)
    step = loops._Loop.step

    def stepping(self, index):
        step(self, index)
        pipe.send(index)
        time.sleep(pause)

    loops._Loop.step = stepping
    state, result = train(quick(steps=12, checkpoint_seconds=seconds), folder / "checkpoint")
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "weights")
    pipe.send(("resumed", result.resumed_from))


def run(folder: Path, seconds: float, pause: float = 0.0):
    ours, theirs = _FORKS.Pipe()
    process = _FORKS.Process(target=_slowly, args=(folder, seconds, pause, theirs))
    process.start()
    theirs.close()
    return process, ours


def ended(folder: Path, seconds: float) -> int:
    """From where a training went on that is left alone."""
    process, pipe = run(folder, seconds)
    while not isinstance(said := pipe.recv(), tuple):
        pass
    process.join(60)
    return said[1]


@pytest.fixture(scope="module")
def unbroken_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    assert ended(folder, 0) == 0
    return load_file(folder / "weights")


def test_killed_processes_resume_to_the_same_weights(tmp_path, unbroken_weights):
    for kill_after in (3, 6, 10):  # each run goes on from what the one before left
        process, pipe = run(tmp_path, 0, pause=0.05)
        while pipe.recv() != kill_after:
            pass
        time.sleep(0.01 * kill_after)  # into the pause, a step, or a checkpoint
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert not (tmp_path / "weights").exists()
    assert ended(tmp_path, 0) >= 10
    assert equal(load_file(tmp_path / "weights"), unbroken_weights)


def test_a_process_that_is_asked_to_end_leaves_a_checkpoint_and_resumes_to_the_same_weights(tmp_path, unbroken_weights):
    begun = 0
    for last in (2, 7):
        process, pipe = run(tmp_path, 3600, pause=0.05)  # no checkpoint for its own sake
        while (done := pipe.recv()) != last:
            assert begun <= done < last
        process.terminate()
        process.join(60)
        assert process.exitcode == 128 + signal.SIGTERM
        begun = last + 1
    assert ended(tmp_path, 3600) in {8, 9}  # the signal comes in the pause after the step, or in the next step
    assert equal(load_file(tmp_path / "weights"), unbroken_weights)


def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    now, saved = [0.0], []
    step = loops._Loop.step

    def stepping(self, index):
        step(self, index)
        now[0] += 25

    monkeypatch.setattr(loops._Loop, "step", stepping)
    monkeypatch.setattr(loops._Loop, "save", lambda self, path, fingerprint, done: saved.append(done))
    monkeypatch.setattr(loops.time, "monotonic", lambda: now[0])
    train(quick(checkpoint_seconds=60), tmp_path / "checkpoint")
    assert saved == [3, 6, 8]
    assert TrainSettings().checkpoint_seconds == 60


def test_a_signal_that_comes_too_late_for_the_training_still_ends_the_process():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with noting_sigterm() as ending:
            signal.raise_signal(signal.SIGTERM)
            assert ending.asked
            assert not heard
        assert heard == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_no_steps_train_nothing():
    settings = quick(steps=0)
    network = MorphologyNetwork(settings, case_table(settings.cases), 0)
    untrained = {name: value.clone() for name, value in network.state_dict().items()}
    state, result = train(settings, images=torch.zeros(0, 1, 32, 32, dtype=torch.uint8))
    assert equal(state, untrained)
    assert result == TrainingResult()


def test_diverged_training_names_the_step_and_the_remedy(monkeypatch):
    original = MorphologyNetwork.losses
    calls = []

    def losses(self, *arguments, **options):
        calls.append(1)
        values = original(self, *arguments, **options)
        return values._replace(total=values.total * math.nan) if len(calls) == 3 else values

    monkeypatch.setattr(MorphologyNetwork, "losses", losses)
    with pytest.raises(BadInputError, match=r"loss is nan at step 3 of 8; lower train\.optimiser\.learning_rate"):
        train(quick())


def test_too_little_to_train_on_is_refused():
    with pytest.raises(BadInputError, match="got 0 and 7"):
        train(quick(), images=torch.zeros(0, 1, 32, 32, dtype=torch.uint8))
    one = quick().model_copy(update={"cases": quick().cases.model_copy(update={"heights": (1,), "widths": (1,)})})
    with pytest.raises(BadInputError, match="got 12 and 1"):
        train(one)
    with pytest.raises(ValueError, match=r"torch\.float32"):
        train(quick(), images=torch.zeros(3, 1, 32, 32))


def test_learning_rate_warms_up_and_falls_to_nothing():
    settings = OptimiserSettings(steps=100, warmup_steps=10, learning_rate=0.1)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[10] == rates[9] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-4
    assert learning_rate(OptimiserSettings(steps=1, warmup_steps=20, learning_rate=0.1), 0) == pytest.approx(0.1)


def test_frozen_modules_stay_as_they_are():
    settings = TrainSettings.model_validate({**quick().model_dump(), "frozen": ("stage1",)})
    table = case_table(settings.cases)
    before = MorphologyNetwork(settings, table, 0).state_dict()
    after, _ = train(settings)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("backbone.net.stage1.")} <= same
    assert "backbone.net.stage2.reduce.weight" not in same


def test_device_and_precision():
    assert resolve_device("cpu").type == "cpu"
    cpu = torch.device("cpu")
    assert autocast_dtype("float32", cpu) is None
    assert autocast_dtype("bfloat16", cpu) is torch.bfloat16
    assert autocast_dtype("auto", cpu) in (None, torch.bfloat16)
    with pytest.raises(BadInputError, match=r"train\.optimiser\.precision = 'float16'"):
        autocast_dtype("float16", cpu)
    if not torch.cuda.is_available():
        with pytest.raises(BadInputError, match=r"train\.device = 'cuda'"):
            resolve_device("cuda")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16"])
def test_cuda_learns_and_resumes(tmp_path, precision):
    settings = quick(steps=60, batch_size=16, precision=precision).model_copy(update={"device": "cuda"})
    _, result = train(settings, tmp_path / "checkpoint")
    assert result.case_accuracy > 0.8
    assert train(settings, tmp_path / "checkpoint")[1].resumed_from == 60
