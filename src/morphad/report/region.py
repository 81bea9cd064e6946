"""What somebody must know of the region who relies on verdicts."""

from collections.abc import Mapping
from typing import Any

from morphad.base.wording import counted, percent


def region_sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences for pages and the card; none where the whole picture is inspected.

    Args:
        metrics: Of `evaluate`, with `region` where there is one.
    """
    region = metrics.get("region")
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
