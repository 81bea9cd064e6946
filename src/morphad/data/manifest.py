"""One row an image: what it is called, what it holds, what it looks like; and the snapshot of bytes behind it."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import imagehash
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy import ndimage

from morphad.data.images import Image, UnreadableImageError, decode
from morphad.data.loading import in_order, read_mask
from morphad.data.sources import SourceImage
from morphad.errors import BadInputError
from morphad.files import atomic_file, cannot_write, sha256_json
from morphad.progress import track
from morphad.settings import IngestSettings

SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # relative to the snapshot, posix
        ("sha256", pa.string()),  # of the file's bytes
        ("line", pa.string()),
        ("label", pa.string()),  # good, defect
        ("defect", pa.string()),  # kind of defect; "" for good
        ("mask", pa.string()),  # relative to the snapshot; "" for none
        ("mask_sha256", pa.string()),  # of the mask file's bytes; "" for none
        ("group", pa.string()),  # lot, shift, camera, part; "" unknown
        ("origin", pa.string()),  # part of the source, such as train/good; "" unknown
        ("acquired", pa.string()),  # ISO 8601; "" unknown
        ("bytes", pa.int64()),
        ("height", pa.int64()),  # px
        ("width", pa.int64()),  # px
        ("mode", pa.string()),  # pixel layout in the file: L, RGB, I;16, ...
        ("bit_depth", pa.int64()),  # 8, 16
        ("brightness", pa.float64()),  # mean grey level, 0..255
        ("contrast", pa.float64()),  # standard deviation of grey levels
        ("sharpness", pa.float64()),  # variance of the Laplacian of grey levels
        ("dark", pa.float64()),  # fraction of pixels at 0
        ("saturated", pa.float64()),  # fraction of pixels at 255
        ("masked", pa.float64()),  # fraction of pixels under the mask; 0 without a mask
        ("perceptual_hash", pa.string()),  # 256 bits, hexadecimal
    ]
)

# What follows from an image's bytes, and what later steps add: no part of a snapshot's identity.
_DERIVED = {
    "bytes", "height", "width", "mode", "bit_depth", "brightness", "contrast", "sharpness", "dark", "saturated",
    "masked", "perceptual_hash", "role", "reason",
}  # fmt: skip


@dataclass(frozen=True)
class Reject:
    """A source image that was left out, and why."""

    name: str
    reason: str


def snapshot(
    source_images: Sequence[SourceImage], destination: Path, settings: IngestSettings, line: str, what: str
) -> tuple[pd.DataFrame, list[Reject]]:
    """Copy images and masks byte for byte into a folder and describe each; every file is read and decoded once.

    Images keep their names; the mask of an image goes to masks/ under the image's name.

    Args:
        source_images: What `find_images` found.
        destination: An empty folder, made if need be; the caller makes it appear whole (`atomic_directory`).
        settings: Limits of size, white level, and the number of rejects that is borne.
        line: The product line's name.
        what: A few words for the person who waits.

    Returns:
        The manifest in the order of the paths, with the columns of `SCHEMA`, and the rejects in their order.

    Raises:
        BadInputError: More than `settings.max_rejects` images are unreadable, none is readable, two images would have
            one name, or the folder cannot be written.
    """
    _check_collisions(source_images)

    def take(source: SourceImage) -> dict[str, Any] | Reject:
        return _take(source, destination, settings, line)

    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for outcome in track(in_order(take, source_images), what, total=len(source_images)):
        if isinstance(outcome, Reject):
            rejects.append(outcome)
        else:
            rows.append(outcome)
    if len(rejects) > settings.max_rejects or not rows:
        raise BadInputError(_explain(rejects, len(source_images), settings.max_rejects))
    rows.sort(key=lambda row: str(row["path"]))
    return _to_frame(pa.Table.from_pylist(rows, SCHEMA)), rejects


def write_manifest(manifest: pd.DataFrame, path: Path) -> None:
    """Write a manifest as parquet, whole or not at all; columns beyond `SCHEMA`, such as `role`, hold text."""
    further = [(name, pa.string()) for name in manifest.columns if name not in SCHEMA.names]
    schema = pa.schema([*SCHEMA, *further])
    table = pa.Table.from_pandas(manifest, schema, preserve_index=False).replace_schema_metadata(None)
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")  # hashes as text shrink to half


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest and check its columns and their types.

    Further columns, such as `role` and `reason` of a split, are kept.

    Raises:
        BadInputError: The file is missing, is not parquet, or is not a manifest.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: not found; run `morphad ingest` first") from error
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{path}: not a parquet file; remove it and run the step that writes it") from error
    for field in SCHEMA:
        if field.name not in table.column_names:
            raise BadInputError(f"{path}: column {field.name!r} is missing; run `morphad ingest` again")
        try:
            column = table[field.name].cast(field.type)
        except pa.ArrowException as error:
            raise BadInputError(
                f"{path}: column {field.name!r} holds {table[field.name].type}, expected {field.type}; "
                "run `morphad ingest` again"
            ) from error
        if column.null_count:
            raise BadInputError(f"{path}: column {field.name!r} has empty cells; run `morphad ingest` again")
        table = table.set_column(table.column_names.index(field.name), field, column)
    return _to_frame(table)


def manifest_id(manifest: pd.DataFrame) -> str:
    """The data hash: SHA-256 of what the images and their labels are, whatever their order and their names."""
    return sha256_json(sorted(manifest[["sha256", "label", "defect", "group"]].astype(str).to_numpy().tolist()))


def snapshot_id(manifest: pd.DataFrame) -> str:
    """The identity of a snapshot: SHA-256 of its sorted manifest.

    Other than `manifest_id`, which names what figures rest on, it covers everything that is given of an image: path,
    bytes, mask, labels, group, time. What is computed from the bytes is left out.
    """
    columns = sorted(set(manifest.columns) - _DERIVED)
    digest = hashlib.sha256(json.dumps(columns).encode())
    for row in manifest.sort_values("path")[columns].itertuples(index=False, name=None):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def statistics(image: Image) -> dict[str, float | str]:
    """What an image looks like, as the manifest's columns brightness to perceptual_hash (without `masked`)."""
    grey = image.grey
    levels = np.bincount(grey.ravel(), minlength=256) / grey.size
    brightness = float(levels @ np.arange(256))
    return {
        "brightness": brightness,
        "contrast": float(np.sqrt(levels @ (np.arange(256) - brightness) ** 2)),
        "sharpness": float(ndimage.laplace(grey, output=np.float32).var(dtype=np.float64)),
        "dark": float(levels[0]),
        "saturated": float(levels[255]),
        "perceptual_hash": perceptual_hash(grey),
    }


