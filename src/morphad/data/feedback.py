"""Operators' verdicts from the line: read, joined to the manifest with who and when, and applied by the split."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from morphad.base.errors import BadInputError
from morphad.base.text import plain_cell

VERDICTS = ("false_reject", "escape")
COLUMNS = ("verdict", "verdict_defect", "verdict_by", "verdict_at", "verdict_comment")
_SOURCE = {name: f"source_{name}" for name in ("label", "defect", "mask", "mask_sha256")}
_KEYS = ("image", "verdict", "defect", "by", "at", "comment")
_REQUIRED = ("image", "verdict", "by", "at")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class OperatorVerdict:
    """What an operator found out about one image.

    Attributes:
        image: Its path in the snapshot, or its SHA-256.
        verdict: "false_reject": rejected, and good; "escape": accepted, and a defect.
        defect: The kind of defect of an escape; "" unknown.
        by: Who says so.
        at: When, ISO 8601, UTC.
        comment: Whatever else was said.
    """

    image: str
    verdict: str
    defect: str
    by: str
    at: str
    comment: str

    @property
    def in_words(self) -> str:
        """In a few words."""
        kind = f" ({self.defect})" if self.defect else ""
        return f"{self.verdict.replace('_', ' ')}{kind} by {self.by} at {self.at}"


@dataclass(frozen=True)
class Feedback:
    """What became of a feed.

    Attributes:
        verdicts: How many the feed holds.
        images: How many images of the snapshot have one.
        unknown: Images of the feed that the snapshot does not hold.
        contradictions: For each image with verdicts that differ, all of them; the last one holds.
    """

    verdicts: int = 0
    images: int = 0
    unknown: tuple[str, ...] = ()
    contradictions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a value for `write_json`."""
        return asdict(self)

    def remarks(self) -> list[str]:
        """What somebody should check."""
        said = []
        if self.unknown:
            listed = ", ".join(self.unknown[:3]) + (" ..." if len(self.unknown) > 3 else "")
            said.append(f"{len(self.unknown)} verdicts are about images that the line does not have: {listed}")
        for image, verdicts in list(self.contradictions.items())[:3]:
            said.append(f"verdicts on {image} contradict each other, the last one holds: {'; '.join(verdicts)}")
        if len(self.contradictions) > 3:
            said.append(f"verdicts on {len(self.contradictions) - 3} more images contradict each other")
        return said


def read_verdicts(place: str) -> list[OperatorVerdict]:
    """Read a feed: a CSV table (UTF-8, commas) or a JSON list of objects, in a file or at s3://bucket/key.

    Each row has `image`, `verdict`, `by`, `at`, and may have `defect` and `comment`. A time without a zone is UTC.

    Raises:
        BadInputError: The feed is missing or malformed; the message names place, row and column.
        ServiceError: S3 does not answer.
    """
    try:
        text = _read(place).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise BadInputError(f"{place}: no verdicts there; create the file, or remove ingest.verdicts") from error
    except OSError as error:
        raise BadInputError(f"{place}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{place}: not UTF-8 ({error.reason} at byte {error.start})") from error
    rows = _from_json(text, place) if place.lower().endswith(".json") else _from_csv(text, place)
    return [_checked(row, f"{place}: row {number}") for number, row in rows]


def join_verdicts(manifest: pd.DataFrame, verdicts: Sequence[OperatorVerdict]) -> tuple[pd.DataFrame, Feedback]:
    """Write beside every image the verdict on it, with who and when; labels stay as the source has them.

    A verdict on one image holds for all images with the same bytes. Of several the one with the latest time holds.

    Args:
        manifest: Rows of `read_manifest`.
        verdicts: Of `read_verdicts`.

    Returns:
        The manifest with `COLUMNS`, and what became of the feed.
    """
    digest_of = dict(zip(manifest["path"], manifest["sha256"], strict=True))
    paths = manifest.drop_duplicates("sha256").set_index("sha256")["path"]
    by_image: dict[str, list[OperatorVerdict]] = {}
    unknown: dict[str, None] = {}
    for verdict in sorted(verdicts, key=lambda verdict: verdict.at):
        digest = digest_of.get(verdict.image, verdict.image)
        if digest in paths.index:
            by_image.setdefault(digest, []).append(verdict)
        else:
            unknown[verdict.image] = None
    held = {digest: given[-1] for digest, given in by_image.items()}
    contradictions = {
        str(paths[digest]): tuple(verdict.in_words for verdict in given)
        for digest, given in by_image.items()
        if len({(verdict.verdict, verdict.defect) for verdict in given}) > 1
    }
    result = manifest.copy()
    for column in COLUMNS:
        values = {digest: getattr(verdict, column.removeprefix("verdict_")) for digest, verdict in held.items()}
        result[column] = _mapped(manifest, values)
    images = int((result["verdict"] != "").sum())
    return result, Feedback(len(verdicts), images, tuple(unknown), dict(sorted(contradictions.items())))


