"""A batch of images to inspect, however many: where they are, which shard each belongs to, and its bytes."""

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from math import inf
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from morphad.base.errors import BadInputError
from morphad.base.files import atomic_file
from morphad.base.text import no_path_column, plain_cell
from morphad.data.images import UnreadableImageError
from morphad.data.loading import in_order
from morphad.data.source.image import too_large
from morphad.data.source.layouts import files_below, is_image
from morphad.settings import IngestSettings

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # relative to the root, or absolute
        ("state", pa.string()),  # what changes when the image does, where that can be seen without reading it
    ]
)
_ROWS = 4096  # of a table in memory


class Opened(NamedTuple):
    """One image of a batch.

    Attributes:
        row: Its place in the batch, from 0.
        path: As the batch names it.
        sha256: Of the file's bytes; "" where they could not be had.
        data: The file's bytes, which need not be an image; None where they could not be had.
        error: Why they could not be had; "" where they are there.
    """

    row: int
    path: str
    sha256: str
    data: bytes | None
    error: str


def write_batch(source: str, root: str, settings: IngestSettings, batch: Path) -> int:
    """List a batch of images, in order, as parquet with one row each; give how many they are.

    Args:
        source: A folder with images at any depth, s3://bucket/prefix, or a .csv or .parquet table with a column
            `path`, such as a manifest.
        root: Where the paths of a table begin, a folder or s3://bucket/prefix; "" is the table's own folder.
        settings: How patient to be with a bucket.
        batch: The file to write.

    Raises:
        BadInputError: The source is missing or empty, or a path cannot be read or kept.
        ServiceError: The bucket's server refused or did not answer.
    """
    root, rows = _listed(source, root, settings)
    count = 0
    with (
        atomic_file(batch) as temporary,
        pq.ParquetWriter(temporary, _SCHEMA.with_metadata({"root": root}), compression="zstd") as writer,
    ):
        while chunk := list(islice(rows, _ROWS)):
            _check_names(source, (path for path, _ in chunk))
            paths, states = zip(*chunk, strict=True)
            writer.write_table(pa.table([paths, states], _SCHEMA))
            count += len(chunk)
        if not count:
            raise BadInputError(f"{source}: no images found; expected image files, or a table that names some")
    return count


def open_shard(batch: Path, shard: int, shards: int, settings: IngestSettings) -> Iterator[Opened]:
    """The images of one shard, in the order of the batch, read a few at a time.

    An image's shard follows from its path alone, so it stays the same whatever else is in the batch.

    Args:
        batch: What `write_batch` wrote.
        shard: Which, from 0.
        shards: How many there are.
        settings: How large a file may be, and how patient to be with a bucket.

    Raises:
        ServiceError: The bucket's server refused or did not answer; an image that is not there is no error.
    """
    table = pq.ParquetFile(batch)
    root = table.schema_arrow.metadata[b"root"].decode()
    workers = settings.transfers if root.startswith("s3://") else None
    yield from _opened(_rows_of(table, shard, shards), _fetcher(root, settings), workers)


def open_files(files: Sequence[Path], max_megabytes: float = inf) -> Iterator[Opened]:
    """Image files in order, read a few at a time; of a larger one nothing is read."""
    paths = enumerate(str(file) for file in files)
    yield from _opened(paths, lambda path: _file(Path(path), path, max_megabytes))


def count_shard(batch: Path, shard: int, shards: int) -> int:
    """How many images a shard has."""
    return sum(1 for _ in _rows_of(pq.ParquetFile(batch), shard, shards))


def _opened(
    items: Iterable[tuple[int, str]], fetch: Callable[[str], bytes], workers: int | None = None
) -> Iterator[Opened]:
    def read(item: tuple[int, str]) -> Opened:
        try:
            data = fetch(item[1])
        except UnreadableImageError as error:
            return Opened(*item, "", None, error.reason)
        return Opened(*item, hashlib.sha256(data).hexdigest(), data, "")

    return in_order(read, items, workers)


def _rows_of(table: pq.ParquetFile, shard: int, shards: int) -> Iterator[tuple[int, str]]:
    row = 0
    for rows in table.iter_batches(_ROWS, columns=["path"]):
        for path in rows["path"].to_pylist():
            if zlib.crc32(path.encode()) % shards == shard:
                yield row, path
            row += 1


