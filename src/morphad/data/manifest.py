"""One row an image: what it is called, what it holds, what it shows; as a file that notices when it was changed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from morphad.base.errors import BadInputError
from morphad.base.files import atomic_file, sha256_json

SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # relative to the snapshot, posix
        ("sha256", pa.string()),  # of the file's bytes
        ("line", pa.string()),
        ("label", pa.string()),  # good, defect
        ("defect", pa.string()),  # kind of defect; "" for good
        ("mask", pa.string()),  # relative to the snapshot; "" for none
        ("mask_sha256", pa.string()),  # of the mask file's bytes; "" for none
        ("group", pa.string()),  # what it must not be parted from; "" unknown
        ("lot", pa.string()),  # "" unknown
        ("shift", pa.string()),  # "" unknown
        ("camera", pa.string()),  # "" unknown
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
        ("entropy", pa.float64()),  # of the grey levels' histogram, 0..8 bits
        ("dark", pa.float64()),  # fraction of pixels at 0
        ("saturated", pa.float64()),  # fraction of pixels at 255
        ("peak", pa.int64()),  # highest grey level, 0..255
        ("masked", pa.float64()),  # fraction of pixels under the mask; 0 without a mask
        ("perceptual_hash", pa.string()),  # 256 bits, hexadecimal
    ]
)

# What follows from an image's bytes, and what later steps add: no part of a snapshot's identity.
DERIVED = {
    "bytes", "height", "width", "mode", "bit_depth", "brightness", "contrast", "sharpness", "entropy", "dark",
    "saturated", "peak", "masked", "perceptual_hash", "role", "reason",
}  # fmt: skip


# Columns that manifests of an earlier morphad, such as those in a registry, do not have, with what they mean then.
_LATER = {"peak": 255}

_ROWS_HASH = b"morphad.rows.sha256"


def write_manifest(manifest: pd.DataFrame, path: Path) -> None:
    """Write a manifest as parquet, whole or not at all; columns beyond `SCHEMA`, such as `role`, hold text.

    Equal rows give equal bytes. The file carries the hash of its rows, so that `read_manifest` sees a change.
    """
    further = [(name, pa.string()) for name in manifest.columns if name not in SCHEMA.names]
    schema = pa.schema([*SCHEMA, *further])
    table = pa.Table.from_pandas(manifest, schema, preserve_index=False)
    table = table.replace_schema_metadata({_ROWS_HASH: _rows_hash(table).encode()})
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")  # hashes as text shrink to half


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest and check its columns, their types, and that its rows are those that were written.

    Further columns, such as `role` and `reason` of a split, are kept.

    Raises:
        BadInputError: The file is missing, is not parquet, is not a manifest, or was changed by something else.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: not found; run `morphad ingest` first") from error
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{path}: not a parquet file; remove it and run the step that writes it") from error
    for field in SCHEMA:
        if field.name not in table.column_names:
            if field.name in _LATER:
                continue
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
    if (table.schema.metadata or {}).get(_ROWS_HASH) != _rows_hash(table).encode():
        raise BadInputError(
            f"{path}: its rows are not those that morphad wrote (hash mismatch): it was edited or damaged; remove it "
            "and run the step that writes it; labels are corrected at their source"
        )
    frame = to_frame(table)
    return frame.assign(**{name: value for name, value in _LATER.items() if name not in frame})


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A table of rows as the frame that steps work on."""
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _rows_hash(table: pa.Table) -> str:
    """SHA-256 over names and cells, column by column, of text and numbers without empty cells."""
    digest = hashlib.sha256(json.dumps([table.num_rows, table.column_names]).encode())
    for column in table.columns:
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            digest.update(column.to_numpy().tobytes())
            continue
        if not len(column):
            continue
        text = pa.concat_arrays(column.cast(pa.large_string()).chunks)
        ends = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
        digest.update((ends - ends[0]).tobytes())
        digest.update(memoryview(text.buffers()[2])[ends[0] : ends[-1]] if ends[-1] > ends[0] else b"")
    return digest.hexdigest()


def empty_manifest() -> pd.DataFrame:
    """A manifest of no images."""
    return to_frame(SCHEMA.empty_table())


def manifest_id(manifest: pd.DataFrame) -> str:
    """The data hash: SHA-256 of what the images and their labels are, whatever their order and their names."""
    return sha256_json(sorted(manifest[["sha256", "label", "defect", "group"]].astype(str).to_numpy().tolist()))


def snapshot_id(manifest: pd.DataFrame) -> str:
    """The identity of a snapshot: SHA-256 of its sorted manifest.

    Other than `manifest_id`, which names what figures rest on, it covers everything that is given of an image: path,
    bytes, mask, labels, group, time. What is computed from the bytes is left out.
    """
    columns = sorted(set(manifest.columns) - DERIVED)
    digest = hashlib.sha256(json.dumps(columns).encode())
    for row in manifest.sort_values("path")[columns].itertuples(index=False, name=None):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()
