"""The checks of the data contract by name, and the weight that each has unless the settings say otherwise."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

Severity = Literal["error", "warning"]
Weight = Literal["error", "warning", "off"]

Statistic = Literal[
    "brightness", "contrast", "sharpness", "entropy", "dark", "saturated", "height", "width", "aspect"
]  # fmt: skip
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
SIZES: tuple[Statistic, ...] = ("height", "width", "aspect")

CHECKS: Mapping[str, Weight] = MappingProxyType(
    {
        # The rows themselves.
        "empty": "error",
        "unreadable": "error",
        "unique_paths": "error",
        "sha256_format": "error",
        "line": "error",
        # Labels, kinds of defect, masks.
        "label": "error",
        "conflicting_labels": "error",
        "good_with_kind": "error",
        "defect_without_kind": "warning",
        "defect_kinds": "warning",
        "conflicting_defects": "warning",
        "good_with_mask": "error",
        "empty_mask": "warning",
        "inverted_masks": "warning",
        "defect_without_mask": "warning",
        "no_masks": "warning",
        # How many there are.
        "min_good": "error",
        "role_counts": "error",
        "no_defects": "warning",
        # Images that no line can use.
        "black": "error",
        "white": "error",
        "blank": "error",
        "blurred": "error",
        "unusable_defect": "warning",
        # One camera with one set of settings.
        "size": "error",
        "channels": "error",
        "bit_depth": "error",
        "white_level": "warning",
        # Each statistic against the line's limits: too many images outside them, a few far outside, or some; and as a
        # whole.
        **{f"{name}_limits": "error" for name in STATISTICS},
        **{f"{name}_extremes": "error" for name in STATISTICS if name not in SIZES},
        **{f"{name}_outliers": "warning" for name in STATISTICS},
        **{f"{name}_drift": "warning" for name in STATISTICS},
        "camera": "error",
        # Copies.
        "duplicates": "error",
        "copies": "warning",
        "near_duplicates": "warning",
        "identical": "error",
        # What is known beside the pixels.
        "no_groups": "off",
        "group_missing": "warning",
        "lot_missing": "warning",
        "shift_missing": "warning",
        "camera_missing": "warning",
        "acquired_missing": "warning",
        "acquired_format": "error",
        "acquired_future": "error",
        "acquired_implausible": "warning",
        "time_order": "warning",
        # Between train, calibration and holdout, or the parts of a set in MVTec AD layout.
        "leakage_bytes": "error",
        "leakage_near": "warning",
        "leakage_group": "error",
    }
)
