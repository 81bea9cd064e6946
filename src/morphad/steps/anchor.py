"""The picture whose part lies where the region was drawn."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from morphad.base.errors import BadInputError
from morphad.data.loading import read_pixels
from morphad.settings import LineSettings
from morphad.steps.paths import LinePaths


def read_anchor(settings: LineSettings, paths: LinePaths, rows: pd.DataFrame) -> NDArray[np.uint8] | None:
    """Its pixels; None where parts are not put in place, or there is no region.

    Args:
        settings: Of the line.
        paths: Where its files are.
        rows: Of a manifest with all good pictures.

    Raises:
        BadInputError: The region does not say which picture it is, or that is not there any more.
    """
    train = settings.train
    if train.align == "none" or train.region is None:
        return None
    chosen = anchor_row(paths.line, train.region.anchor, rows)
    [pixels] = read_pixels(chosen, paths.pictures, settings.ingest.decoding, f"reading {paths.line}")
    return pixels


def anchor_row(line: str, anchor: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The one row of that picture."""
    remedy = f"run `morphad region {line}` and put the line `anchor` that it prints into train.region"
    if not anchor:
        raise BadInputError(
            f"{line}: train.region has no `anchor`, and with train.align it takes one, so that the shapes stay on the "
            f"part; {remedy}"
        )
    found = rows[(rows["label"] == "good") & rows["sha256"].str.startswith(anchor)]
    if found.empty:
        raise BadInputError(
            f"{line}: no good picture has the SHA-256 {anchor}... of train.region.anchor, over which the region was "
            f"drawn; bring it back, or draw the region anew: {remedy}"
        )
    return found.iloc[:1].reset_index(drop=True)