def apply_verdicts(manifest: pd.DataFrame, frozen: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Labels as they are used: the source's, overruled by verdicts, and those of a frozen holdout as they were frozen.

    Args:
        manifest: With or without `COLUMNS`.
        frozen: Label and kind of defect of the images of a frozen holdout, by SHA-256.

    Returns:
        The manifest with labels as they are used. Where one differs from the source's, columns `source_...` hold those;
        where something waits for a new holdout, a column `pending` says what.
    """
    rows = manifest.drop(columns=[*_SOURCE.values(), "pending"], errors="ignore").copy()
    used = rows.loc[:, list(_SOURCE)].copy()
    if "verdict" in rows:
        good = rows["verdict"] == "false_reject"
        used.loc[good, "label"] = "good"
        used.loc[good, "defect"] = ""
        escape = rows["verdict"] == "escape"
        used.loc[escape, "label"] = "defect"
        named = escape & (rows["verdict_defect"] != "")
        used.loc[named, "defect"] = rows.loc[named, "verdict_defect"]
    label, defect = (_mapped(rows, {digest: image[n] for digest, image in frozen.items()}) for n in (0, 1))
    defect = defect.where((defect != "") | (label != rows["label"]), rows["defect"])
    waits = (label != "") & ((used["label"] != label) | (used["defect"] != defect))
    pending = pd.Series("", index=rows.index, dtype="str")
    for index in rows.index[waits]:
        pending[index] = _pending(rows.loc[index], used.loc[index])
    used.loc[waits, "label"], used.loc[waits, "defect"] = label[waits], defect[waits]
    used.loc[(used["label"] == "good") & (rows["label"] != "good"), ["mask", "mask_sha256"]] = ""
    if not used.equals(rows[list(_SOURCE)]):
        rows[list(_SOURCE.values())] = rows[list(_SOURCE)].to_numpy()
        rows[list(_SOURCE)] = used
        rows.loc[rows["mask"] != rows["source_mask"], "masked"] = 0.0
    if (pending != "").any():
        rows["pending"] = pending
    return rows


def as_ingested(rows: pd.DataFrame) -> pd.DataFrame:
    """The manifest that a split was made from, as far as it is given: without roles, labels as the source has them."""
    given = rows.drop(columns=["role", "reason", "pending", *_SOURCE.values()], errors="ignore")
    for name, source in _SOURCE.items():
        if source in rows:
            given[name] = rows[source]
    return given


def late_reason(row: pd.Series) -> str:
    """Why a defect is not used that was none, or not there, when the holdout was frozen."""
    if row.get("verdict", "") != "escape":
        return "arrived after the holdout was frozen; set split.renew_holdout to draw a new one"
    return (
        f"a defect by the verdict of {row['verdict_by']} at {row['verdict_at']}, after the holdout was frozen; set "
        "split.renew_holdout to draw a new one"
    )


def _mapped(rows: pd.DataFrame, by_sha256: Mapping[str, str]) -> "pd.Series[str]":
    return rows["sha256"].map(by_sha256).fillna("").astype("str")


def _pending(row: pd.Series, used: pd.Series) -> str:
    kind = f" ({used['defect']})" if used["defect"] else ""
    if row.get("verdict", ""):
        whose = f"{row['verdict'].replace('_', ' ')} by {row['verdict_by']} at {row['verdict_at']}"
    else:
        whose = "the source's new label"
    return f"{whose}: {used['label']}{kind} with split.renew_holdout"


def _from_csv(text: str, place: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        header = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        rows = list(enumerate(map(_plain, reader), 2))  # as a spreadsheet counts: the header is row 1
    except csv.Error as error:
        raise BadInputError(f"{place}: not a CSV table ({error})") from error
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise BadInputError(
            f"{place}: column {missing[0]!r} is missing; the header is {', '.join(header) or 'empty'}, expected "
            f"{', '.join(_KEYS)} (defect and comment may be left out), separated by commas"
        )
    for number, row in rows:
        if None in row or None in row.values():
            raise BadInputError(f"{place}: row {number} has not {len(header)} cells as the header")
    return rows


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it was before its cells were made harmless, as those that were copied from our tables are."""
    return {name: plain_cell(cell) if isinstance(cell, str) else cell for name, cell in row.items()}


def _from_json(text: str, place: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInputError(f"{place}: not valid JSON ({error})") from error
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise BadInputError(f"{place}: expected a list of objects with the keys {', '.join(_KEYS)}")
    return list(enumerate(value, 1))


def _checked(row: dict[str, Any], where: str) -> OperatorVerdict:
    unknown = set(row) - set(_KEYS)
    if unknown:
        raise BadInputError(f"{where}: unknown {sorted(unknown)[0]!r}; allowed: {', '.join(_KEYS)}")
    texts = {}
    for key in _KEYS:
        value = row.get(key) or ""
        if not isinstance(value, str):
            raise BadInputError(f"{where}: {key} = {value!r}: expected text")
        texts[key] = value.strip()
        if key in _REQUIRED and not texts[key]:
            raise BadInputError(f"{where}: {key} is missing")
    if texts["verdict"] not in VERDICTS:
        raise BadInputError(f"{where}: verdict = {texts['verdict']!r}: expected {' or '.join(VERDICTS)}")
    if texts["verdict"] == "false_reject" and texts["defect"]:
        raise BadInputError(f"{where}: defect = {texts['defect']!r} of a false reject; leave it empty for a good part")
    try:
        at = datetime.fromisoformat(texts["at"])
    except ValueError as error:
        raise BadInputError(f"{where}: at = {texts['at']!r}: expected a time such as 2025-03-01T14:05:00Z") from error
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    if _SHA256.fullmatch(texts["image"].lower()):
        texts["image"] = texts["image"].lower()
    return OperatorVerdict(**texts | {"at": at.isoformat(timespec="seconds")})


def _read(place: str) -> bytes:
    if not place.startswith("s3://"):
        return Path(place).read_bytes()
    from morphad.data.source.s3 import read_object  # noqa: PLC0415 -- boto3 needs half a second

    return read_object(place)