def perceptual_hash(grey: NDArray[np.uint8]) -> str:
    """256 bits of the low frequencies of grey levels [H, W], hexadecimal; near copies differ in few of them."""
    return str(imagehash.phash(Pillow.fromarray(grey), hash_size=16))


def _take(source: SourceImage, destination: Path, settings: IngestSettings, line: str) -> dict[str, Any] | Reject:
    target = destination / source.name
    mask_name = "" if source.mask is None else _mask_name(source)
    mask_digest = ""
    try:
        size, digest = _copy(source.file, target, source.name)
        image = decode(
            target, max_megapixels=settings.max_megapixels, white_level=settings.white_level, name=source.name
        )
        masked = 0.0
        if source.mask is not None:
            _, mask_digest = _copy(source.mask, destination / mask_name, source.mask.name)
            masked = _check_mask(source.mask.name, destination / mask_name, image, settings.max_megapixels)
    except UnreadableImageError as error:
        target.unlink(missing_ok=True)
        if mask_name:
            (destination / mask_name).unlink(missing_ok=True)
        return Reject(source.name, error.reason)
    return {
        "path": source.name,
        "sha256": digest,
        "line": line,
        "label": source.label,
        "defect": source.defect,
        "mask": mask_name,
        "mask_sha256": mask_digest,
        "group": source.group,
        "origin": source.origin,
        "acquired": source.acquired or "",
        "bytes": size,
        "height": image.height,
        "width": image.width,
        "mode": image.mode,
        "bit_depth": image.bit_depth,
        "masked": masked,
        **statistics(image),
    }


def _copy(source: Path, target: Path, name: str) -> tuple[int, str]:
    """Copy bytes and hash them on the way: size in bytes, hexadecimal SHA-256."""
    digest, size = hashlib.sha256(), 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            for chunk in _chunks(source, name):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
    except OSError as error:
        raise cannot_write(target, error) from error
    return size, digest.hexdigest()


def _chunks(source: Path, name: str) -> Iterable[bytes]:
    try:
        with source.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                yield chunk
    except OSError as error:
        raise UnreadableImageError(name, f"cannot be read ({error.strerror or error})") from error


def _check_mask(name: str, mask: Path, image: Image, max_megapixels: float) -> float:
    """The fraction of pixels under the mask, which must be readable and of the image's size."""
    try:
        marked = read_mask(mask, max_megapixels)
    except UnreadableImageError as error:
        raise UnreadableImageError(name, f"its mask {name} {error.reason}") from error
    if marked.shape != (image.height, image.width):
        height, width = marked.shape
        raise UnreadableImageError(
            name, f"its mask {name} is {height} x {width} px, the image {image.height} x {image.width} px"
        )
    return float(marked.mean())


def _mask_name(source: SourceImage) -> str:
    suffix = "" if source.mask is None else source.mask.suffix
    return f"masks/{source.name}" + ("" if PurePosixPath(source.name).suffix == suffix else suffix)


def _check_collisions(source_images: Sequence[SourceImage]) -> None:
    taken: dict[str, Path] = {}
    for source in source_images:
        names = [(source.name, source.file)] + ([(_mask_name(source), source.mask)] if source.mask else [])
        for name, file in names:
            if name in taken:
                raise BadInputError(f"{taken[name]} and {file} would both be {name} in the snapshot; rename one")
            taken[name] = file


def _explain(rejects: Sequence[Reject], count: int, allowed: int) -> str:
    listed = "".join(f"\n  {reject.name}: {reject.reason}" for reject in rejects[:10])
    more = f"\n  and {len(rejects) - 10} more" if len(rejects) > 10 else ""
    return (
        f"{len(rejects)} of {count} images cannot be used, {allowed} may be left out:{listed}{more}\n"
        "replace or remove them, or raise ingest.max_rejects"
    )


def _to_frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame
