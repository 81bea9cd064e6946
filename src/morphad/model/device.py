"""Where, in how many processes and in which precision the network runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from morphad.base.errors import BadInputError
from morphad.settings import TrainSettings

DeviceName = Literal["auto", "cpu", "cuda"]

_DEVICE_NODE = Path("/dev/nvidia0")  # where a driver runs; in containers, where they were given a GPU
# What NVIDIA_VISIBLE_DEVICES holds where no GPU was given to the container; base images of CUDA say "all" anywhere.
_NO_GPU_GIVEN = {"", "none", "void", "all"}


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


def resolve_device(device: DeviceName) -> torch.device:
    """The device to train on: auto is CUDA where it works, else the CPU.

    Raises:
        BadInputError: CUDA is asked for and does not work.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInputError(
            f"train.device = 'cuda': CUDA does not work here: {_why_no_cuda()}; give the process a GPU, a driver and a "
            "PyTorch for CUDA, or set it to auto or cpu"
        )
    return scoring_device(device)


def scoring_device(device: DeviceName) -> torch.device:
    """The device to score on: what was trained on CUDA also scores where there is none."""
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def place_training(settings: TrainSettings, gpus: int = 0) -> Placement:
    """Where a training runs, found out before its images are read.

    Args:
        settings: `device`, `processes` and the batch's size.
        gpus: How many GPUs were asked for on behalf of this training; more than one means so many processes.

    Raises:
        BadInputError: CUDA is asked for and does not work, there are more processes than GPUs or images in a batch, or
            the precision is none of the device's.
    """
    device = resolve_device(settings.device)
    dtype = autocast_dtype(settings.optimiser.precision, device)
    visible = torch.cuda.device_count() if device.type == "cuda" else 1
    wanted = gpus if gpus > 1 else settings.processes
    batch_size = settings.optimiser.batch_size
    processes = min(visible, batch_size) if wanted == "auto" else wanted
    if device.type == "cuda" and processes > visible:
        raise BadInputError(
            f"train.processes = {processes}: each takes a GPU of its own, and {visible} can be seen; lower it, or give "
            "the process more GPUs (CUDA_VISIBLE_DEVICES, steps.train.accelerator of pipelines/cluster.yaml)"
        )
    if processes > batch_size:
        raise BadInputError(
            f"train.processes = {processes}: they share each batch of train.optimiser.batch_size = {batch_size} "
            "images; lower it or raise that"
        )
    return Placement(device, processes, dtype, _fallback(settings.device, device, gpus))


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
    """Tell what to do where the GPU's memory does not suffice.

    Args:
        doing: What the block does, such as "scoring".
        remedy: What would need less of it.

    Raises:
        BadInputError: The GPU is out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        told = " ".join(str(error).split("If reserved")[0].split()).rstrip(". ")  # without the allocator's own advice
        remedies = [remedy, "end what else runs on this GPU", "or hide it (CUDA_VISIBLE_DEVICES=-1) to use the CPU"]
        raise BadInputError(f"{doing}: {told}; {', '.join(filter(None, remedies))}") from error


def _fallback(asked: DeviceName, device: torch.device, gpus: int) -> str | None:
    """Why auto ended on the CPU where a GPU was to be expected; None where none was, or one is used."""
    if asked != "auto" or device.type == "cuda":
        return None
    given = os.environ.get("NVIDIA_VISIBLE_DEVICES", "").strip()
    if gpus:
        sign = f"the step asked for {gpus} GPU{'s' if gpus > 1 else ''}"
    elif _hidden():
        return None  # as somebody wished
    elif _DEVICE_NODE.exists():
        sign = f"the machine shows a GPU ({_DEVICE_NODE})"
    elif given.lower() not in _NO_GPU_GIVEN:
        sign = f"the container was given a GPU (NVIDIA_VISIBLE_DEVICES = {given})"
    else:
        return None
    return (
        f"trained on the CPU although {sign}: {_why_no_cuda()}; use an image with a PyTorch for CUDA on a node with "
        "its driver, or set train.device to cpu, or to cuda so that training fails instead"
    )


def _why_no_cuda() -> str:
    """PyTorch's own reason, in a few words."""
    if _hidden():
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split()).split(". ")[0].rstrip(".")
    return "no CUDA device is visible"


def _hidden() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in {"", "-1"}
