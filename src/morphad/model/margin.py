"""The angular-margin family of classification losses: one formula, one base, one small hook a member.

For the true class logit = scale * (cos(m1 * theta + m2) - m3), for the others scale * cos(theta), where theta is the
angle between an embedding and a class's weight vector; then cross-entropy. Scores use the margin-free `cosines`.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from morphad.settings import MarginSettings

# The derivative of arccos is infinite at +-1; this keeps theta of the true class some 1e-3 rad away from 0 and pi.
_COSINE_LIMIT = 1 - 1e-6


class AngularMarginLoss(nn.Module, ABC):
    """Cross-entropy over scaled cosines, with a margin on the true class.

    Args:
        embedding_dim: D, length of an embedding.
        classes: K, how many classes.
        scale: The factor on all logits.
        margin: In the member's own unit.
        warmup: Share of the training over which the margin grows linearly from none to `margin`, 0..1.

    Raises:
        ValueError: `scale` is not above 0, or `margin` or `warmup` is outside the member's range.
    """

    # Smallest and largest margin; the smallest one means "no margin".
    margin_range: tuple[float, float]

    def __init__(self, embedding_dim: int, classes: int, scale: float, margin: float, warmup: float) -> None:
        super().__init__()
        low, high = self.margin_range
        if not (scale > 0 and low <= margin <= high and 0 <= warmup <= 1):
            raise ValueError(
                f"expected scale > 0, margin in {low}..{high} and warmup in 0..1, got {scale}, {margin} and {warmup}"
            )
        self.scale, self.margin, self.warmup = scale, margin, warmup
        self.weight = nn.Parameter(torch.empty(classes, embedding_dim))
        nn.init.normal_(self.weight)  # only the direction counts, and this has every direction alike

    @abstractmethod
    def terms(self, margin: float) -> tuple[float, float, float]:
        """(m1, m2, m3) of the formula for a margin in the member's unit."""

    def cosines(self, embedding: Tensor) -> Tensor:
        """Cosine of each embedding to each class, without margin or scale.

        Args:
            embedding: [B, D].

        Returns:
            [B, K] in -1..1, in the type of the weights (float32) even under autocast.
        """
        with torch.autocast(embedding.device.type, enabled=False):
            unit = functional.normalize(embedding.to(self.weight.dtype), eps=1e-6)
            return functional.linear(unit, functional.normalize(self.weight, eps=1e-6)).clamp(-1, 1)

    def logits(self, embedding: Tensor, target: Tensor, progress: float = 1.0) -> Tensor:
        """Scaled logits with the margin on the true class.

        Args:
            embedding: [B, D].
            target: [B], true classes, 0 .. K - 1.
            progress: Share of the training that is done, 0..1.

        Returns:
            [B, K].
        """
        none = self.margin_range[0]
        strength = min(1.0, progress / self.warmup) if self.warmup > 0 else 1.0
        terms = self.terms(none + (self.margin - none) * strength)
        cosines = self.cosines(embedding)
        true = cosines.gather(1, target[:, None])
        return self.scale * cosines.scatter(1, target[:, None], with_margin(true, *terms))

    def forward(self, embedding: Tensor, target: Tensor, progress: float = 1.0) -> Tensor:
        """Mean loss of a batch, a scalar; arguments as in `logits`."""
        return functional.cross_entropy(self.logits(embedding, target, progress), target)

    def extra_repr(self) -> str:
        """What print(module) shows."""
        classes, dim = self.weight.shape
        return f"{dim} -> {classes}, scale={self.scale}, margin={self.margin}, warmup={self.warmup}"


def with_margin(cosine: Tensor, m1: float, m2: float, m3: float) -> Tensor:
    """cos(m1 * theta + m2) - m3 of cos(theta), continued beyond pi so that it falls over all of 0 <= theta <= pi.

    The continuation is SphereFace's: with phi = m1 * theta + m2 and k = floor(phi / pi), (-1)^k * cos(phi) - 2 k.
    Value and gradient are finite for every input; within about 1e-3 rad of 0 and pi the gradient is 0.
    """
    if m1 == 1 and m2 == 0:
        return cosine - m3
    angle = m1 * torch.acos(cosine.clamp(-_COSINE_LIMIT, _COSINE_LIMIT)) + m2
    turns = torch.floor(angle.detach() / math.pi)
    return torch.cos(angle) * (1 - 2 * (turns % 2)) - 2 * turns - m3


class AdditiveAngularMargin(AngularMarginLoss):
    """ArcFace: cos(theta + margin), margin in rad."""

    margin_range = (0.0, math.pi)

    def terms(self, margin: float) -> tuple[float, float, float]:
        """(1, margin, 0)."""
        return 1.0, margin, 0.0


class AdditiveCosineMargin(AngularMarginLoss):
    """CosFace: cos(theta) - margin, margin in units of the cosine."""

    margin_range = (0.0, 2.0)

    def terms(self, margin: float) -> tuple[float, float, float]:
        """(1, 0, margin)."""
        return 1.0, 0.0, margin


class MultiplicativeMargin(AngularMarginLoss):
    """SphereFace: cos(margin * theta), margin a factor of 1 or more; embeddings are normalised as in the others."""

    margin_range = (1.0, math.inf)

    def terms(self, margin: float) -> tuple[float, float, float]:
        """(margin, 0, 0)."""
        return margin, 0.0, 0.0


class SoftmaxLoss(AngularMarginLoss):
    """The baseline: softmax over the same scaled cosines, whatever the margin."""

    margin_range = (0.0, math.inf)

    def terms(self, margin: float) -> tuple[float, float, float]:
        """(1, 0, 0)."""
        return 1.0, 0.0, 0.0


_KINDS: dict[str, type[AngularMarginLoss]] = {
    "additive_angular": AdditiveAngularMargin,
    "additive_cosine": AdditiveCosineMargin,
    "multiplicative": MultiplicativeMargin,
    "softmax": SoftmaxLoss,
}


def make_margin_loss(settings: MarginSettings, embedding_dim: int, classes: int) -> AngularMarginLoss:
    """The loss that the settings name, with fresh weights from torch's global random state."""
    return _KINDS[settings.kind](embedding_dim, classes, settings.scale, settings.margin, settings.warmup)
