"""The presets of section `train`, and how values are laid over them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from morphad.settings.train import TrainSettings

_KEEPING = {"embedding_layer", "frozen", "backbone_rate"}
# Features of packaged ImageNet weights, adapted by the morphological task, scored by patch density.
_ADAPTED: dict[str, Any] = {
    "embedding_layer": "blocks.4",
    "frozen": ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2"),
    "backbone_rate": 0.1,
    "optimiser": {"steps": 100, "learning_rate": 3e-3},
}
PRESETS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "default": {**_ADAPTED, "score": {"views": ("identity", "erosion_5x5")}},
        "fast": _ADAPTED,  # one forward pass an image
        # Faithful to the source's outline: from scratch, scored by how well the cases are recognised. Our settings.
        "paper": {
            "image_size": (96, 96),
            "colour": "grey",
            "backbone": "resnet18",
            "weights": "none",
            "optimiser": {"steps": 4500, "batch_size": 64},  # until even the cases of much varying parts are named
            "score": {"kind": "transformation", "layers": ("layer1", "layer2")},
        },
    }
)


def train_settings(values: dict[str, Any]) -> TrainSettings:
    """Training settings from given values laid over those of their preset."""
    return TrainSettings.model_validate(with_preset(values))


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in their places, mapping by mapping."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def with_preset(train: dict[str, Any]) -> dict[str, Any]:
    """Given values laid over those of their preset."""
    name = train.get("preset", "default")
    preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
    own = preset.get("backbone", TrainSettings.model_fields["backbone"].default)
    if train.get("backbone", own) != own or train.get("weights") == "none":
        # How to keep what given weights know means nothing in another network, or from scratch.
        if _KEEPING & preset.keys() and train.get("weights") != "none":
            preset = merge(preset, {"optimiser": {"steps": 0}})  # what another network knows is kept whole
        preset = {key: value for key, value in preset.items() if key not in _KEEPING}
    return merge(preset, train)
