"""Batch normalisation over the parts of a batch that several processes hold, on any device.

PyTorch's own SyncBatchNorm refuses CPU tensors, and putting it in the place of modules loses their hooks and, in
timm's modules, their activation. Here the function below all such modules is replaced instead.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class SynchronisedBatchNorm(TorchFunctionMode):
    """Within this context `batch_norm` in training mode is over the batches of all processes.

    Means, variances, running statistics and gradients are those of the joined batch, up to the order of sums; every
    process must call it equally often, with at least one value a channel.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace one function, pass on all others."""
        if func is functional.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(  # noqa: PLR0917 (torch's signature)
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As torch.nn.functional.batch_norm; x is [B, C, ...]."""
    if not training:
        return functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    y, mean, variance, count = _Normalise.apply(x, weight, bias, eps)
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * (count / (count - 1).clamp_min(1))).to(running_var.dtype), momentum)
    normalised: Tensor = y
    return normalised


class _Normalise(torch.autograd.Function):
    """(x - mean) / deviation * weight + bias with the joined batch's statistics, and these: mean, variance, count."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes, shape = _axes(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = wide.new_tensor([x.numel() // x.shape[1]])
        own_variance, own_mean = torch.var_mean(wide, axes, correction=0)
        gathered = [torch.empty(2 * x.shape[1] + 1, dtype=wide.dtype, device=x.device) for _ in range(_processes())]
        distributed.all_gather(gathered, torch.cat([own_mean, own_variance, count]))
        means, variances, counts = torch.stack(gathered).split([x.shape[1], x.shape[1], 1], 1)  # type: ignore[no-untyped-call]
        # Chan, Golub and LeVeque's way to join means and variances: nothing large is subtracted.
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean).square())).sum(0) / total
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, scale, total)
        y = (wide - mean.view(shape)) * scale.view(shape)
        if weight is not None:
            y = y * weight.view(shape)
        if bias is not None:
            y = y + bias.view(shape)
        ctx.mark_non_differentiable(mean, variance, total)
        return y.to(x.dtype), mean, variance, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale, total = ctx.saved_tensors
        axes, shape = _axes(x)
        dy = gradients[0].to(mean.dtype)
        normalised = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        # Of weight and bias each process gives its own part: these gradients are joined like all others.
        for_bias, for_weight = dy.sum(axes), (dy * normalised).sum(axes)
        joined = torch.cat([for_bias, for_weight])
        distributed.all_reduce(joined)
        dy_sum, dy_normalised_sum = (joined / total).chunk(2)
        dx = (dy - dy_sum.view(shape) - normalised * dy_normalised_sum.view(shape)) * scale.view(shape)
        if weight is not None:
            dx = dx * weight.view(shape)
        _, weight_asked, bias_asked, _ = ctx.needs_input_grad
        return dx.to(x.dtype), for_weight if weight_asked else None, for_bias if bias_asked else None, None


def _axes(x: Tensor) -> tuple[list[int], list[int]]:
    """The axes of x [B, C, ...] that are averaged over, and the shape of a value a channel beside x."""
    return [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]


def _processes() -> int:
    return distributed.get_world_size()
