"""Training settings as small as they get: the real thing, within a second on 32 x 32 grey images."""

from typing import Any

TRAIN: dict[str, Any] = {
    "device": "cpu",
    "image_size": [32, 32],
    "colour": "grey",
    "backbone": "small",
    "weights": "none",
    "cases": {"heights": [1, 3], "widths": [1, 3]},
    "optimiser": {"steps": 2, "batch_size": 4, "precision": "float32"},
    "score": {"layers": ["stage2"], "channels": 8, "memory": 50},
}


def hardly_trained(settings: Any) -> Any:
    """The settings of params.yaml, changed in place: few of the demonstration images, two steps of training."""
    settings["defaults"]["ingest"]["limit"] = 40
    settings["defaults"]["train"] = {
        "image_size": [64, 64],
        "optimiser": {"steps": 2, "batch_size": 8},
        "score": {"memory": 100, "channels": 20},
    }
    settings["defaults"]["calibrate"]["false_reject_rate"] = 0.2
    settings["defaults"]["promote"]["min_auroc"] = 0.5
    return settings
