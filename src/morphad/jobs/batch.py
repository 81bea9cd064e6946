"""Batch prediction: any number of images through one version of a line's model, shard by shard, in flat memory.

Three steps, which the command line runs one after the other and a cluster each in a pod of its own: `plan` settles the
model and the images, `predict_shard` scores one shard, `merge` joins the shards' tables.
"""

import csv
import heapq
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from morphad.base.errors import BadInputError, CheckFailedError
from morphad.base.files import (
    atomic_directory,
    atomic_file,
    check_writable,
    read_json,
    sha256_file,
    working_folder,
    write_json,
)
from morphad.base.progress import track
from morphad.base.text import harmless_cell, masked_settings
from morphad.data.source.worklist import Opened, count_shard, open_shard, write_batch
from morphad.settings import IngestSettings, LineSettings

if TYPE_CHECKING:
    from morphad.inspection import Model

Figures = dict[str, Any]
Row = dict[str, Any]

# What is written about each image.
SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # as the batch names it
        ("sha256", pa.string()),  # of the file's bytes; "" where they could not be had
        ("score", pa.float64()),  # higher for more abnormal; null where the image is unreadable
        ("p_value", pa.float64()),  # share of good calibration images that are at least as abnormal, (0, 1]
        ("rejected", pa.bool_()),  # null where unreadable, or where the model has no threshold
        ("threshold", pa.float64()),  # null where the model has none
        ("model", pa.string()),  # the version that said so
        ("reason", pa.string()),  # why the image is rejected unseen, such as a part that is not found; "" for others
        ("error", pa.string()),  # why the image is unreadable; "" where it is not
    ]
)
SUFFIXES = (".parquet", ".csv")
MOST_SHARDS = 500  # their tables are open at once when they are joined

_SHARD_SCHEMA = SCHEMA.insert(0, pa.field("row", pa.int64()))  # the image's place in the batch
_FOLDER, _KNOWN = "model", "model.json"
_ROWS = 1024  # of a table in memory
_KINDS = ("rejected", "accepted", "undecided", "unreadable")


def plan(
    line: str,
    settings: LineSettings,
    source: str,
    root: str = "",
    *,
    model: Path,
    batch: Path,
    detector: Path | None = None,
) -> Figures:
    """Settle once what all shards use: the version of the model, the images, and how they are read.

    Args:
        line: The line's name.
        settings: Of the line.
        source: A folder with images at any depth, s3://bucket/prefix, or a .csv or .parquet table with a column `path`.
        root: Where the paths of a table begin; "" is the table's folder.
        model: Folder to write, for the version or detector and what is to be known of it.
        batch: Parquet file to write, one row an image.
        detector: A detector's folder in place of the line's champion.

    Raises:
        BadInputError: The line has no champion, or the source no images.
        ServiceError: MLflow or the bucket's server did not answer.
    """
    from morphad.registry import Registry, detector_hash

    if detector is None:
        registry = Registry(settings.register_)
        champion = registry.serving(line)
        registry.download_model(champion, model / _FOLDER)
        name, identity = champion.model_uri, champion.detector_hash
    else:
        identity = detector_hash(detector)
        name = f"detector {identity[:12]}"
        with atomic_directory(model / _FOLDER) as temporary:
            shutil.copytree(detector, temporary, dirs_exist_ok=True)
    known = {"line": line, "model": name, "detector_hash": identity, "published": detector is None}
    write_json(model / _KNOWN, {**known, "ingest": masked_settings(settings.ingest.model_dump(mode="json"))})
    return {"images": write_batch(source, root, settings.ingest, batch), "model": name}


def predict_shard(shard: int, shards: int, *, model: Path, batch: Path, table: Path) -> Figures:
    """Score the images of one shard; an unreadable one is a row with the reason. Equal inputs give equal bytes.

    Args:
        shard: Which, from 0.
        shards: How many there are.
        model: What `plan` wrote.
        batch: What `plan` wrote.
        table: Parquet file to write.

    Raises:
        ServiceError: The bucket's server refused or did not answer, or the version's process ended.
    """
    known = read_json(model / _KNOWN)
    settings = IngestSettings.model_validate_json(json.dumps(known["ingest"]))
    images = track(
        open_shard(batch, shard, shards, settings),
        f"scoring {known['line']}" + (f", shard {shard + 1} of {shards}" if shards > 1 else ""),
        total=count_shard(batch, shard, shards),
    )
    schema = _SHARD_SCHEMA.with_metadata({"shard": json.dumps(_identity(shard, shards, model, batch))})
    with (
        _opened(model / _FOLDER, known) as opened,
        atomic_file(table) as temporary,
        _parquet(temporary, schema) as write,
    ):
        return _written(_scored(images, opened, known["model"]), write)


def merge(tables: Sequence[Path], out: Path) -> Figures:
    """Join the tables of all shards into one, in the order of the batch.

    Args:
        tables: What `predict_shard` wrote, in any order.
        out: The .parquet or .csv file to write.

    Raises:
        BadInputError: A shard is missing, twice there, or of another batch or model; or `out` ends otherwise.
        CheckFailedError: Not one image could be read; the table is there all the same.
    """
    figures = _merged(tables, out)
    _check_some_read(figures, out)
    return figures


