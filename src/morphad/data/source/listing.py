"""A table with one row an image: where it is, what it shows, where and when it was taken."""

import csv
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from morphad.base.errors import BadInputError
from morphad.base.text import no_path_column, plain_cell

COLUMNS = ("path", "label", "defect", "mask", "group", "lot", "shift", "camera", "acquired")


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of a listing, checked: image and mask exist, `name` is the image's path below the listing's folder."""

    name: str
    label: str
    defect: str
    mask: Path | None
    given: dict[str, str]  # group, lot, shift, camera, acquired; "" unknown


def read_listing(path: str) -> list[Listed]:
    """Read a CSV (UTF-8, commas) or parquet table; paths are relative to the table's folder.

    Raises:
        BadInputError: Naming file, row and column of what is wrong.
    """
    listing = Path(path)
    if not listing.is_file():
        raise BadInputError(f"{path}: listing not found; set ingest.path to a .csv or .parquet file")
    if listing.suffix.lower() == ".csv":
        header, rows = _read_csv(listing)
        first = 2  # as a spreadsheet counts: the header is row 1
    elif listing.suffix.lower() == ".parquet":
        header, rows = _read_parquet(listing)
        first = 1
    else:
        raise BadInputError(f"{path}: a listing is a .csv or a .parquet file")
    _check_header(listing, header)
    images = [_from_row(listing, number, row) for number, row in enumerate(rows, first)]
    seen: dict[str, int] = {}
    for number, image in enumerate(images, first):
        if image.name in seen:
            raise BadInputError(
                f"{path}: row {number}, column path: {image.name} is listed before, in row {seen[image.name]}; keep one"
            )
        seen[image.name] = number
    return images


def _read_csv(listing: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    try:
        with listing.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = []
            for number, cells in enumerate(reader, 2):
                if not cells:
                    raise BadInputError(f"{listing}: row {number} is empty; remove it")
                if len(cells) != len(header):
                    raise BadInputError(
                        f"{listing}: row {number} has {len(cells)} cells, expected {len(header)} as in the header"
                    )
                rows.append({name: plain_cell(cell.strip()) for name, cell in zip(header, cells, strict=True)})
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadInputError(f"{listing}: not a CSV table in UTF-8 ({error})") from error
    except OSError as error:
        raise BadInputError(f"{listing}: cannot read it ({error.strerror})") from error
    return header, rows


def _read_parquet(listing: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    try:
        table = pd.read_parquet(listing)
    except (OSError, ValueError) as error:
        raise BadInputError(f"{listing}: not a parquet table ({str(error).splitlines()[0]})") from error
    rows = [{str(name): _text(value) for name, value in row.items()} for row in table.to_dict("records")]
    return [str(name) for name in table.columns], rows


def _text(value: Any) -> str:
    if isinstance(value, (date, datetime)) and not pd.isna(value):
        return value.isoformat()
    return "" if pd.isna(value) else str(value).strip()


def _check_header(listing: Path, header: Sequence[str]) -> None:
    if "path" not in header:
        raise BadInputError(
            f"{listing}: {no_path_column(header)}; a listing has some of the columns {', '.join(COLUMNS)}"
        )
    # An unknown column is refused, because a misspelt `label` would make every image good.
    for name in header:
        if name not in COLUMNS:
            raise BadInputError(f"{listing}: unknown column {name!r}; allowed: {', '.join(COLUMNS)}")
        if list(header).count(name) > 1:
            raise BadInputError(f"{listing}: column {name!r} is there twice; keep one")


def spelled_as_on_disk(path: Path) -> Path:
    """A path that is not there as it is there: é may be written as one sign (NFC) or as two (NFD, by macOS)."""
    if path.exists() or path.parent == path:
        return path
    parent = spelled_as_on_disk(path.parent)
    wanted = unicodedata.normalize("NFC", path.name)
    same = [name for name in _names_in(parent) if unicodedata.normalize("NFC", name) == wanted]
    return parent / (same[0] if len(same) == 1 else path.name)


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except (OSError, ValueError):  # the latter for a NUL in the name
        return []


def _from_row(listing: Path, number: int, row: dict[str, str]) -> Listed:
    def wrong(column: str, problem: str) -> BadInputError:
        return BadInputError(f"{listing}: row {number}, column {column}: {problem}")

    def inside(column: str) -> Path:
        value = row[column]
        home = listing.parent.resolve()
        path = spelled_as_on_disk(Path(os.path.normpath(home / value)))
        if "\0" in value or not path.is_relative_to(home) or not path.resolve().is_relative_to(home):
            raise wrong(column, f"{value!r} leads out of {listing.parent}; list files at or below the listing's folder")
        if not path.is_file():
            hint = "; write folders with / and not with a backslash" if "\\" in value else ""
            raise wrong(column, f"{value!r} is not a file in {listing.parent}{hint}")
        return path

    if not row["path"]:
        raise wrong("path", "is empty; expected an image's path relative to the listing's folder")
    file = inside("path")
    defect = row.get("defect", "")
    label = row.get("label", "") or ("defect" if defect else "good")
    if label not in {"good", "defect"}:
        raise wrong("label", f"{label!r}; expected good or defect")
    if defect and (label == "good" or defect == "good"):
        raise wrong("defect", f"{defect!r} of an image labelled {label}; leave it empty for a good image")
    acquired = row.get("acquired", "")
    if acquired:
        try:
            datetime.fromisoformat(acquired)
        except ValueError:
            raise wrong("acquired", f"{acquired!r}; expected ISO 8601, such as 2025-03-31T14:05:00") from None
    return Listed(
        file.relative_to(listing.parent.resolve()).as_posix(),
        label,
        "" if label == "good" else defect or "defect",
        inside("mask") if row.get("mask") else None,
        {column: row.get(column, "") for column in COLUMNS[4:]},
    )
