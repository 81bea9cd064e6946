"""morphad: morphological anomaly detection for product lines."""

__version__ = "0.1.0"
