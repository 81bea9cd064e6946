"""Two processes at one global batch train as one process does, and what goes wrong in one of them is told."""

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed, nn

from morphad.base.errors import BadInputError, ServiceError
from morphad.model.morphology import case_table
from morphad.model.network import MorphologyNetwork
from morphad.model.training.batchnorm import SynchronisedBatchNorm
from morphad.model.training.distributed import Ranks
from morphad.model.training.fit import train_network
from morphad.model.training.loop import run_loop
from morphad.settings import TrainSettings
from morphad.settings.presets import train_settings

CASES = {"operators": ("erosion", "dilation"), "heights": (1, 5), "widths": (1, 5)}
OPTIMISER = {"steps": 8, "batch_size": 7, "precision": "float32", "learning_rate": 3e-3}


def small(**optimiser) -> TrainSettings:
    """From scratch, so batch normalisation learns its statistics; a batch that two processes cannot halve."""
    return train_settings(
        {
            "device": "cpu",
            "backbone": "small",
            "weights": "none",
            "checkpoint_seconds": 0,
            "cases": CASES,
            "optimiser": {**OPTIMISER, **optimiser},
        }
    )


def lite0() -> TrainSettings:
    """The default: given weights, frozen lower blocks, upper blocks that take no part."""
    return train_settings({"device": "cpu", "cases": CASES, "optimiser": {**OPTIMISER, "steps": 3}})


def texture(count=12, side=32) -> torch.Tensor:
    noise = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.avg_pool2d(noise, 3, 1, 1) * 255).to(torch.uint8)


def fit(settings, side=32, checkpoint=None, ranks=None, steps=None):
    """Weights and result of a training in float64; with `steps` it is cut off there.

    AdamW takes full steps for the smallest gradients: in float32 rounding decides about the sign of some, and a
    difference of another kind could hide behind that.
    """
    table = case_table(settings.cases)
    network = MorphologyNetwork(settings, table, 0).double()
    images = texture(side=side)
    with torch.random.fork_rng():
        result = run_loop(
            network, Cut(images, steps), settings, table, seed=0, checkpoint=checkpoint, fingerprint="f",
            device=torch.device("cpu"), ranks=ranks,
        )  # fmt: skip
    return {name: value.clone() for name, value in network.state_dict().items()}, result


class Cut:
    """Images that are gone after some batches: what a process sees that is killed, without the wait for it."""

    def __init__(self, images: torch.Tensor, batches: int | None) -> None:
        self.images, self.left, self.shape = images, math.inf if batches is None else batches, images.shape

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.images[chosen]


