"""On which device and in which precision the network runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch

from morphad.base.cores import available_cores
from morphad.base.errors import BadInputError
from morphad.base.memory import keep_freed_blocks

DeviceName = Literal["auto", "cpu", "cuda"]

# PyTorch starts a thread for each core of the machine, also in a container that may use two of 64. Set before anything
# is computed. Who says how many threads there are to be keeps them.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
keep_freed_blocks()


class Placement(NamedTuple):
    """Where a training runs.

    Attributes:
        device: The kind of device.
        processes: How many processes share every batch, one a device.
        dtype: What forward passes are computed in; None for float32.
        warning: Why it is not where one would expect it, for the person who reads the figures; None otherwise.
    """

    device: torch.device
    processes: int
    dtype: torch.dtype | None
    warning: str | None


def scoring_device(device: DeviceName) -> torch.device:
    """The device to score on: what was trained on CUDA also scores where there is none."""
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def autocast_dtype(
    precision: Literal["auto", "float32", "bfloat16", "float16"], device: torch.device
) -> torch.dtype | None:
    """The type that autocast should use, or None for plain float32.

    auto is bfloat16 where the device computes in it natively: CUDA from Ampere on, CPUs with AVX-512 BF16 or AMX.
    On an older CUDA device auto is float16.

    Raises:
        BadInputError: float16 is asked for on a CPU.
    """
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float16
        features = torch.cpu.get_capabilities()
        return torch.bfloat16 if features.get("avx512_bf16") or features.get("amx_bf16") else None
    if precision == "float16" and device.type != "cuda":
        raise BadInputError(
            f"train.optimiser.precision = 'float16': not on {device.type}; set it to auto, bfloat16 or float32"
        )
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


@contextmanager
def within_gpu_memory(doing: str, remedy: str = "") -> Iterator[None]:
    """Say what to do where the GPU's memory does not suffice.

    Args:
        doing: What the block does, such as "scoring".
        remedy: What would need less of it.

    Raises:
        BadInputError: The GPU is out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        said = " ".join(str(error).split("If reserved")[0].split()).rstrip(". ")  # without the allocator's own advice
        remedies = [remedy, "end what else runs on this GPU", "or hide it (CUDA_VISIBLE_DEVICES=-1) to use the CPU"]
        raise BadInputError(f"{doing}: {said}; {', '.join(filter(None, remedies))}") from error
