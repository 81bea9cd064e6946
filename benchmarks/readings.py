"""Ways to read an anomaly score from how a trained network sees the cases of an image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from morphad.decision.metrics import image_metrics
from morphad.model.device import autocast_dtype
from morphad.model.morphology import Case, transform
from morphad.model.network import MorphologyNetwork
from morphad.model.scoring.fusion import component_weights

_PART = 500  # images a forward pass

# From a network, the index of the case, embeddings [G, D] of good images and [N, D] of given ones, all seen through
# that case: values [N], higher for more abnormal.
Reading = Callable[[MorphologyNetwork, int, Tensor, Tensor], Tensor]


def log_probability(network: MorphologyNetwork, case: int, good: Tensor, given: Tensor) -> Tensor:
    """How improbable the true case is to the network."""
    return -_log_probabilities(network, given)[:, case]


def dirichlet(network: MorphologyNetwork, case: int, good: Tensor, given: Tensor) -> Tensor:
    """How improbable all cases' probabilities are under a Dirichlet distribution of good images', as in GEOM.

    Golan and El-Yaniv (NeurIPS 2018); its parameters by Minka's fixed point, from Wicker's start.
    """
    usual = _log_probabilities(network, good).double().clamp_min(-30)
    shares, log_means = usual.exp().mean(0), usual.mean(0)
    scale = (len(shares) - 1) / (2 * (shares * (shares.clamp_min(1e-12).log() - log_means)).sum().clamp_min(1e-6))
    alpha = (shares * scale).clamp_min(1e-3)
    for _ in range(20):
        alpha = _inverse_digamma(torch.digamma(alpha.sum()) + log_means)
    return -(_log_probabilities(network, given).double().clamp_min(-30) @ (alpha - 1)).float()


def cosine(network: MorphologyNetwork, case: int, good: Tensor, given: Tensor) -> Tensor:
    """1 - cosine to the true case."""
    return 1 - network.case_cosines(given)[:, case]


def standardised(network: MorphologyNetwork, case: int, good: Tensor, given: Tensor) -> Tensor:
    """The preset's own: how far the cosine to the true case falls behind that of good images, in their deviations."""
    usual = network.case_cosines(good)[:, case]
    return (usual.mean() - network.case_cosines(given)[:, case]) / usual.std().clamp_min(1e-4)


def rank(network: MorphologyNetwork, case: int, good: Tensor, given: Tensor) -> Tensor:
    """Minus the logarithm of the share of good images whose cosine to the true case is no larger."""
    usual = network.case_cosines(good)[:, case].contiguous().sort().values
    below = torch.searchsorted(usual, network.case_cosines(given)[:, case].contiguous(), right=True)
    return -((below + 1) / (len(usual) + 1)).log()


def neighbours(network: MorphologyNetwork, case: int, good: Tensor, given: Tensor) -> Tensor:
    """Mean distance on the unit sphere to the two nearest good images seen through the same case."""
    near = torch.cdist(functional.normalize(given), functional.normalize(good)).topk(2, largest=False)
    distances: Tensor = near.values.mean(1)
    return distances


def gaussian(network: MorphologyNetwork, case: int, good: Tensor, given: Tensor) -> Tensor:
    """Mahalanobis distance from good images seen through the same case, on the unit sphere."""
    good, given = functional.normalize(good).double(), functional.normalize(given).double()
    covariance = torch.cov(good.T) + 1e-2 * good.var(0).mean() * torch.eye(good.shape[1])
    gaps = given - good.mean(0)
    squares: Tensor = (gaps @ torch.linalg.inv(covariance) * gaps).sum(1)
    return squares.clamp_min(0).sqrt().float()


READINGS: dict[str, Reading] = {
    "log probability": log_probability,
    "dirichlet": dirichlet,
    "cosine": cosine,
    "cosine, standardised by case": standardised,
    "rank": rank,
    "neighbours": neighbours,
    "gaussian": gaussian,
}
OWN = "cosine, standardised by case"  # the preset `paper`'s


def spread(count: int, total: int) -> list[int]:
    """At most `count` of the indices 0..total - 1, evenly spread, first and last among them."""
    count = min(count, total)
    return sorted({round(i * (total - 1) / max(1, count - 1)) for i in range(count)})


@torch.inference_mode()
def read(
    network: MorphologyNetwork, table: Sequence[Case], cases: Sequence[int], good: Tensor, given: Tensor
) -> dict[str, Tensor]:
    """Each reading case by case: [cases, N].

    Args:
        network: Trained, in evaluation mode, on the CPU.
        table: The cases that it was trained on.
        cases: Indices of those to go through.
        good: Images [G, C, H, W] uint8 to compare with.
        given: Images [N, C, H, W] uint8.
    """
    values: dict[str, list[Tensor]] = {name: [] for name in READINGS}
    for index in cases:
        seen = [_embedded(network, images, table[index]) for images in (good, given)]
        for name, reading in READINGS.items():
            values[name].append(reading(network, index, *seen))
    return {name: torch.stack(rows) for name, rows in values.items()}


def choose(clean: Tensor, spoilt: Tensor, count: int) -> list[int]:
    """Rows, greedily, whose mean separates spoilt images [K, M] best from clean ones [K, N]; no more than `count`."""
    chosen: list[int] = []
    while len(chosen) < min(count, len(clean)):
        left = [row for row in range(len(clean)) if row not in chosen]
        chosen.append(max(left, key=lambda row: tells(clean[[*chosen, row]].sum(0), spoilt[[*chosen, row]].sum(0))))
    return chosen


def tells(clean: Tensor, spoilt: Tensor) -> float:
    """AUROC of scores [N] of clean images against those [M] of spoilt ones."""
    truth = [False] * len(clean) + [True] * len(spoilt)
    return image_metrics(truth, torch.cat([clean, spoilt]).double().numpy())["image_auroc"] or 0.0


def fuse(given: Tensor, clean: Tensor, spoilt: Tensor) -> Tensor:
    """One score [N] from several, weighted as the preset `default` weights its densities.

    Args:
        given: Scores [K, N] of images, of K kinds.
        clean: Those [K, M] of held-out good images, by which each kind is centred and scaled.
        spoilt: Those [K, M] of the same images with synthetic anomalies.
    """
    centres, scales = clean.mean(1), clean.std(1).clamp_min(1e-6)
    return ((given.T - centres) / scales) @ component_weights(clean.T, spoilt.T, scales)


def _embedded(network: MorphologyNetwork, images: Tensor, case: Case) -> Tensor:
    dtype = autocast_dtype("auto", torch.device("cpu"))
    parts = []
    for part in torch.split(images, _PART):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            parts.append(network.embed(transform(part, case)))
    return torch.cat(parts)


def _log_probabilities(network: MorphologyNetwork, embeddings: Tensor) -> Tensor:
    logits: Tensor = network.case_head.scale * network.case_cosines(embeddings)
    return logits.log_softmax(1)


def _inverse_digamma(values: Tensor) -> Tensor:
    """By Newton's method from Minka's start."""
    found = torch.where(values >= -2.22, values.exp() + 0.5, -1 / (values + 0.57721566))
    for _ in range(5):
        found = found - (torch.digamma(found) - values) / torch.polygamma(1, found)
    return found