def fitted_by_two(rank: int, folder: str, name: str, options: dict[str, Any]) -> None:
    """A process of `two`."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    with suppress(KeyboardInterrupt):
        weights, result = fit({"small": small, "lite0": lite0}[name](), ranks=Ranks(rank, 2), **options)
        save_file({key: value.contiguous() for key, value in weights.items()}, Path(folder, f"weights-{rank}"))
        torch.save(result, Path(folder, f"result-{rank}"))
    distributed.destroy_process_group()


def two(folder: Path, target, *arguments) -> None:
    """Run a function of this module in two processes."""
    folder.mkdir()
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=target, args=(rank, str(folder), *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0


@pytest.fixture(scope="module", autouse=True)
def _prepared_server():
    """One process imports what is slow to import; those of the tests fork from it."""
    multiprocessing.set_forkserver_preload(["morphad.model.training.fit"])


def by_two(folder: Path, name: str, **options: Any):
    """As `fit`, by two processes."""
    two(folder, fitted_by_two, name, options)
    if options.get("steps") is not None:
        return None
    one, other = load_file(folder / "weights-0"), load_file(folder / "weights-1")
    assert all(torch.equal(one[key], other[key]) for key in one)
    return one, torch.load(folder / "result-0", weights_only=False)


def furthest(one, other) -> float:
    """The largest difference of a weight; both hold the same ones."""
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one if not one[key].is_floating_point())
    return max(float((one[key] - other[key]).abs().max()) for key in one if one[key].is_floating_point())


def assert_alike(one, other, tolerance: float = 1e-6) -> None:
    assert len(one.history) == len(other.history)
    for record, same in zip(one.history, other.history, strict=True):
        assert record == pytest.approx(same, rel=tolerance)
    assert (one.case_accuracy, one.height_accuracy, one.width_accuracy) == pytest.approx(
        (other.case_accuracy, other.height_accuracy, other.width_accuracy), abs=2 / 256
    )


TOLERANCE = 1e-9


def test_a_small_network_from_scratch_is_trained_as_by_one(tmp_path):
    one, one_result = fit(small())
    both, both_result = by_two(tmp_path / "two", "small")
    assert furthest(one, both) < TOLERANCE
    assert_alike(one_result, both_result)
    before = MorphologyNetwork(small(), case_table(small().cases), 0).double().state_dict()
    assert float((before["projection.weight"] - both["projection.weight"]).abs().max()) > 1e-3


def test_the_default_network_is_trained_as_by_one(tmp_path):
    one, one_result = fit(lite0(), side=64, checkpoint=tmp_path / "one")
    both, both_result = by_two(tmp_path / "two", "lite0", side=64, checkpoint=tmp_path / "both")
    assert furthest(one, both) < TOLERANCE
    assert_alike(one_result, both_result)
    # What takes no part has no gradient, so it has no state in the optimiser and does not decay.
    assert load_file(tmp_path / "one").keys() == load_file(tmp_path / "both").keys()
    before = MorphologyNetwork(lite0(), case_table(lite0().cases), 0).double().state_dict()
    still = {name for name in before if torch.equal(before[name], both[name])}
    assert still == {name for name in before if torch.equal(before[name], one[name])}
    assert "backbone.net.conv_head.weight" in still


def test_a_checkpoint_goes_from_one_process_to_two_and_back(tmp_path):
    unbroken, unbroken_result = fit(small())
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(small(), checkpoint=checkpoint, steps=3)
    by_two(tmp_path / "two", "small", checkpoint=checkpoint, steps=3)  # from 3 to 6, then cut off
    resumed, result = fit(small(), checkpoint=checkpoint)
    assert result.resumed_from == 6
    assert furthest(unbroken, resumed) < TOLERANCE
    assert_alike(unbroken_result, result)


def test_two_processes_that_were_killed_resume_exactly(tmp_path):
    unbroken, unbroken_result = by_two(tmp_path / "unbroken", "small")
    checkpoint = tmp_path / "checkpoint"
    by_two(tmp_path / "killed", "small", checkpoint=checkpoint, steps=5)
    resumed, result = by_two(tmp_path / "resumed", "small", checkpoint=checkpoint)
    assert result.resumed_from == 5
    assert furthest(unbroken, resumed) == 0
    assert result.history == unbroken_result.history


class Norms(nn.Module):
    """Normalisations of several kinds, with and without what they may lack."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, momentum=None)]
        )
        self.frozen = nn.BatchNorm2d(3).eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm in self.norms:
            x = torch.tanh(norm(x)) + x.square()
        return self.frozen(x)


def normalised_by_two(rank: int, folder: str, dtype: torch.dtype) -> None:
    """A process of the test below: 3 images for one, 2 for the other."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    x = torch.load(Path(folder).parent / "x")[rank::2].to(dtype).requires_grad_()
    norms = Norms()
    with SynchronisedBatchNorm():
        y = norms(x)
    y.float().square().sum().backward()
    for parameter in norms.parameters():
        distributed.all_reduce(parameter.grad)
    gradients = [parameter.grad for parameter in norms.parameters()]
    torch.save((y.detach(), x.grad, gradients, norms.state_dict()), Path(folder, f"{rank}"))
    distributed.destroy_process_group()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_normalisation_over_two_parts_is_that_of_the_whole(tmp_path, dtype, tolerance):
    x = 100 + torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    torch.save(x, tmp_path / "x")
    two(tmp_path / "two", normalised_by_two, dtype)
    whole = Norms()
    x = x.to(dtype).requires_grad_()
    y = whole(x)
    y.float().square().sum().backward()
    parts = [torch.load(tmp_path / "two" / f"{rank}") for rank in range(2)]
    for rank, (part, gradient, gradients, state) in enumerate(parts):
        assert part.dtype == dtype
        torch.testing.assert_close(part, y.detach()[rank::2], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(gradient, x.grad[rank::2], rtol=10 * tolerance, atol=10 * tolerance)
        for one, other in zip(gradients, whole.parameters(), strict=True):
            torch.testing.assert_close(one, other.grad, rtol=10 * tolerance, atol=10 * tolerance)
        for key, value in whole.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=tolerance, atol=tolerance)


def workers() -> list[psutil.Process]:
    """The processes below this one that train."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if "morphad.model.training.worker" in " ".join(process.cmdline())]


