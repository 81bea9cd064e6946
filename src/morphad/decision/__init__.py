"""From scores to accept or reject: metrics, calibration and the promotion gate."""
