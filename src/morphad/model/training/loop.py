"""The self-supervised loop: good images only, each through a random case that the network has to name."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphad.base.errors import BadInputError
from morphad.base.progress import Progress, silent
from morphad.model.device import autocast_dtype, within_gpu_memory
from morphad.model.morphology import Case, apply_cases
from morphad.model.network import Losses, MorphologyNetwork
from morphad.model.records import TrainingResult
from morphad.model.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from morphad.model.training.distributed import Ranks
from morphad.model.training.ending import Ending, noting_sigterm
from morphad.settings import OptimiserSettings, TrainSettings

_RECORDS = 100  # entries of the history, about
_PROBE = 256  # images behind the accuracies
WINDOW = 224  # px, height and width at most, of what the network sees of an image at a time while it learns the cases
_log = logging.getLogger(__name__)


def run_loop(
    network: MorphologyNetwork,
    images: Tensor,
    settings: TrainSettings,
    table: Sequence[Case],
    *,
    seed: int,
    checkpoint: Path | None,
    fingerprint: str,
    device: torch.device,
    ranks: Ranks | None = None,
    progress: Progress = silent,
) -> TrainingResult:
    """Train a network in place as one of the processes that train together.

    Args:
        network: As in `train_network`; so are the others that are not listed here.
        fingerprint: Of this very training; a checkpoint of another is not taken up.
        device: This process's.
        ranks: The processes; None: this one alone.
        progress: Called after each step.

    Raises:
        SystemExit: The process was asked to end (SIGTERM); its checkpoint is written.
    """
    ranks = ranks or Ranks()
    steps = settings.optimiser.steps
    size = " x ".join(str(min(side, WINDOW)) for side in images.shape[2:])
    batch = f"a batch of {settings.optimiser.batch_size} images of {size} px"
    remedy = "lower train.optimiser.batch_size or train.image_size, raise train.processes (a GPU each)"
    with (
        within_gpu_memory(f"training with {batch}", remedy),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loop = _Loop(network, images, table=table, settings=settings, seed=seed, device=device, ranks=ranks)
        start = loop.resume(checkpoint, fingerprint) if checkpoint is not None else 0
        saved = time.monotonic()
        with nullcontext() if checkpoint is None else loop.minding_sigterm():
            for done in range(start + 1, steps + 1):
                loop.step(done - 1)
                progress("training", done, steps)
                due = loop.ends or done == steps or time.monotonic() - saved >= settings.checkpoint_seconds
                if checkpoint is not None and ranks.rank == 0 and due:
                    loop.save(checkpoint, fingerprint, done)
                    saved = time.monotonic()
                if loop.ends:
                    if ranks.rank == 0:
                        _log.warning("asked to end: the checkpoint holds %d of %d steps", done, steps)
                    raise SystemExit(Ending.CODE)
        case, height, width = loop.accuracies()
    return TrainingResult(tuple(loop.history), case, height, width, start)


class _Loop:
    """One training: what a step changes, and how a step goes."""

    def __init__(
        self,
        network: MorphologyNetwork,
        images: Tensor,
        *,
        table: Sequence[Case],
        settings: TrainSettings,
        seed: int,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.network, self.images, self.table, self.settings = network, images, table, settings.optimiser
        self.seed, self.device, self.ranks = seed, device, ranks
        self.dtype = autocast_dtype(self.settings.precision, device)
        backbone = {id(parameter) for parameter in network.backbone.parameters()}
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for parameter in network.parameters():
            if parameter.requires_grad:
                rate = settings.backbone_rate if id(parameter) in backbone else 1.0
                decay = self.settings.weight_decay if parameter.ndim > 1 else 0.0  # not on biases and norms
                groups.setdefault((rate, decay), []).append(parameter)
        self.optimiser = torch.optim.AdamW(
            [{"params": members, "weight_decay": decay, "rate": rate} for (rate, decay), members in groups.items()],
            lr=self.settings.learning_rate,
        )
        # float16 has few exponents: small gradients need the scaler, bfloat16 ones do not.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.history: list[dict[str, float]] = []
        self.sums = [0.0] * len(Losses._fields)
        self.summed = 0
        self.ending = Ending()
        self.ends = False
        network.train()
        self.losses = ranks.losses(network)

    @contextmanager
    def minding_sigterm(self) -> Iterator[None]:
        """Within a block, `ends` is true after the step in which one of the processes was asked to end (SIGTERM)."""
        with noting_sigterm() as self.ending:
            yield

    def step(self, step: int) -> None:
        """One batch: sample, transform, forward, backward, update; `step` counts from 0."""
        self.network.train()
        rate = learning_rate(self.settings, step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        # Every random choice depends on seed and step alone, so a resumed run goes on as the unbroken one would.
        rng = np.random.default_rng([self.seed, step])
        # For stochastic depth, in backbones that have it: other images, other choices.
        torch.manual_seed(int(rng.integers(2**62)) + self.ranks.rank)
        batch, cases = self._sample(rng, self.settings.batch_size)
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            losses = self.losses(batch, cases, step / self.settings.steps)
        # Each process's mean counts by its share of the batch, which need not divide evenly.
        share = len(cases) / self.settings.batch_size
        means = torch.stack([loss.detach().float() for loss in losses]) * share
        *values, asked = self.ranks.total(torch.cat([means, means.new_tensor([self.ending.asked])])).tolist()
        self.ends = asked > 0  # in all processes after the same step: none waits for one that has gone
        self._check_finite("loss", values[0], step)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(losses.total * (share * self.ranks.count)).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip)
        if not self.scaler.is_enabled():  # the scaler skips such steps by itself
            self._check_finite("gradient", float(norm), step)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self._note(values, step + 1, rate)

    @torch.no_grad()
    def accuracies(self) -> tuple[float, float, float]:
        """Shares of the probe's cases, heights and widths named right; leaves the network in evaluation mode."""
        self.network.eval()
        rng = np.random.default_rng([self.seed, self.settings.steps, 1])
        right = torch.zeros(3, device=self.device)
        for start in range(0, _PROBE, self.settings.batch_size):
            batch, cases = self._sample(rng, min(self.settings.batch_size, _PROBE - start))
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                embedding = self.network.embed(batch)
            answers = (self.network.case_cosines(embedding), *self.network.size_logits(embedding))
            truths = (cases, self.network.height_of_case[cases], self.network.width_of_case[cases])
            right += torch.stack([(a.argmax(1) == t).sum() for a, t in zip(answers, truths, strict=True)])
        case, height, width = (self.ranks.total(right) / _PROBE).tolist()
        return case, height, width

    def save(self, path: Path, fingerprint: str, done: int) -> None:
        """Write a checkpoint after `done` steps."""
        values: dict[str, Any] = {
            "history": self.history,
            "sums": self.sums,
            "summed": self.summed,
            "scaler": self.scaler.state_dict(),
        }
        save_checkpoint(path, fingerprint, self.network, self.optimiser, TrainingState(done, values))

    def resume(self, path: Path, fingerprint: str) -> int:
        """Go back to a checkpoint of this very training, if there is one; return how many steps it has done."""
        progress = load_checkpoint(path, fingerprint, self.network, self.optimiser)
        if progress is None:
            return 0
        self.history, self.sums, self.summed = (progress.values[key] for key in ("history", "sums", "summed"))
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(progress.values["scaler"])
        return progress.step

    def _sample(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """Random images, each through a random case: [B, C, h, w] uint8 and [B] case indices, on the device.

        Of the `size` images that all processes draw, those of this one. Of an image that is larger than `WINDOW` a
        random window is taken: a case shows everywhere, and time and memory of a step stay those of a small image.
        """
        # No flips or turns: they would swap what height and width, and the origin of an even size, mean.
        chosen = torch.from_numpy(rng.integers(len(self.images), size=size))
        cases = torch.from_numpy(rng.integers(len(self.table), size=size))
        spare = [max(0, side - WINDOW) for side in self.images.shape[2:]]
        starts = torch.from_numpy(rng.integers(0, [side + 1 for side in spare], size=(size, 2))) if any(spare) else None
        chosen, cases = self.ranks.part(chosen), self.ranks.part(cases)
        if starts is None:
            batch = self.images[chosen]
        else:
            windows = zip(chosen.tolist(), self.ranks.part(starts).tolist(), strict=True)
            batch = torch.stack(
                [self.images[i, :, top : top + WINDOW, left : left + WINDOW] for i, (top, left) in windows]
            )
        batch = batch.to(self.device, non_blocking=True)
        return apply_cases(batch, cases, self.table), cases.to(self.device)

    def _note(self, values: list[float], done: int, rate: float) -> None:
        self.sums = [total + value for total, value in zip(self.sums, values, strict=True)]
        self.summed += 1
        if done % max(1, self.settings.steps // _RECORDS) == 0 or done == self.settings.steps:
            loss, case, height, width = (total / self.summed for total in self.sums)
            self.history.append(
                {
                    "step": done,
                    "learning_rate": rate,
                    "loss": loss,
                    "case_loss": case,
                    "height_loss": height,
                    "width_loss": width,
                }
            )
            self.sums, self.summed = [0.0] * len(values), 0

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise BadInputError(
                f"training diverged: the {what} is {value} at step {step + 1} of {self.settings.steps}; lower "
                f"train.optimiser.learning_rate (now {self.settings.learning_rate}) or train.margin.margin, lengthen "
                f"train.optimiser.warmup_steps, or set train.optimiser.precision to float32"
            )


def learning_rate(settings: OptimiserSettings, step: int) -> float:
    """Linear warm-up over `warmup_steps` (at most half the steps), then a half cosine to 0; `step` from 0."""
    warmup = min(settings.warmup_steps, settings.steps // 2)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, settings.steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
