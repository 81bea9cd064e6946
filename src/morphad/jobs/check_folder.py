"""Any folder of images held against the data contract, without a project."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from morphad.base.errors import BadInputError
from morphad.base.files import write_json
from morphad.data.contract import Result, check_manifest
from morphad.data.images import decode
from morphad.data.manifest import read_manifest
from morphad.data.snapshot.copying import Reject, look
from morphad.data.source.finding import find_images
from morphad.report.contract_page import write_contract_page
from morphad.settings import IngestSettings, ValidateSettings
from morphad.steps.paths import LinePaths

Pixels = Callable[[str], NDArray[np.uint8]]


@dataclass(frozen=True)
class Rules:
    """What images are held against.

    Attributes:
        line: The line that they are said to be of; "" for whatever they say themselves.
        validate: Limits and weights.
        ingest: How images are decoded, and where metadata beside them are; source and path are not used.
        reference: The reference's manifest; None without one.
    """

    line: str
    validate: ValidateSettings
    ingest: IngestSettings
    reference: pd.DataFrame | None = None


def check_folder(
    place: Path,
    rules: Rules,
    *,
    json: Path | None = None,
    page: Path | None = None,
    data_docs: Path | None = None,
    aside: list[str] | None = None,
) -> Result:
    """Hold images against the contract; files are written whatever was found.

    Args:
        place: A folder in MVTec AD layout or flat; a listing (.csv); or a manifest (.parquet), with or without roles,
            whose images lie in images/ beside it.
        rules: What they are held against.
        json: A file for `Result.to_json`; None for none.
        page: A file for the page; None for none.
        data_docs: A folder for the pages of Great Expectations; None for none.
        aside: Gets the names of the files of a folder that are no images.

    Raises:
        BadInputError: There are no images, their layout is none that is known, or a file cannot be written.
    """
    if not place.exists():
        raise BadInputError(f"{place}: not found; give a folder of images, a listing (.csv) or a manifest (.parquet)")
    rows, rejects, pixels = _manifest(place, rules) if place.suffix == ".parquet" else _images(place, rules, aside)
    line = rules.line or (str(rows["line"].iloc[0]) if len(rows) else place.name)
    result = check_manifest(
        rows,
        rules.validate,
        line,
        reference=rules.reference,
        rejects=rejects,
        white_level=rules.ingest.white_level,
        data_docs=data_docs,
    )
    if json is not None:
        write_json(json, result.to_json())
    if page is not None:
        write_contract_page(page, result, rows, rules.reference, pixels=pixels)
    return result


def reference_of(name: str) -> pd.DataFrame:
    """The manifest that a reference is given by: its file, or a line of the project in this folder.

    Raises:
        BadInputError: There is neither such a file nor a line whose champion's data are known.
    """
    path = Path(name)
    if path.suffix == ".parquet" or path.is_file():
        return read_manifest(path)
    stored = LinePaths.checkout(Path(), name).reference
    rows = read_manifest(stored) if stored.exists() else None
    if rows is None or rows.empty:
        raise BadInputError(
            f"--reference {name}: neither a manifest (.parquet) nor a line with a champion ({stored}); "
            "give a manifest, such as data/LINE/manifest.parquet"
        )
    return rows


def _images(place: Path, rules: Rules, aside: list[str] | None) -> tuple[pd.DataFrame, list[Reject], Pixels]:
    source = "listing" if place.suffix.lower() == ".csv" else "folder"
    metadata = rules.ingest.metadata.model_copy(update={"tags": {}})  # files have none
    settings = rules.ingest.model_copy(
        update={"source": source, "path": str(place), "limit": None, "metadata": metadata}
    )
    sources = find_images(settings, aside=aside)
    rows, rejects = look(sources, settings, rules.line or place.resolve().name)
    files = {image.name: image.file for image in sources}
    return rows, rejects, lambda path: _decoded(files[path], settings)


def _manifest(place: Path, rules: Rules) -> tuple[pd.DataFrame, list[Reject], Pixels]:
    return read_manifest(place), [], lambda path: _decoded(place.parent / "images" / path, rules.ingest)


def _decoded(file: Path, settings: IngestSettings) -> NDArray[np.uint8]:
    return decode(file, settings.decoding).pixels
