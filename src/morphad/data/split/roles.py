"""Roles train, calibration and holdout: by unit, never by image alone, with a holdout that stays as it was frozen."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from morphad.base.errors import CheckFailedError
from morphad.data.feedback import apply_verdicts, late_reason
from morphad.data.split.holdout import FrozenHoldout, FrozenImage
from morphad.data.split.near_copies import Indices, components, near_pairs
from morphad.data.split.sessions import session_keys
from morphad.settings import SplitSettings

ROLES = ("train", "calibration", "holdout", "excluded")


def split_manifest(
    manifest: pd.DataFrame, settings: SplitSettings, seed: int, frozen: FrozenHoldout | None
) -> tuple[pd.DataFrame, FrozenHoldout]:
    """Give every image a role, so that nothing a threshold or a figure rests on was seen in training.

    Good images of one group or session (`settings.by`), and near copies (perceptual hashes that differ in at most
    `settings.near_duplicate_bits` of 256), make one unit and never part. Units get roles in the order of a hash of
    seed and unit, so that the order of rows does not matter and new images hardly move old ones. Of images with the
    same bytes one is used. Defect images are only evaluated: they do not bind the good images of their group, but a
    good image that is a near copy of one in the holdout is excluded.

    The holdout is drawn once and then kept, with the labels it had: defects that come later, and good images tied to
    it, are excluded, and a verdict on one of its images waits for a new holdout (column `pending`).

    Args:
        manifest: Rows of `read_manifest`.
        settings: Shares of the good images, what separates sessions, near-copy distance, whether to draw a new holdout.
        seed: Of the draw.
        frozen: The holdout of an earlier call; None at first.

    Returns:
        The manifest, in its order, with columns `role` (train, calibration, holdout, excluded) and `reason`, and with
        labels as `apply_verdicts` gives them; and the holdout, which is `frozen` itself where it was given and kept.

    Raises:
        CheckFailedError: An image is labelled both good and defect, fewer than three units of good images (two with a
            frozen holdout) are there, or images of the frozen holdout are missing.
    """
    kept = None if settings.renew_holdout else frozen
    held = {image.sha256: image for image in kept.images} if kept else {}
    manifest = apply_verdicts(
        manifest.drop(columns=["role", "reason"], errors="ignore"),
        {digest: (image.label, image.defect) for digest, image in held.items()},
    )
    rows = manifest.reset_index(drop=True)
    rows["second"] = rows["path"] != rows["sha256"].map({digest: image.path for digest, image in held.items()})
    rows = rows.sort_values(["sha256", "second", "path"])
    _check_labels(rows)
    _check_frozen(rows, kept)
    sessions = session_keys(rows, settings.by)
    try:
        role, reason = _roles(rows, sessions, settings, seed, kept)
    except _TooFewUnitsError:
        if settings.by != "auto" or not (sessions != "").any():
            raise
        # Known sessions that are too few are no reason to have no model; `session_facts` then says that they parted.
        role, reason = _roles(rows, session_keys(rows, "group"), settings, seed, kept)
    result = manifest.copy()
    result["role"] = role.sort_index().astype("str").to_numpy()
    result["reason"] = reason.sort_index().astype("str").to_numpy()
    return result, kept or _freeze(rows[role == "holdout"], seed, settings)


def _roles(
    rows: pd.DataFrame,
    sessions: "pd.Series[str]",
    settings: SplitSettings,
    seed: int,
    kept: FrozenHoldout | None,
) -> "tuple[pd.Series[str], pd.Series[str]]":
    """Role and reason of each row; rows of one session do not part."""
    frozen_hashes = {image.sha256 for image in kept.images} if kept else set()
    role = pd.Series("", index=rows.index, dtype=object)
    reason = pd.Series("", index=rows.index, dtype=object)
    # Of images with the same bytes one is used; the others only say which groups belong together.
    original = rows.groupby("sha256", sort=False)["path"].transform("first")
    copies = rows["sha256"].duplicated()
    role[copies] = "excluded"
    reason[copies] = "same bytes as " + original[copies]

    ties = _Ties(rows, sessions, settings.near_duplicate_bits)
    good = (rows["label"] == "good") & ~copies
    if kept is None:
        role[(rows["label"] == "defect") & ~copies] = "holdout"
    else:
        held = rows["sha256"].isin(frozen_hashes) & ~copies
        role[held] = "holdout"
        late = (rows["label"] == "defect") & (role == "")
        role[late] = "excluded"
        reason[late] = _array(late_reason(rows.loc[index]) for index in rows.index[late])
        held_units = dict(zip(ties.unit[held & good], rows["path"][held & good], strict=True))
        tied = good & (role == "") & ties.unit.isin(held_units)
        role[tied] = "excluded"
        reason[tied] = _array(
            f"near copy of the holdout image {held_units[unit]}, or of its group" for unit in ties.unit[tied]
        )
    twins = ties.near_defects((role == "holdout") & (rows["label"] == "defect"))
    twins = twins[good[twins.index] & (role[twins.index] == "")]
    role[twins.index] = "excluded"
    reason[twins.index] = _array(f"near copy of the defect image {path} in the holdout" for path in twins)

    units = _units(rows.assign(unit=ties.unit, session=sessions)[role == ""])
    count = int((good & role.isin(["", "holdout"])).sum())
    role.update(_assign(units, count, settings, seed, first=kept is None))
    return role, reason


def _array(texts: Iterable[str]) -> NDArray[np.object_]:
    return np.array(list(texts), dtype=object)


def _check_labels(rows: pd.DataFrame) -> None:
    labels = rows.groupby("sha256")["label"].nunique()
    both = rows[rows["sha256"].isin(labels[labels > 1].index)]
    if len(both):
        first = both[both["sha256"] == both["sha256"].iloc[0]].drop_duplicates("label").sort_values("label")
        defect, good = first["path"]
        more = int((labels > 1).sum()) - 1
        raise CheckFailedError(
            f"{good} is labelled good and {defect}, the same bytes, defect"
            + (f" (and {more} more such images)" if more else "")
            + "; remove the wrong one and run `morphad ingest` again"
        )


def _check_frozen(rows: pd.DataFrame, frozen: FrozenHoldout | None) -> None:
    there = set(rows["sha256"])
    missing = [image.path for image in frozen.images if image.sha256 not in there] if frozen else []
    if missing:
        listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise CheckFailedError(
            f"images of the frozen holdout are missing: {listed}; restore them, or set split.renew_holdout "
            "(figures before and after are then not comparable)"
        )


class _TooFewUnitsError(CheckFailedError):
    """There are fewer units than roles."""


class _Ties:
    """Which images belong together.

    Attributes:
        unit: For each row the number of its unit: rows of the same bytes, and good rows of one group or session or near
            copies.
    """

    def __init__(self, rows: pd.DataFrame, sessions: "pd.Series[str]", bits: int) -> None:
        hashes, number = np.unique(rows["perceptual_hash"].to_numpy(str), return_inverse=True)
        self._rows, self._number = rows, pd.Series(number.astype(np.int64), index=rows.index)
        self._pairs: list[tuple[Indices, Indices]] = []
        self._bits = bits
        self._hashes: list[str] = hashes.tolist()
        good = (rows["label"] == "good").to_numpy()
        has_good = np.zeros(len(hashes), bool)
        has_good[number[good]] = True
        has_defect = np.zeros(len(hashes), bool)
        has_defect[number[~good]] = True

        def near() -> Iterator[tuple[Indices, Indices]]:
            for left, right in near_pairs(self._hashes, bits):
                mixed = (has_good[left] & has_defect[right]) | (has_defect[left] & has_good[right])
                if mixed.any():
                    self._pairs.append((left[mixed], right[mixed]))
                both = has_good[left] & has_good[right]
                yield left[both], right[both]

        position = np.arange(len(rows), dtype=np.int64)
        hashed = components(len(hashes), near())[number]

        def links() -> Iterator[tuple[Indices, Indices]]:
            yield _chains(position, rows["sha256"].to_numpy(str))
            for keys in (rows["group"].to_numpy(str), sessions.to_numpy(str)):
                known = good & (keys != "")
                yield _chains(position[known], keys[known])
            if bits:
                yield _chains(position[good], hashed[good])

        self.unit = pd.Series(components(len(rows), links()), index=rows.index)

    def near_defects(self, defects: "pd.Series[bool]") -> "pd.Series[str]":
        """For each row that is a near copy of one of the given defect rows, the path of that defect."""
        if not self._bits:
            return pd.Series([], dtype="str")
        paths = dict(zip(self._number[defects], self._rows["path"][defects], strict=True))
        near = dict(paths)
        for left, right in self._pairs:
            for a, b in zip(left.tolist(), right.tolist(), strict=True):
                if b in paths:
                    near.setdefault(a, paths[b])
                if a in paths:
                    near.setdefault(b, paths[a])
        return self._number.map(near).dropna()


def _chains(position: Indices, keys: Any) -> tuple[Indices, Indices]:
    """Link each position to the next one with the same key."""
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    return position[order][:-1][same], position[order][1:][same]


@dataclass(frozen=True)
class _Unit:
    identity: str
    members: tuple[int, ...]

    def key(self, seed: int, purpose: str) -> str:
        return hashlib.sha256(f"{seed}:{purpose}:{self.identity}".encode()).hexdigest()


def _units(rows: pd.DataFrame) -> list[_Unit]:
    # A group or session names its unit for good; without one the smallest hash does, so near copies can rename it.
    names = ("group " + rows["group"]).where(rows["group"] != "", rows["session"])
    members: dict[int, list[tuple[int, str, str]]] = {}
    for index, unit, name, digest in zip(rows.index, rows["unit"], names, rows["sha256"], strict=True):
        members.setdefault(unit, []).append((index, name, digest))
    return [
        _Unit(
            min((name for _, name, _ in images if name), default=min(digest for _, _, digest in images)),
            tuple(index for index, _, _ in images),
        )
        for images in members.values()
    ]


def _assign(units: list[_Unit], count: int, settings: SplitSettings, seed: int, first: bool) -> "pd.Series[str]":
    """Roles of the members of units: holdout (at first) and calibration by their share of `count`, train the rest."""
    needed = 3 if first else 2
    if len(units) < needed:
        raise _TooFewUnitsError(_too_few(len(units), sum(len(unit.members) for unit in units), needed))
    roles = {index: "train" for unit in units for index in unit.members}
    shares = [("holdout", settings.holdout, 2)] if first else []
    for name, share, spare in [*shares, ("calibration", settings.calibration, 1)]:
        units = sorted(units, key=partial(_Unit.key, seed=seed, purpose=name))
        chosen = _fill(units, share * count, spare)
        roles.update({index: name for unit in chosen for index in unit.members})
        taken = {unit.identity for unit in chosen}
        units = [unit for unit in units if unit.identity not in taken]
    return pd.Series(roles)


def _fill(units: Sequence[_Unit], target: float, spare: int) -> list[_Unit]:
    """Units in order, each where it brings the count of images nearer to the target; at least one, and `spare` left."""
    chosen: list[_Unit] = []
    gap = target
    for unit in units:
        if len(units) - len(chosen) > spare and len(unit.members) <= 2 * gap:
            chosen.append(unit)
            gap -= len(unit.members)
    return chosen or [min(units, key=lambda unit: len(unit.members))]


def _too_few(units: int, images: int, needed: int) -> str:
    purpose = "train, calibration and holdout" if needed == 3 else "train and calibration beside the frozen holdout"
    return (
        f"{images} good images make {units} independent unit{'' if units == 1 else 's'} (images of one group or "
        f"session, and near copies, are one); at least {needed} are needed for {purpose}. Add good images, give finer "
        "groups or another split.by, or, where different parts are nearly alike, lower split.near_duplicate_bits (0 "
        "ties only equal bytes)"
    )


def _freeze(rows: pd.DataFrame, seed: int, settings: SplitSettings) -> FrozenHoldout:
    columns = (rows[name] for name in ("sha256", "path", "label", "defect"))
    return FrozenHoldout.of((FrozenImage(*image) for image in zip(*columns, strict=True)), seed, settings)
