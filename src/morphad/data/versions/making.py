"""A snapshot becomes a version: what is new is packed and sent, then the version is recorded."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.files import read_json, sha256_file, working_folder, write_json
from morphad.base.progress import track
from morphad.data.loading import in_order
from morphad.data.manifest import manifest_id, read_manifest, snapshot_id
from morphad.data.versions.data_registry import DataRegistry
from morphad.data.versions.identity import Address, DataVersion
from morphad.data.versions.shards import File, Shard, check_shard, pack, plan

MANIFEST, FILES, REJECTS, RECORD = "manifest.parquet", "files.parquet", "rejects.json", "version.json"
BATCH = 16  # shards that lie on disk at once


def make_version(
    line: str,
    address: Address,
    *,
    manifest: Path,
    snapshot_dir: Path,
    rejects: Path,
    record: Path,
    by: str,
) -> tuple[DataVersion, bool]:
    """Make a line's snapshot a version of the registry, unless it is one.

    Bytes are sent before the version is recorded, so that none is on record whose bytes are missing. Killed at any
    moment, the same call ends what was begun.

    Args:
        line: The product line.
        address: The registry; a new one also needs a remote.
        manifest: The snapshot's manifest.
        snapshot_dir: The snapshot, whose bytes are held against the manifest.
        rejects: Files that ingest left out, JSON; need not exist.
        record: Where the version's record is written.
        by: Who makes it.

    Returns:
        The version, and whether it is new.

    Raises:
        BadInputError: The snapshot is not what the manifest says, or the registry cannot be used so.
        ServiceError: The registry or the place of the bytes does not answer or refuses.
    """
    rows = read_manifest(manifest)
    files = _distinct_files(rows, snapshot_dir)
    with working_folder(record.parent.with_name(f".{record.parent.name}.version")) as work:
        registry = DataRegistry(address, work / "registry")
        identity = snapshot_id(rows)
        there = registry.with_id(line, identity)
        if there is not None:
            _check_all(files, snapshot_dir, line)
            write_json(record, there.to_json())
            return there, False
        registry.ensure_remote()
        kept, shards = _plan(registry, line, files)
        _check_all([file for file in files if file.sha256 in kept], snapshot_dir, line)
        now, sizes = datetime.now(UTC), {file.sha256: file.size for file in files}
        version = DataVersion(
            line=line,
            name=f"{now:%Y-%m-%d}-{identity[:12]}",
            id=identity,
            data_hash=manifest_id(rows),
            created=now.isoformat(timespec="seconds"),
            by=by,
            good=int((rows["label"] == "good").sum()),
            defect=int((rows["label"] == "defect").sum()),
            bytes=sum(sizes[digest] for column in ("sha256", "mask_sha256") for digest in rows[column] if digest),
            manifest_sha256=sha256_file(manifest),
        )
        facts = registry.version_path(version, RECORD).parent
        facts.mkdir(parents=True, exist_ok=True)
        placed = kept | {file.sha256: shard.name for shard in shards for file in shard.files}
        (facts / MANIFEST).write_bytes(manifest.read_bytes())
        _write_places(placed, facts / FILES)
        _send(registry, line, shards, snapshot_dir, first=[facts / MANIFEST, facts / FILES])
        write_json(facts / REJECTS, read_json(rejects) if rejects.exists() else [])
        write_json(facts / RECORD, version.to_json())
        recorded = registry.publish(version)
        write_json(record, recorded.to_json())
        return recorded, recorded == version


def _distinct_files(rows: pd.DataFrame, snapshot_dir: Path) -> list[File]:
    """One file for each content of a snapshot, in the order of the paths: what came together stays together."""
    paths = pd.concat([rows[["path", "sha256"]], rows[["mask", "mask_sha256"]].set_axis(["path", "sha256"], axis=1)])
    paths = paths[paths["path"] != ""].drop_duplicates("sha256").sort_values("path")
    try:
        return [
            File(row.sha256, (snapshot_dir / row.path).stat().st_size, row.path)  # type: ignore[arg-type,operator]
            for row in paths.itertuples(index=False)
        ]
    except OSError as error:
        raise BadInputError(
            f"{error.filename}: cannot be read ({error.strerror}), but the manifest lists it; run `morphad ingest`"
        ) from error


def _check_all(files: Sequence[File], snapshot_dir: Path, line: str) -> None:
    def checked(file: File) -> None:
        check_shard(file, snapshot_dir)

    for _ in track(in_order(checked, files), f"checking {line}", total=len(files)):
        pass


def _plan(registry: DataRegistry, line: str, files: Sequence[File]) -> tuple[dict[str, str], list[Shard]]:
    """Shards of the last version that are still there and worth using, and those to be made."""
    versions = registry.versions(line)
    if not versions:
        return plan(files, {}, {})
    last = registry.version_path(versions[-1], FILES)
    try:
        registry.bring([last])
    except ServiceError:
        if registry.missing([last]):
            return plan(files, {}, {})
        raise
    known, sizes = read_places(last), registry.shard_sizes(line)
    registry.drop([last])
    kept, _ = plan(files, known, sizes)
    for gone in registry.missing([registry.shard_path(line, shard) for shard in sorted(set(kept.values()))]):
        sizes.pop(gone.name.removesuffix(".tar"))
    return plan(files, known, sizes)


def _send(
    registry: DataRegistry, line: str, shards: Sequence[Shard], snapshot_dir: Path, first: Sequence[Path]
) -> None:
    """Send files, and shards that are packed a few at a time: the disk need not hold them all."""

    def packed(shard: Shard) -> Path:
        target = registry.shard_path(line, shard.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        return pack(shard, snapshot_dir, target)

    batch = list(first)
    for path in track(in_order(packed, shards), f"sending {line}", total=len(shards)):
        batch.append(path)
        if len(batch) >= BATCH:
            registry.send(batch)
            batch = []
    registry.send(batch)


def _write_places(placed: Mapping[str, str], path: Path) -> None:
    hashes = sorted(placed)
    table = pa.table(
        {
            "sha256": pa.array([bytes.fromhex(digest) for digest in hashes], pa.binary(32)),
            "shard": pa.array([placed[digest] for digest in hashes]).dictionary_encode(),
        }
    )
    pq.write_table(table, path, compression="zstd")


def read_places(path: Path) -> dict[str, str]:
    """Shard by SHA-256 of a version's files."""
    table = pq.read_table(path, columns=["sha256", "shard"])
    return {
        digest.hex(): shard
        for digest, shard in zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    }