def _listed(source: str, root: str, settings: IngestSettings) -> tuple[str, Iterator[tuple[str, str]]]:
    """The root, and path and state of each image."""
    if source.startswith("s3://"):
        from morphad.data.source.s3 import Bucket, prefix_of, split_url  # noqa: PLC0415 -- boto3 needs half a second

        name, key = split_url(source)
        prefix = prefix_of(key)
        listing = Bucket(name, settings.patience_seconds).list(prefix)
        found = ((one.key.removeprefix(prefix), one.identity) for one in listing if is_image(one.key))
        return f"s3://{name}/{prefix}", found
    path = Path(source)
    if path.is_dir():
        home = path.absolute()
        return str(home), ((name, _state(home / name)) for name in files_below(path) if is_image(name))
    if not path.is_file():
        raise BadInputError(f"{source}: not found; give a folder, s3://bucket/prefix, or a .csv or .parquet table")
    if root.startswith("s3://"):
        now = str(time.time_ns())  # as nobody reads each object
        return f"{root.rstrip('/')}/", ((name, now) for name in _column(path))
    home = Path(root).absolute() if root else path.absolute().parent
    return str(home), ((name, _state(home / name)) for name in _column(path))


def _state(file: Path) -> str:
    try:
        found = file.stat()
    except (OSError, ValueError):  # the latter for a NUL in the name
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def _column(table: Path) -> Iterator[str]:
    """The column `path` of a table, in order."""
    number = 0
    try:
        for path in _cells(table):
            number += 1
            if not path:
                raise BadInputError(f"{table}: image {number} has no path; remove the row or give it one")
            yield path
    except (KeyError, pa.ArrowKeyError) as error:
        raise BadInputError(f"{table}: {no_path_column(_header(table))}") from error
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{table}: not a readable table ({' '.join(str(error).split())[:200]})") from error


def _header(table: Path) -> list[str]:
    if table.suffix.lower() == ".parquet":
        return list(pq.read_schema(table).names)
    return list(pa_csv.open_csv(table).schema.names)


def _cells(table: Path) -> Iterator[str | None]:
    batches: Iterable[pa.RecordBatch]
    if table.suffix.lower() == ".parquet":
        batches = pq.ParquetFile(table).iter_batches(_ROWS, columns=["path"])
    elif table.suffix.lower() == ".csv":
        text = pa_csv.ConvertOptions(include_columns=["path"], column_types={"path": pa.string()})
        batches = pa_csv.open_csv(table, convert_options=text)
    else:
        raise BadInputError(f"{table}: a table of images is a .csv or .parquet file")
    plain = plain_cell if table.suffix.lower() == ".csv" else str
    for batch in batches:
        yield from (path and plain(path) for path in batch["path"].cast(pa.string()).to_pylist())


def _check_names(source: str, names: Iterable[str]) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise BadInputError(
                f"{source}: {name!a} is not a name in UTF-8, which no table can hold; rename it"
            ) from error


def _fetcher(root: str, settings: IngestSettings) -> Callable[[str], bytes]:
    """A function that gives the bytes of an image by its path."""
    if root.startswith("s3://"):
        from morphad.data.source.s3 import Bucket, split_url  # noqa: PLC0415 -- boto3 needs half a second

        name, prefix = split_url(root)
        bucket = Bucket(name, settings.patience_seconds, settings.transfers)

        def fetch_object(path: str) -> bytes:
            try:
                return bucket.read(prefix + path, int(settings.max_megabytes * 1e6))
            except BadInputError as error:
                raise UnreadableImageError(path, str(error)) from error

        return fetch_object

    return lambda path: _file(Path(root, path), path, settings.max_megabytes)


def _file(file: Path, name: str, max_megabytes: float) -> bytes:
    try:
        with file.open("rb") as stream:
            if reason := too_large(os.fstat(stream.fileno()).st_size, max_megabytes):
                raise UnreadableImageError(name, reason)
            return stream.read()
    except FileNotFoundError as error:
        raise UnreadableImageError(name, "not found") from error
    except OSError as error:
        raise UnreadableImageError(name, f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a NUL in the name
        raise UnreadableImageError(name, f"cannot be read ({error})") from error
