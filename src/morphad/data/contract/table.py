"""The manifest with what the expectations need beside its own columns: one more column for each kind of fault."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from morphad.data.contract.limits import LEAST_CONTRAST, MOST_AT_AN_END, least_sharpness
from morphad.data.source.layouts import SPLITS
from morphad.data.split.near_copies import Indices, components, near_pairs
from morphad.settings import ValidateSettings
from morphad.settings.checks import STATISTICS

KNOWN_BESIDE = ("group", "lot", "shift", "camera", "acquired")  # facts that some images may have and others not
_GREY = ("1", "L", "LA", "I;16")
_FIRST_DIGITAL = pd.Timestamp("2000-01-01", tz="UTC")  # a clock that stands before this was never set
_OTHER_ZONES = timedelta(days=1)  # times without a zone are read as UTC
_MOST_DISORDER = 0.1  # share of successive names whose times go back, above which names do not follow time


def with_derived(
    manifest: pd.DataFrame, reference: pd.DataFrame | None, settings: ValidateSettings, now: datetime
) -> pd.DataFrame:
    """Add columns to a manifest: flags are 0 or 1.

    Args:
        manifest: Rows of `read_manifest`, with or without `role`.
        reference: Rows of the reference; None without one.
        settings: Distance of near copies.
        now: What counts as the future lies after it.
    """
    table = manifest.reset_index(drop=True)
    good = table["label"] == "good"
    table["good"] = good.astype(int)
    table["fresh"] = (~table["sha256"].isin([] if reference is None else reference["sha256"])).astype(int)
    table["unusable"] = _unusable(table)
    table["held"] = (good & (table["fresh"] == 1) & (table["unusable"] == "")).astype(int)
    table["channels"] = channels(table)
    table["size"] = sizes(table)
    table["aspect"] = table["width"] / table["height"]
    table["labels_of_bytes"] = table.groupby("sha256")["label"].transform("nunique")
    kinds = table["defect"].where(table["label"] == "defect")
    table["kinds_of_bytes"] = kinds.groupby(table["sha256"]).transform("nunique")
    table["part"] = _parts(table)
    _add_copies(table, settings.near_duplicate_bits)
    _add_times(table, now)
    for name in KNOWN_BESIDE:
        known = table[name] != ""
        table[f"{name}_missing"] = (~known & bool(known.any())).astype(int)
    return table


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """Usable good images with the columns of `STATISTICS`: what limits are drawn from and shifts are seen in."""
    unusable = rows["unusable"] if "unusable" in rows else _unusable(rows)
    good = rows[(rows["label"] == "good") & (unusable == "")].reset_index(drop=True)
    return good.assign(aspect=good["width"] / good["height"]).astype(dict.fromkeys(STATISTICS, "float64"))


def channels(rows: pd.DataFrame) -> "pd.Series[str]":
    """grey or colour, as the files are."""
    return pd.Series("colour", index=rows.index).mask(rows["mode"].isin(_GREY), "grey")


def sizes(rows: pd.DataFrame) -> "pd.Series[str]":
    """Height x width of the images."""
    return rows["height"].astype(str) + " x " + rows["width"].astype(str)


def _unusable(table: pd.DataFrame) -> "pd.Series[str]":
    """Why an image shows nothing: black, white, blank, blurred; "" where it may show something. One reason an image."""
    flat = table["contrast"] < LEAST_CONTRAST
    return pd.Series(
        np.select(
            [
                (table["dark"] > MOST_AT_AN_END) | (flat & (table["brightness"] < 32)),
                (table["saturated"] > MOST_AT_AN_END) | (flat & (table["brightness"] > 223)),
                flat,
                table["sharpness"] < least_sharpness(table),
            ],
            ["black", "white", "blank", "blurred"],
            "",
        ),
        index=table.index,
    )


def _parts(table: pd.DataFrame) -> "pd.Series[str]":
    """The role of each image, or its part of a set in MVTec AD layout; "" for neither, and where excluded."""
    if "role" in table:
        return table["role"].where(table["role"] != "excluded", "")
    first = table["origin"].str.split("/", n=1).str[0]
    return first.where(first.isin(SPLITS), "")


def _add_copies(table: pd.DataFrame, bits: int) -> None:
    """Good images that are copies of one before them, byte by byte or nearly; leak_*: images that are in two parts."""
    good, part = table["good"] == 1, table["part"]
    placed = part != ""
    table["byte_copy"] = (good & table["sha256"].where(good).duplicated()).astype(int)
    table["leak_bytes"] = _spans(part.where(placed), table["sha256"])
    # Defects are only evaluated: they may share a lot with images for training.
    table["leak_group"] = _spans(part.where(placed & good), table["group"].where(table["group"] != ""))
    table["near_copy"] = table["leak_near"] = 0
    if not bits:
        return
    rows = table[good & (table["unusable"] == "") & ~table["sha256"].duplicated()]  # empty ones are all alike
    hashes, number = np.unique(rows["perceptual_hash"].to_numpy(str), return_inverse=True)

    def near() -> Iterator[tuple[Indices, Indices]]:
        return near_pairs(hashes.tolist(), bits)

    unit = pd.Series(components(len(hashes), near())[number], index=rows.index)
    table.loc[rows.index, "near_copy"] = unit.duplicated().astype(int)
    apart = part[rows.index].where(placed[rows.index] & (table.loc[rows.index, "leak_bytes"] == 0))
    table.loc[rows.index, "leak_near"] = _spans(apart, unit)


def _spans(part: "pd.Series[str]", key: "pd.Series[Any]") -> "pd.Series[int]":
    """1 where the images of one key, among those that have a part, are in several parts."""
    return (part.notna() & (part.groupby(key).transform("nunique") > 1)).astype(int)


def _add_times(table: pd.DataFrame, now: datetime) -> None:
    known = table["acquired"] != ""
    when = pd.to_datetime(table["acquired"].where(known), format="ISO8601", utc=True, errors="coerce")
    table["acquired_format"] = (known & when.isna()).astype(int)
    table["acquired_future"] = (when > now + _OTHER_ZONES).astype(int)
    table["acquired_implausible"] = (when < _FIRST_DIGITAL).astype(int)
    sound = when.notna() & (table["acquired_future"] == 0) & (table["acquired_implausible"] == 0)
    table["time_order"] = _disorder(table[sound], when[sound]).reindex(table.index, fill_value=0)


def _disorder(rows: pd.DataFrame, when: "pd.Series[pd.Timestamp]") -> "pd.Series[int]":
    """1 where an image's time breaks the order of names, in a line whose names otherwise follow time.

    Names count in their natural order within folder, group and camera. Where times go back more often than
    `_MOST_DISORDER` says, names say nothing about time and nothing is flagged.
    """
    flagged = pd.Series(0, index=rows.index)
    folder = rows["path"].str.replace(r"[^/]*$", "", regex=True)
    steps = back = 0
    for index in rows.groupby([folder, "group", "lot", "shift", "camera"], sort=False).groups.values():
        order = sorted(index, key=lambda at: _natural(str(rows.at[at, "path"])))
        ticks = when[order].astype("int64").to_numpy()
        steps += len(ticks) - 1
        back += int((np.diff(ticks) < 0).sum())
        late = ticks < np.maximum.accumulate(ticks)
        early = ticks > np.minimum.accumulate(ticks[::-1])[::-1]
        # One time too late makes all after it seem early, and the other way round: the fewer are the wrong ones.
        wrong = late if late.sum() <= early.sum() else early
        flagged[np.asarray(order)[wrong]] = 1
    return flagged if steps and back / steps <= _MOST_DISORDER else flagged * 0


def _natural(path: str) -> list[tuple[int, str]]:
    """A key by which img2 comes before img10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]
