"""The frozen holdout: which images champion and challenger are both measured on, and what they were when frozen."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from morphad.base.errors import BadInputError
from morphad.base.files import sha256_json
from morphad.settings import SplitSettings


@dataclass(frozen=True)
class FrozenImage:
    """An image of the holdout: its SHA-256, and its path, label and kind of defect when it was frozen."""

    sha256: str
    path: str
    label: str
    defect: str = ""


@dataclass(frozen=True)
class FrozenHoldout:
    """The images that champion and challenger are both measured on, and how they were chosen.

    Attributes:
        images: Sorted by SHA-256.
        seed: Of the draw.
        settings: The split settings of the draw.
    """

    images: tuple[FrozenImage, ...]
    seed: int
    settings: SplitSettings

    @classmethod
    def of(cls, images: Iterable[FrozenImage], seed: int, settings: SplitSettings) -> "FrozenHoldout":
        """Freeze images, in whatever order."""
        return cls(tuple(sorted(images, key=lambda image: image.sha256)), seed, settings)

    @property
    def id(self) -> str:
        """SHA-256 of the sorted image hashes: figures are comparable where this is equal."""
        return sha256_json([image.sha256 for image in self.images])

    @property
    def labels_id(self) -> str:
        """SHA-256 of the images' hashes with label and kind of defect: what a gate compares."""
        return sha256_json([[image.sha256, image.label, image.defect] for image in self.images])

    def to_json(self) -> dict[str, Any]:
        """As a value for `write_json`."""
        return {
            "id": self.id,
            "images": [asdict(image) for image in self.images],
            "seed": self.seed,
            "settings": self.settings.model_dump(exclude={"renew_holdout"}),
        }

    @classmethod
    def from_json(cls, value: Any, name: str = "holdout.json") -> "FrozenHoldout":
        """Read back what `to_json` gave; an older one does not hold the kinds of defects.

        Raises:
            BadInputError: `value` is not a frozen holdout, or its images do not match its id.
        """
        try:
            images = [
                FrozenImage(str(i["sha256"]), str(i["path"]), str(i["label"]), str(i.get("defect", "")))
                for i in value["images"]
            ]
            holdout = cls.of(images, int(value["seed"]), SplitSettings.model_validate(value["settings"]))
            intact = holdout.id == value["id"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadInputError(f"{name}: not a frozen holdout ({error}); restore it from version control") from error
        if not intact:
            raise BadInputError(f"{name}: its images do not match its id; restore it from version control")
        return holdout


def frozen_rows(split: pd.DataFrame, holdout: FrozenHoldout, name: Path, line: str) -> pd.DataFrame:
    """The rows of the frozen holdout, after making sure that they are those that were frozen, labels included.

    Args:
        split: The manifest with roles.
        holdout: What was frozen.
        name: Of the split's file, for messages.
        line: The line's name, for messages.

    Raises:
        BadInputError: There are no roles, or images are missing, added, or labelled otherwise.
    """
    if "role" not in split:
        raise BadInputError(f"{name}: has no column `role`; run `morphad split {line}` first")
    rows = split[split["role"] == "holdout"].reset_index(drop=True)
    there = [FrozenImage(str(row.sha256), str(row.path), str(row.label), str(row.defect)) for row in rows.itertuples()]
    if FrozenHoldout.of(there, holdout.seed, holdout.settings).labels_id != holdout.labels_id:
        raise BadInputError(
            f"{name}: its holdout of {len(there)} images is not the frozen one of {len(holdout.images)} images, by "
            f"hashes and labels; run `morphad split {line}` and what follows it, or restore both files from version "
            "control"
        )
    return rows
