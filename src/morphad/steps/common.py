"""What several steps share."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from morphad.base.errors import BadInputError
from morphad.base.files import read_json
from morphad.base.wording import counted
from morphad.data.manifest import read_manifest
from morphad.data.split.holdout import FrozenHoldout
from morphad.settings import IngestSettings

if TYPE_CHECKING:
    from morphad.model.detector import Detector

Figures = dict[str, Any]


def frozen_holdout(holdout: Path) -> FrozenHoldout:
    """The frozen holdout of a file."""
    return FrozenHoldout.from_json(read_json(holdout), str(holdout))


def training_facts(model: "Detector") -> Figures:
    """How the training went, without its step-by-step history."""
    training = model.training_
    if training is None:
        return {}
    left_out = {"history", "resumed_from"}
    facts = {key: value for key, value in asdict(training).items() if key not in left_out and value is not None}
    if not training.history:
        return facts
    return {"cases": len(model.table), "final_loss": training.history[-1]["loss"], **facts}


def with_role(split: Path, role: str) -> pd.DataFrame:
    """Rows of the manifest that have a role.

    Raises:
        BadInputError: There are no roles, or none has this one.
    """
    rows = read_manifest(split)
    if "role" not in rows:
        raise BadInputError(f"{split}: has no column `role`; run `morphad split` first")
    chosen = rows[rows["role"] == role].reset_index(drop=True)
    if chosen.empty:
        raise BadInputError(f"{split}: no image has the role {role}; add good images to the line and split again")
    return chosen


def check_decoding(line: str, model: "Detector", rows: pd.DataFrame, images: IngestSettings) -> None:
    """Refuse to go on with a detector where today's settings make other pixels of the images.

    Its own decoding would do, but then a setting that somebody has just changed would be without effect, and stand in
    the record of a run that it is not true of.
    """
    own, today = model.decoding.white_level, images.white_level
    if own != today and (rows["bit_depth"] == 16).any():  # in other images there is nothing that it would change
        raise BadInputError(
            f"{line}: the detector was trained with ingest.white_level {own}, settings now say {today}, and there are "
            f"16-bit images; run `morphad train {line}` again, or set it back"
        )


def check_size(line: str, refusal: Callable[[int, int], str], rows: pd.DataFrame) -> None:
    """Refuse images of a size that region or alignment are not for, before any of them is read.

    Args:
        line: For messages.
        refusal: Why a height and width is refused; "" for one that fits.
        rows: Of the images.
    """
    reasons = [refusal(height, width) for height, width in zip(rows["height"], rows["width"], strict=True)]
    others = [(path, reason) for path, reason in zip(rows["path"], reasons, strict=True) if reason]
    if others:
        path, reason = others[0]
        more = f", and so {counted(len(others) - 1, 'other')}" if len(others) > 1 else ""
        raise BadInputError(f"{line}: {path} {reason}{more}")


def label_counts(rows: pd.DataFrame) -> dict[str, int]:
    """How many rows are good, and how many show a defect."""
    return {"good": int((rows["label"] == "good").sum()), "defect": int((rows["label"] == "defect").sum())}
