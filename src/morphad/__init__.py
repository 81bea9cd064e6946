"""morphad: morphological anomaly detection for product lines."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from morphad.decision.calibration import Calibration
    from morphad.model.detector import Detector
    from morphad.settings.reading import load_settings

__version__ = "0.1.0"
__all__ = ["Calibration", "Detector", "__version__", "load_settings"]

# Imported when they are asked for: PyTorch needs seconds.
_HOMES = {
    "Calibration": "morphad.decision.calibration",
    "Detector": "morphad.model.detector",
    "load_settings": "morphad.settings.reading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'morphad' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
