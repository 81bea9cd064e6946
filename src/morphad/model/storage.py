"""The folder of a detector: its tensors, and a description with format version and hashes of all of it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from morphad import __version__
from morphad.base.errors import BadInputError
from morphad.base.files import atomic_directory, cannot_write, read_json, sha256_file, sha256_json
from morphad.decision.calibration import Calibration
from morphad.model.morphology import Case, parse_case
from morphad.model.records import TrainingResult
from morphad.model.saved import DESCRIPTION
from morphad.model.weights import WeightsOrigin
from morphad.settings import Decoding, TrainSettings

FORMAT_VERSION = 10
NETWORK, SCORER = "network.safetensors", "scorer.safetensors"
_OWN_HASH = "own_sha256"  # of detector.json without this key
_PRECISIONS = {None: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


@dataclass(frozen=True)
class Description:
    """All of a fitted detector but its tensors.

    `dtype` is that of the network's forward passes, None for float32; there is a heatmap scale with a calibration.
    """

    settings: TrainSettings
    decoding: Decoding
    seed: int
    dtype: torch.dtype | None
    table: tuple[Case, ...]
    weights: WeightsOrigin | None
    training: TrainingResult | None
    calibration: Calibration | None
    heatmap_scale: tuple[float, float] | None


def write(
    folder: Path, description: Description, states: Mapping[str, Mapping[str, Tensor]], weights_of: Path | None
) -> None:
    """Write a detector's folder, whole or not at all.

    Args:
        folder: The detector's.
        description: Of it.
        states: Tensors by file and name.
        weights_of: Folder whose tensors are named by their hashes in place of these; None: these are written.

    Raises:
        BadInputError: The folder cannot be written.
    """
    with atomic_directory(folder) as temporary:
        for file, state in states.items() if weights_of is None else ():
            try:
                save_file({key: tensor.contiguous().cpu() for key, tensor in state.items()}, temporary / file)
            except SafetensorError as error:  # how safetensors reports a full disk
                raise cannot_write(folder / file, OSError(str(error))) from error
        calibration, training = description.calibration, description.training
        written = {
            "format_version": FORMAT_VERSION,
            "morphad": __version__,
            "settings": _without_folders(description.settings).model_dump(mode="json"),
            "decoding": description.decoding.model_dump(mode="json"),
            "seed": description.seed,
            "precision": _PRECISIONS[description.dtype],
            "cases": [case.name for case in description.table],
            "weights": asdict(description.weights) if description.weights else None,
            "training": _uninterrupted(training) if training else None,
            "calibration": calibration.to_json() if calibration else None,
            "heatmap_scale": description.heatmap_scale,
            "sha256": {file: sha256_file((weights_of or temporary) / file) for file in states},
        }
        written = json.loads(json.dumps(written, allow_nan=False))
        text = json.dumps({**written, _OWN_HASH: sha256_json(written)}, indent=2, sort_keys=True)
        (temporary / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Turn what strange contents of a detector's folder raise into an error that names the folder."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        raise BadInputError(f"{folder}: not a whole detector ({error}); fetch or train it again") from error


def read(folder: Path) -> Description:
    """Read the description of a detector's folder, checking format version and the hashes of all files.

    Raises:
        BadInputError: The folder is missing, changed, or of another format version.
    """
    path = folder / DESCRIPTION
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format_version") != FORMAT_VERSION:
        version = found.get("format_version") if isinstance(found, dict) else None
        raise BadInputError(
            f"{path}: format version {version!r}, this morphad reads {FORMAT_VERSION}; "
            "use the morphad that wrote it or train again"
        )
    if found.pop(_OWN_HASH, None) != sha256_json(found):
        raise BadInputError(f"{path}: not the file that was saved; fetch or train it again")
    for name in (NETWORK, SCORER):
        file = folder / name
        if not file.is_file() or sha256_file(file) != found["sha256"][name]:
            raise BadInputError(f"{file}: missing or not the file that was saved; fetch or train the model again")
    weights, training, calibration = found["weights"], found["training"], found["calibration"]
    scale = None
    if calibration is not None:
        low, high = found["heatmap_scale"]
        scale = (low, high)
    return Description(
        settings=TrainSettings.model_validate(found["settings"]),
        decoding=Decoding.model_validate(found["decoding"]),
        seed=found["seed"],
        dtype={name: dtype for dtype, name in _PRECISIONS.items()}[found["precision"]],
        table=tuple(parse_case(name) for name in found["cases"]),
        weights=None if weights is None else WeightsOrigin(**weights),
        training=None if training is None else TrainingResult(**{**training, "history": tuple(training["history"])}),
        calibration=None if calibration is None else Calibration.from_json(calibration),
        heatmap_scale=scale,
    )


def tensors(folder: Path, file: str, device: torch.device) -> dict[str, Tensor]:
    """The tensors of one file of a detector's folder by name.

    They are copied, for where a tensor lies in memory decides about the last digit of its products.
    """
    return {name: tensor.clone() for name, tensor in load_file(folder / file, device=str(device)).items()}


def _without_folders(settings: TrainSettings) -> TrainSettings:
    """Settings in which a weights file is a name: the saved detector holds its weights and needs no file."""
    given = settings.weights in {"packaged", "none"}
    return settings if given else settings.model_copy(update={"weights": Path(settings.weights).name})


def _uninterrupted(training: TrainingResult) -> dict[str, Any]:
    """How a training went, without what an interruption changes: a detector that was resumed is the same detector."""
    return {key: value for key, value in asdict(training).items() if key != "resumed_from"}
