"""Where a line's images come from: a folder, a listing, the packaged demonstration set."""

import csv
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from morphad.data.images import SUFFIXES
from morphad.errors import BadInputError
from morphad.settings import IngestSettings

SPLITS = ("train", "validation", "test")
COLUMNS = ("path", "label", "defect", "mask", "group", "acquired")


@dataclass(frozen=True)
class SourceImage:
    """One image as its source knows it, not yet opened.

    Attributes:
        file: Where its bytes are.
        name: Its path within the snapshot: relative, posix, no "..".
        label: "good" or "defect".
        defect: The kind of defect; "" for good.
        origin: The published or given part it comes from, such as "train/good"; "" unknown.
        mask: The file that marks the defect's pixels, where there is one.
        group: What it must not be parted from (lot, shift, camera, part); "" unknown.
        acquired: When it was taken, ISO 8601, where known.
    """

    file: Path
    name: str
    label: str
    defect: str = ""
    origin: str = ""
    mask: Path | None = None
    group: str = ""
    acquired: str | None = None


def find_images(settings: IngestSettings) -> list[SourceImage]:
    """The images of a line, sorted by name, thinned to `settings.limit` of good and of each defect kind.

    Raises:
        BadInputError: The source is missing, empty, or contradicts itself; the message names the file, row or column.
    """
    images = sorted(_SOURCES[settings.source](str(settings.path)), key=lambda image: image.name)
    if not images:
        raise BadInputError(f"{settings.path}: no images found; expected files ending in {', '.join(sorted(SUFFIXES))}")
    _check_names(images)
    return images if settings.limit is None else _thinned(images, settings.limit)


def _from_folder(path: str) -> list[SourceImage]:
    """MVTec AD layout where there is a train, validation or test folder, otherwise a flat folder of good images."""
    root = Path(path)
    if not root.is_dir():
        raise BadInputError(f"{path}: {'not a folder' if root.exists() else 'folder not found'}; set ingest.path")
    files = _image_files(root)
    if any((root / split).is_dir() for split in SPLITS):
        return _from_mvtec(root, files)
    nested = [file for file in files if len(file.parts) > 1]
    if nested:
        raise BadInputError(
            f"{path}: {_some(nested)} lie in subfolders, and a flat folder holds good images only; arrange them as "
            "train/good, test/good, test/<defect kind>, or give a listing (ingest.source: listing)"
        )
    return [SourceImage(root / file, str(file), "good") for file in files]


def _from_mvtec(root: Path, files: list[PurePosixPath]) -> list[SourceImage]:
    masks = {file for file in files if file.parts[0] == "ground_truth"}
    pictures = [file for file in files if file not in masks]
    stray = [file for file in pictures if file.parts[0] not in SPLITS or len(file.parts) < 3]
    if stray:
        raise BadInputError(
            f"{root}: {_some(stray)} lie outside {', '.join(f'{split}/<kind>' for split in SPLITS)} and ground_truth; "
            "move them where they belong, or out of the folder"
        )
    by_stem = {file.with_suffix(""): file for file in sorted(masks, reverse=True)}
    used: set[PurePosixPath] = set()
    images = []
    for file in pictures:
        split, kind = file.parts[:2]
        place = PurePosixPath("ground_truth", *file.parts[1:-1])
        candidates = [by_stem.get(place / f"{file.stem}_mask"), by_stem.get(place / file.stem)]
        mask = None if split == "train" else next((found for found in candidates if found is not None), None)
        if mask is not None:
            used.add(mask)
        images.append(
            SourceImage(
                root / file,
                str(file),
                "good" if kind == "good" else "defect",
                "" if kind == "good" else kind,
                f"{split}/{kind}",
                None if mask is None else root / mask,
            )
        )
    if masks - used:
        raise BadInputError(
            f"{root}: {_some(sorted(masks - used))} mask no image; a mask is ground_truth/<kind>/<name>_mask.png or "
            "<name>.png of test/<kind>/<name>.*: add the image, or remove the mask"
        )
    return images


def _image_files(root: Path) -> list[PurePosixPath]:
    """Files with an image suffix below `root`, relative to it and sorted; hidden files and folders are left out."""
    home = root.resolve()
    found = []
    for folder, folders, names in os.walk(root, onerror=_cannot_list):
        for entry in [*folders, *names]:
            path = Path(folder, entry)
            if path.is_symlink() and not entry.startswith(".") and not path.resolve().is_relative_to(home):
                raise BadInputError(f"{path}: a link that leads out of {root}; put the files themselves there")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES and path.is_file():
                found.append(PurePosixPath(path.relative_to(root).as_posix()))
    return sorted(found)


