"""Self-supervised baselines from scratch, to set the morphological task beside: which change was made to an image?

Each learns on good images only with plain softmax, in a network as small as morphad's own `small`. Rotations as in
RotNet (Hendrycks et al., NeurIPS 2019) and the 72 geometric transformations as in GEOM (Golan and El-Yaniv, NeurIPS
2018) score by the mean log-probability of the true transformation; CutPaste (Li et al., CVPR 2021) by a Gaussian of
the embeddings. Networks, numbers of steps and images' sizes are ours, not those of these papers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from morphad.model.backbone import build_backbone
from morphad.model.device import autocast_dtype

Scorer = Callable[[Tensor], Tensor]  # images [B, C, H, W] uint8 to scores [B], higher for more abnormal
_SCORED = 500  # images a forward pass without gradients


@dataclass(frozen=True)
class Budget:
    """How long a baseline learns."""

    steps: int
    batch_size: int
    learning_rate: float = 1e-3


def rotations(images: Tensor, classes: Tensor) -> Tensor:
    """Square images [B, C, S, S], each turned by a quarter turn times its class, 0..3."""
    turned = torch.empty_like(images)
    for quarters in range(4):
        turned[classes == quarters] = torch.rot90(images[classes == quarters], quarters, (-2, -1))
    return turned


def geometric(images: Tensor, classes: Tensor) -> Tensor:
    """Square images, each by its class, 0..71: mirrored or not, shifted by a quarter of a side or not, turned."""
    turns, mirrored, down, right = classes % 4, classes // 4 % 2 == 1, classes // 8 % 3 - 1, classes // 24 - 1
    moved = images.clone()
    moved[mirrored] = moved[mirrored].flip(-1)
    step = images.shape[-1] // 4
    for shift, axis in ((down, -2), (right, -1)):
        for way in (-1, 1):
            moved[shift == way] = _shifted(moved[shift == way], way * step, axis)
    return rotations(moved, turns)


def pasted(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Copies of images [B, C, H, W], each with a patch of its own pasted elsewhere: a rectangle or a thin scar."""
    changed = images.clone()
    rows, columns = images.shape[-2:]
    for image in changed:
        if rng.integers(2):  # a rectangle of 2 to 15 % of the area
            area, ratio = rng.uniform(0.02, 0.15) * rows * columns, np.exp(rng.uniform(-1.2, 1.2))
            height = int(np.clip(round((area * ratio) ** 0.5), 1, rows - 1))
            width = int(np.clip(round((area / ratio) ** 0.5), 1, columns - 1))
        else:  # a scar
            height, width = max(1, round(rows * rng.uniform(0.01, 0.07))), round(columns * rng.uniform(0.05, 0.25))
            if rng.integers(2):
                height, width = width, height
        y, x = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
        patch = image[:, y : y + height, x : x + width].float()
        factor = float(rng.uniform(0.9, 1.1))  # the colour jitter of the source, on brightness
        y, x = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
        image[:, y : y + height, x : x + width] = (patch * factor).clamp(0, 255).to(image.dtype)
    return changed


def fit_transformations(
    images: Tensor, transform: Callable[[Tensor, Tensor], Tensor], count: int, budget: Budget, seed: int
) -> Scorer:
    """Learn which of `count` transformations was applied to good images [N, C, S, S] uint8."""

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(rng.integers(len(images), size=budget.batch_size))
        classes = torch.from_numpy(rng.integers(count, size=budget.batch_size))
        return transform(images[chosen], classes), classes

    network = _train(batch, count, budget, seed)

    def score(given: Tensor) -> Tensor:
        surprise = torch.zeros(len(given))
        for index in range(count):
            changed = transform(given, torch.full((len(given),), index))
            embedded = torch.cat(list(_embedded(network, changed)))
            surprise -= network.head(embedded).log_softmax(1)[:, index]
        return surprise / count

    return torch.inference_mode()(score)


def fit_cutpaste(images: Tensor, budget: Budget, seed: int) -> Scorer:
    """Learn to separate good images [N, C, H, W] uint8 from those with a pasted patch; half of each batch is pasted."""

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        chosen = images[torch.from_numpy(rng.integers(len(images), size=budget.batch_size))]
        half = budget.batch_size // 2
        classes = (torch.arange(budget.batch_size) < half).long()
        return torch.cat([pasted(chosen[:half], rng), chosen[half:]]), classes

    network = _train(batch, 2, budget, seed)
    with torch.inference_mode():
        good = torch.cat(list(_embedded(network, images))).double()
    mean = good.mean(0)
    covariance = torch.cov(good.T) + 1e-3 * good.var(0).mean() * torch.eye(good.shape[1])
    precision = torch.linalg.inv(covariance)

    def score(given: Tensor) -> Tensor:
        gaps = torch.cat(list(_embedded(network, given))).double() - mean
        squares: Tensor = (gaps @ precision * gaps).sum(1)
        return squares.clamp_min(0).sqrt()

    return torch.inference_mode()(score)


class _Network(nn.Module):
    """Backbone `small` with a linear head; bfloat16 where the processor is fast with it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = build_backbone("small", "none")
        channels, _ = self.backbone.layers[self.backbone.last_layer]
        self.head = nn.Linear(channels, classes)
        self._dtype = autocast_dtype("auto", torch.device("cpu"))

    def embed(self, images: Tensor) -> Tensor:
        """[B, channels] float32."""
        with torch.autocast("cpu", dtype=self._dtype, enabled=self._dtype is not None):
            embedded: Tensor = self.backbone(images)
        return embedded.float()


def _train(
    batch: Callable[[np.random.Generator], tuple[Tensor, Tensor]], classes: int, budget: Budget, seed: int
) -> _Network:
    torch.manual_seed(seed)
    network = _Network(classes).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=budget.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, budget.learning_rate, budget.steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    network.train()
    for _ in range(budget.steps):
        images, targets = batch(rng)
        loss = functional.cross_entropy(network.head(network.embed(images)), targets)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    trained: _Network = network.eval()
    return trained


def _embedded(network: _Network, images: Tensor) -> Iterator[Tensor]:
    for part in torch.split(images, _SCORED):
        yield network.embed(part)


def _shifted(images: Tensor, step: int, axis: int) -> Tensor:
    """Images moved by `step` px; what comes in is the border mirrored."""
    size, reach = images.shape[axis], abs(step)
    padding = (0, 0, reach, reach) if axis == -2 else (reach, reach, 0, 0)
    padded = functional.pad(images.float(), padding, mode="reflect")
    return padded.narrow(axis, reach - step, size).to(images.dtype)


BASELINES: dict[str, Callable[[Tensor, Budget, int], Scorer]] = {
    "rotations": lambda images, budget, seed: fit_transformations(images, rotations, 4, budget, seed),
    "geometric": lambda images, budget, seed: fit_transformations(images, geometric, 72, budget, seed),
    "cutpaste": fit_cutpaste,
}
