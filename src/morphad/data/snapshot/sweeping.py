"""Which pictures of a store may go: those that no run of the last weeks used and no version needs.

Each run leaves its manifest, named by the data hash that versions carry. A picture stays as long as one of these
manifests names it, and a manifest stays while it is young or its data are needed.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from morphad.base.files import cannot_write
from morphad.data.manifest import manifest_id, snapshot_id, write_manifest
from morphad.data.pictures import Store

_HASHES = ("sha256", "mask_sha256")
_DAY = 86_400  # seconds


@dataclass(frozen=True)
class Swept:
    """What a sweep removed, and what is there after it."""

    removed: int = 0
    removed_bytes: int = 0
    left: int = 0


def note_use(rows: pd.DataFrame, used: Path) -> None:
    """Put on record that a run uses these pictures now."""
    file = used / f"{manifest_id(rows)}-{snapshot_id(rows)[:12]}.parquet"
    if file.exists():
        try:
            os.utime(file)
        except OSError as error:
            raise cannot_write(file, error) from error
    else:
        write_manifest(rows, file)


def sweep(store: Store, used: Path, data_hashes: Collection[str], images: Collection[str], oldest: float) -> Swept:
    """Remove the pictures that nobody needs. Only for a process that nobody else puts pictures beside.

    Args:
        store: Of the line.
        used: What `note_use` wrote.
        data_hashes: Of the data that stay, however old.
        images: Hashes of further pictures that stay.
        oldest: What was last used before this time (s since the epoch) goes, unless it is named above.

    Raises:
        BadInputError: Something cannot be removed.
    """
    stay = set(images)
    for file in sorted(used.glob("*.parquet")):
        if file.stat().st_mtime >= oldest or file.name.partition("-")[0] in data_hashes:
            stay |= _named(file)
        else:
            _remove(file)
    removed = size = left = 0
    for file in store.folder.glob("*/*"):
        if file.name in stay:
            left += 1
        else:
            removed, size = removed + 1, size + file.stat().st_size
            _remove(file)
    return Swept(removed, size, left)


def days_ago(days: int, now: float) -> float:
    """Seconds since the epoch, so many days before `now`."""
    return now - days * _DAY


def _named(manifest: Path) -> set[str]:
    """The hashes of all images and masks of a manifest."""
    table: pa.Table = pq.read_table(manifest, columns=list(_HASHES))
    return {value for name in _HASHES for value in table[name].to_pylist() if value}


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(file, error) from error
