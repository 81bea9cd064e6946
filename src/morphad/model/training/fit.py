"""A training as a step asks for it: in this process or in several, resumed where it was cut off."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from morphad.base.errors import BadInputError
from morphad.base.files import sha256_json
from morphad.base.progress import Progress, silent
from morphad.model.device import Placement
from morphad.model.morphology import Case
from morphad.model.network import MorphologyNetwork
from morphad.model.records import TrainingResult
from morphad.model.training.checkpoint import hash_tensors
from morphad.model.training.launching import train_together
from morphad.model.training.loop import WINDOW, run_loop
from morphad.model.training.placing import place_training
from morphad.settings import TrainSettings

# What decides about the trained weights, beside images, initial weights, seed and device.
_DECISIVE = {
    "backbone",
    "weights",
    "frozen",
    "embedding_layer",
    "backbone_rate",
    "kernel_size_weight",
    "cases",
    "margin",
    "optimiser",
}


def train_network(  # noqa: PLR0917 (in the order in which they are made)
    network: MorphologyNetwork,
    images: Tensor,
    settings: TrainSettings,
    table: Sequence[Case],
    seed: int,
    checkpoint: Path | None,
    placement: Placement | None = None,
    progress: Progress = silent,
) -> TrainingResult:
    """Train a network in place, and leave it in evaluation mode on the settings' device.

    Equal arguments give equal weights on one CPU with one number of threads, also when the process was killed and
    run again with the same checkpoint; on CUDA, and with another number of processes, equal up to the order of sums.
    The checkpoint stays; the caller removes it once the trained network is saved. A process that is asked to end
    (SIGTERM) ends after the step under way with exit code 143, its checkpoint written.

    Args:
        network: Built from the same settings and table.
        images: [N, C, H, W] uint8, good images only.
        settings: How to train; with `optimiser.steps` 0 nothing is trained.
        table: The cases between which to distinguish.
        seed: Of every random choice.
        checkpoint: File for the checkpoint; None for none.
        placement: Where to train; None: where the settings say.
        progress: Called as the training goes on.

    Raises:
        BadInputError: Images or table are too few, the device or precision is not there or its memory too small, the
            loss is no longer finite, the checkpoint cannot be written, or one of several processes was killed.
    """
    device, processes, dtype, warning = placement or place_training(settings)
    if settings.optimiser.steps == 0:
        network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return TrainingResult(device=device.type, warning=warning)
    if images.ndim != 4 or images.dtype != torch.uint8:
        raise ValueError(f"expected images [N, C, H, W] uint8, got {tuple(images.shape)} {images.dtype}")
    if len(images) == 0 or len(table) < 2:
        raise BadInputError(
            f"training needs at least 1 image and 2 cases, got {len(images)} and {len(table)}; "
            "add images, widen train.cases, or set train.optimiser.steps to 0"
        )
    height, width = (min(side, WINDOW) for side in images.shape[2:])
    network.backbone.check_size(
        height, width, f"set train.optimiser.steps to 0, as training sees windows of {WINDOW} px"
    )
    cases = [case.name for case in table]
    fingerprint = ""
    if checkpoint is not None:
        fingerprint = sha256_json(
            {
                "settings": settings.model_dump(mode="json", include=_DECISIVE),
                "seed": seed,
                "cases": cases,
                "images": hash_tensors({"images": images}),
                "weights": hash_tensors(network.state_dict()),
                "device": device.type,
                "precision": str(dtype),
            }
        )
    if processes == 1:
        result = run_loop(
            network,
            images,
            settings,
            table,
            seed=seed,
            checkpoint=checkpoint,
            fingerprint=fingerprint,
            device=device,
            progress=progress,
        )
    else:
        job = {
            "settings": settings.model_dump(mode="json"),
            "cases": cases,
            "seed": seed,
            "checkpoint": str(checkpoint.absolute()) if checkpoint is not None else None,
            "fingerprint": fingerprint,
            "device": device.type,
        }
        told = train_together(network, images, job, processes, progress)
        result = TrainingResult(**{**told, "history": tuple(told["history"])})
    network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return replace(result, device=device.type, processes=processes, warning=warning)
