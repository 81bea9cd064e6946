"""Settings as small as they get, for tests that need the real thing and no quality."""

from typing import Any

from benchmarks.smallest import TRAIN

__all__ = ["TRAIN", "hardly_trained"]


def hardly_trained(settings: Any) -> Any:
    """The settings of params.yaml, changed in place: few of the demonstration images, two steps of training."""
    settings["defaults"]["ingest"]["limit"] = 40
    settings["defaults"]["train"] = dict(TRAIN)
    settings["defaults"]["calibrate"]["false_reject_rate"] = 0.2
    settings["defaults"]["promote"]["min_auroc"] = 0.5
    return settings
