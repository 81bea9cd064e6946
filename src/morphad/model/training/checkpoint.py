"""Checkpoints of a training: one safetensors file that appears whole or not at all and resumes bit for bit."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from morphad.base.files import atomic_file

_FORMAT = "morphad-checkpoint-1"
_log = logging.getLogger(__name__)


class TrainingState(NamedTuple):
    """Where a training stands, apart from its tensors.

    Attributes:
        step: How many steps are done.
        values: Anything JSON can hold.
    """

    step: int
    values: dict[str, Any]


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """Hexadecimal SHA-256 of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(
    path: Path, fingerprint: str, network: nn.Module, optimiser: torch.optim.Optimizer, progress: TrainingState
) -> None:
    """Write a checkpoint in the place of an earlier one.

    Raises:
        BadInputError: The folder cannot be written or the disk is full; the earlier checkpoint stays.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
    metadata = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "step": str(progress.step),
        "values": json.dumps(progress.values),
    }
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def load_checkpoint(
    path: Path, fingerprint: str, network: nn.Module, optimiser: torch.optim.Optimizer
) -> TrainingState | None:
    """Put network and optimiser back to where a checkpoint left them.

    Returns:
        Where the training stands, or None where there is no checkpoint of this very training; another one is
        ignored with a warning, and network and optimiser stay as they are.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("format") != _FORMAT or metadata.get("fingerprint") != fingerprint:
                _log.warning("%s: belongs to other settings, images or weights; training starts anew", path)
                return None
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        _log.warning("%s: unreadable (%s); training starts anew", path, error)
        return None
    network.load_state_dict(_below(tensors, "network."))
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimiser.").items():
        index, key = name.split(".")
        # The memory layout of the parameter, too: rounding may differ between vectorised and strided arithmetic.
        same_layout = tensor.shape == parameters[int(index)].shape
        value = torch.empty_like(parameters[int(index)], device="cpu").copy_(tensor) if same_layout else tensor
        state.setdefault(int(index), {})[key] = value.detach()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return TrainingState(int(metadata["step"]), json.loads(metadata["values"]))


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