def predict(
    line: str,
    settings: LineSettings,
    source: str,
    root: str = "",
    *,
    out: Path,
    shards: int = 1,
    detector: Path | None = None,
) -> Figures:
    """All three steps here; run again after a kill, it goes on behind the last whole shard.

    Args:
        line: As in `plan`; so are the others that are not listed here.
        out: The .parquet or .csv file to write; until it is there, shards are kept beside it.
        shards: In how many parts the batch is worked through.

    Raises:
        BadInputError: As in `plan` and `merge`; or another process is at work on `out`.
        ServiceError: As in `plan` and `predict_shard`.
    """
    _check_suffix(out)
    check_writable(out)
    if not 1 <= shards <= MOST_SHARDS:
        raise BadInputError(f"{shards} shards: expected 1 to {MOST_SHARDS}")
    with (
        working_folder(out.with_name(f".{out.name}.parts")) as work,
        # Not with the parts: MLflow reads a percent in a path as an encoded character.
        tempfile.TemporaryDirectory(prefix="morphad-") as fetched,
    ):
        model, batch = Path(fetched), work / "batch.parquet"
        planned = plan(line, settings, source, root, model=model, batch=batch, detector=detector)
        tables = [work / f"shard-{shards}-{shard}.parquet" for shard in range(shards)]
        for shard, table in enumerate(tables):
            if not _is_done(table, _identity(shard, shards, model, batch)):
                predict_shard(shard, shards, model=model, batch=batch, table=table)
        figures = _merged(tables, out)
    _check_some_read(figures, out)
    return {**figures, "model": planned["model"]}


def told(figures: Figures) -> str:
    """Figures of `predict_shard` or `merge` in words."""
    counted = ", ".join(f"{figures[kind]:,} {kind}" for kind in _KINDS if figures[kind] or kind != "undecided")
    return f"{figures['images']:,} images: {counted}"


def _merged(tables: Sequence[Path], out: Path) -> Figures:
    _check_suffix(out)
    _check_whole(tables)
    at_once = max(1, 16 * _ROWS // len(tables))
    rows = heapq.merge(*(_rows_of(table, at_once) for table in tables), key=itemgetter("row"))
    writer = _csv if out.suffix == ".csv" else _parquet
    with atomic_file(out) as temporary, writer(temporary, SCHEMA) as write:
        return _written(rows, write)


def _check_some_read(figures: Figures, out: Path) -> None:
    if figures["unreadable"] == figures["images"]:
        raise CheckFailedError(f"not one of {figures['images']} images could be read; {out} says why of each")


@contextmanager
def _opened(folder: Path, known: Figures) -> Iterator["Model"]:
    """What scores: the published version in a process of its own, or a bare detector in this one."""
    if known["published"]:
        from morphad.registry.published import PublishedModel

        with PublishedModel(folder, known["model"]) as model:
            yield model
        return
    from morphad.inspection import DetectorModel
    from morphad.model.detector import Detector

    yield DetectorModel(Detector.load(folder))


def _scored(images: Iterable[Opened], model: "Model", name: str) -> Iterator[Row]:
    from morphad.inspection import answered

    for image, answer in answered(model, images):
        yield {
            "row": image.row,
            "path": image.path,
            "sha256": image.sha256,
            "score": answer.score,
            "p_value": answer.p_value,
            "rejected": answer.rejected,
            "threshold": model.threshold,
            "model": name,
            "reason": answer.reason,
            "error": answer.error,
        }


def _written(rows: Iterator[Row], write: Callable[[list[Row]], object]) -> Figures:
    """Write rows a block at a time; how many there were of each kind."""
    counts: Counter[str] = Counter()
    while block := list(islice(rows, _ROWS)):
        write(block)
        for row in block:
            kind = {True: "rejected", False: "accepted", None: "undecided"}[row["rejected"]]
            counts["unreadable" if row["error"] else kind] += 1
    return {"images": counts.total(), **{kind: counts[kind] for kind in _KINDS}}


@contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[Callable[[list[Row]], object]]:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema))


@contextmanager
def _csv(path: Path, schema: pa.Schema) -> Iterator[Callable[[list[Row]], object]]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, schema.names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        yield lambda rows: writer.writerows({name: harmless_cell(value) for name, value in row.items()} for row in rows)


def _rows_of(table: Path, at_once: int = _ROWS) -> Iterator[Row]:
    with pq.ParquetFile(table) as file:
        for rows in file.iter_batches(at_once):
            yield from rows.to_pylist()


def _identity(shard: int, shards: int, model: Path, batch: Path) -> Figures:
    """What a shard's table follows from."""
    return {"model": sha256_file(model / _KNOWN), "batch": sha256_file(batch), "shard": shard, "shards": shards}


def _is_done(table: Path, identity: Figures) -> bool:
    """Whether a shard's table of an earlier run may stay; what could not be read then is tried again."""
    try:
        same = table.exists() and _identity_of(table) == identity
    except BadInputError:
        return False
    return same and not any(row["error"] for row in _rows_of(table))


def _identity_of(table: Path) -> Figures:
    try:
        identity: Figures = json.loads(pq.read_schema(table).metadata[b"shard"])
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise BadInputError(f"{table}: not the table of a shard; predict it again") from error
    return identity


def _check_whole(tables: Sequence[Path]) -> None:
    identities = [_identity_of(table) for table in tables]
    found = sorted(identity.pop("shard") for identity in identities)
    if not identities or any(identity != identities[0] for identity in identities):
        raise BadInputError("shards are of several batches or models, or none is given; predict all of one batch again")
    shards = identities[0]["shards"]
    if found != list(range(shards)):
        raise BadInputError(f"shards {', '.join(map(str, found))} of 0 to {shards - 1}: each is needed once")


def _check_suffix(out: Path) -> None:
    if out.suffix not in SUFFIXES:
        raise BadInputError(f"{out}: a table of predictions ends in {' or '.join(SUFFIXES)}")