def _cannot_list(error: OSError) -> None:
    raise BadInputError(
        f"{error.filename}: cannot list this folder ({error.strerror}); check its permissions"
    ) from error


def _from_listing(path: str) -> list[SourceImage]:
    """A CSV (UTF-8, commas) or parquet table with one row an image; paths are relative to the table's folder."""
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
                rows.append({name: cell.strip() for name, cell in zip(header, cells, strict=True)})
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
            f"{listing}: column `path` is missing; the header is {', '.join(header) or 'empty'}, expected some of "
            f"{', '.join(COLUMNS)}, separated by commas"
        )
    # An unknown column is refused, because a misspelt `label` would make every image good.
    for name in header:
        if name not in COLUMNS:
            raise BadInputError(f"{listing}: unknown column {name!r}; allowed: {', '.join(COLUMNS)}")
        if list(header).count(name) > 1:
            raise BadInputError(f"{listing}: column {name!r} is there twice; keep one")


def _from_row(listing: Path, number: int, row: dict[str, str]) -> SourceImage:
    def wrong(column: str, problem: str) -> BadInputError:
        return BadInputError(f"{listing}: row {number}, column {column}: {problem}")

    def inside(column: str) -> Path:
        value = row[column]
        home = listing.parent.resolve()
        path = Path(os.path.normpath(home / value))
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
    return SourceImage(
        file,
        file.relative_to(listing.parent.resolve()).as_posix(),
        label,
        "" if label == "good" else defect or "defect",
        "",
        inside("mask") if row.get("mask") else None,
        row.get("group", ""),
        acquired or None,
    )


def _from_demo(path: str) -> list[SourceImage]:
    """Cells of photovoltaic modules: good where experts are sure, defective where they are, the doubtful left out."""
    if path not in {"mono", "poly"}:
        raise BadInputError(f"ingest.path = {path!r}: the demo lines are mono and poly")
    try:
        package = resources.files("elpv_dataset")
    except ModuleNotFoundError as error:
        raise BadInputError('the demo images are not installed; run: pip install "morphad[demo]"') from error
    folder = Path(str(package)) / "data"
    images = []
    for row in (folder / "labels.csv").read_text(encoding="utf-8").splitlines():
        name, probability, kind = row.split()
        if kind == path and float(probability) in {0.0, 1.0}:
            good = float(probability) == 0
            images.append(
                SourceImage(folder / name, name, "good" if good else "defect", "" if good else "defective", "elpv")
            )
    return images


def licence(settings: IngestSettings) -> str:
    """What the source's licence asks to be told with its images; empty where the images are the user's own."""
    if settings.source != "demo":
        return ""
    return (
        "Images: elpv-dataset (Buerhop-Lutz et al., 2018; Deitsch et al., 2019, 2021), ZAE Bayern, CC BY-NC-SA 4.0: "
        "for trying morphad out, not for commercial use."
    )


# An object store joins here: list its objects below a prefix, fetch them to a cache, name the cached files.
_SOURCES: dict[str, Callable[[str], list[SourceImage]]] = {
    "folder": _from_folder,
    "listing": _from_listing,
    "demo": _from_demo,
}


def _check_names(images: Sequence[SourceImage]) -> None:
    for image in images:
        # Control characters, and bytes that are not UTF-8, which no table or page can hold.
        if any(unicodedata.category(character) in {"Cc", "Cs"} for character in image.name):
            raise BadInputError(f"{image.name!a}: the file name holds characters that cannot be printed; rename it")


def _thinned(images: Sequence[SourceImage], limit: int) -> list[SourceImage]:
    """At most `limit` of good and of each kind of defect, evenly spaced, so that a line's whole time is represented."""
    kinds: dict[tuple[str, str], list[SourceImage]] = {}
    for image in images:
        kinds.setdefault((image.label, image.defect), []).append(image)
    kept: list[SourceImage] = []
    for same in kinds.values():
        count = min(limit, len(same))
        kept += [same[position * len(same) // count] for position in range(count)]
    return sorted(kept, key=lambda image: image.name)


def _some(paths: Iterable[PurePosixPath]) -> str:
    """The first three paths, and how many more."""
    names = [str(path) for path in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
