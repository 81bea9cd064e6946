"""Where a training runs: on which device, in how many processes, and why not on the GPU that is there."""

import os
from pathlib import Path

import torch

from morphad.base.errors import BadInputError
from morphad.model.device import DeviceName, Placement, autocast_dtype, scoring_device
from morphad.settings import TrainSettings

_DEVICE_NODE = Path("/dev/nvidia0")  # where a driver runs; in containers, where they were given a GPU
# What NVIDIA_VISIBLE_DEVICES holds where no GPU was given to the container; base images of CUDA say "all" anywhere.
_NO_GPU_GIVEN = {"", "none", "void", "all"}


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
