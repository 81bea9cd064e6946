"""What somebody must know of the part's place and of the region who relies on verdicts."""

from collections.abc import Mapping
from typing import Any

from morphad.base.wording import counted, percent


def region_sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences for pages and the card; none where the whole picture is inspected, as it is.

    Args:
        metrics: Of `evaluate`, with `align` and `region` where there is one.
    """
    return [*_align(metrics.get("align")), *_region(metrics.get("region"))]


def _align(align: Mapping[str, Any] | None) -> list[str]:
    if align is None:
        return []
    what = {"shift": "Shifts", "similarity": "Shifts, turns and sizes"}[align["kind"]]
    lost = align["lost"]
    return [
        f"{what} of the part are made good first (train.align). A picture whose part is not found is rejected unseen: "
        f"{counted(lost['good'], 'good image')} and {counted(lost['defect'], 'defect image')} of the holdout."
    ]


def _region(region: Mapping[str, Any] | None) -> list[str]:
    if region is None:
        return []
    said = [
        f"{percent(region['inspected'])} of the picture is inspected (train.region). Outside nothing is inspected: a "
        "defect there is not found."
    ]
    if outside := region["masks_outside"]:
        said.append(
            f"{counted(outside, 'defect image has its mask', 'defect images have their masks')} wholly outside. They "
            "count among the defects, but not in pixel figures."
        )
    return said