def train(settings, checkpoint):
    table = case_table(settings.cases)
    network = MorphologyNetwork(settings, table, 0)
    result = train_network(network, texture(), settings, table, 0, checkpoint)
    return network.state_dict(), result


# Processes that it starts import this module without what is beside the tests: no helper for it.
ENDINGS = [signal.SIGKILL, *([signal.SIGTERM] if os.environ.get("MORPHAD_TEST_EXHAUSTIVE") else [])]


@pytest.mark.slow
class TestLaunched:
    """By torch's launcher, as a step does it."""

    def test_a_killed_process_ends_the_others_and_the_next_run_goes_on(self, tmp_path, capfd):
        settings = small(steps=3000).model_copy(update={"processes": 2})
        checkpoint = tmp_path / "checkpoint"
        killed = []

        def kill() -> None:
            while not checkpoint.exists():
                time.sleep(0.02)
            killed.extend(process.pid for process in workers())
            os.kill(killed[1], signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        handler = signal.getsignal(signal.SIGTERM)
        with pytest.raises(ServiceError, match=r"process \d of 2 was ended by SIGKILL.* Run it again"):
            train(settings, checkpoint)
        killer.join()
        assert len(killed) == 2
        assert workers() == []
        assert signal.getsignal(signal.SIGTERM) is handler
        assert capfd.readouterr().err == ""

    def test_it_trains_as_one_does_and_hands_over_weights_and_facts(self, tmp_path, capfd):
        one, one_result = train(small(), None)
        both, result = train(small().model_copy(update={"processes": 2}), tmp_path / "checkpoint")
        assert_alike(one_result, result, 0.01)
        apart = [(one[name] - both[name]).abs().mean() for name in one if one[name].ndim > 1]
        assert max(apart) < 1e-3
        assert (result.processes, one_result.processes) == (2, 1)
        assert capfd.readouterr().err == ""
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
        # And one process takes up what two have left, which has nothing more to do.
        again, again_result = train(small(), tmp_path / "checkpoint")
        assert again_result.resumed_from == 8
        assert furthest(both, again) == 0

    def test_what_one_of_them_refuses_is_told_as_by_one(self, tmp_path, capfd):
        (tmp_path / "file").write_text("")
        with pytest.raises(BadInputError, match=r"file/checkpoint: cannot write"):
            train(small().model_copy(update={"processes": 2}), tmp_path / "file" / "checkpoint")
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize(
        "ended_by", [signal.SIGKILL, *([signal.SIGTERM] if os.environ.get("MORPHAD_TEST_EXHAUSTIVE") else [])]
    )
    def test_no_process_outlives_the_one_that_started_it(self, tmp_path, ended_by):
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_distributed as t\n"
            "t.train(t.small(steps=3000).model_copy(update={'processes': 2}), Path(sys.argv[2]))"
        )
        checkpoint = tmp_path / "checkpoint"
        parent = subprocess.Popen(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(checkpoint)],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
        )  # fmt: skip
        deadline = time.monotonic() + 300
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        below = psutil.Process(parent.pid).children(recursive=True)
        assert len(below) >= 2
        parent.send_signal(ended_by)
        _, told = parent.communicate(timeout=120)
        _, alive = psutil.wait_procs(below, timeout=60)
        assert alive == []
        if ended_by == signal.SIGTERM:  # together, after the same step, with a checkpoint
            assert told.startswith("asked to end: the checkpoint holds ")
            assert told.count("\n") == 1
        else:
            assert told == ""
        left = sum(path.stat().st_size for path in tmp_path.glob("morphad-*/*") if path.is_file())
        assert left < (4096 if ended_by == signal.SIGKILL else 1)  # no images, no weights
        assert parent.returncode == (-9 if ended_by == signal.SIGKILL else 128 + 15)
