"""What a process does that trains together with others: each on its part of every batch, all taking the same step."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from morphad.model.network import Losses, MorphologyNetwork
from morphad.model.training.batchnorm import SynchronisedBatchNorm

LossFunction = Callable[[Tensor, Tensor, float], Losses]


class Ranks:
    """The processes that train together, as one of them sees it; by default it is alone.

    Args:
        rank: Which of them this one is, from 0.
        count: How many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    def part(self, values: Tensor) -> Tensor:
        """This process's part of a batch: [B, ...] -> about [B / count, ...]."""
        return values[self.rank :: self.count]

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' values, the same in each."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def losses(self, network: MorphologyNetwork) -> LossFunction:
        """A network's losses of this process's part, whose gradients are averaged over the processes.

        Batch normalisation that learns its statistics does so over the whole batch.
        """
        if self.count == 1:
            return network.losses
        device = next(network.parameters()).device
        return DistributedDataParallel(
            _Losses(network),
            device_ids=[device] if device.type == "cuda" else None,
            forward_sync_buffers=False,  # synchronised normalisation keeps them equal
            static_graph=True,  # in which parameters above the layer that is pooled take no part
        )


class _Losses(nn.Module):
    """A network whose forward pass ends with the losses, as DistributedDataParallel wants it."""

    def __init__(self, network: MorphologyNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor, cases: Tensor, progress: float) -> Losses:
        with SynchronisedBatchNorm():
            return self.network.losses(batch, cases, progress)


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Within a process that `launch` started: the other ones, and this one's device.

    Args:
        device: The kind of device: NCCL connects GPUs, gloo CPUs.
    """
    rank, count, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
        distributed.init_process_group("nccl", device_id=device)
    else:
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a pod's host name need not resolve
        distributed.init_process_group("gloo")
    try:
        yield Ranks(rank, count), device
    finally:
        distributed.destroy_process_group()
