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
