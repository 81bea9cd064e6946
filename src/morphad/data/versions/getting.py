"""A version comes back: the same bytes under the same names, or an error."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow.parquet as pq
from pyarrow import ArrowException

from morphad.base.errors import BadInputError, MorphadError, ServiceError
from morphad.base.files import atomic_directory, atomic_file, read_json, sha256_file, working_folder, write_json
from morphad.base.progress import track
from morphad.data.loading import in_order
from morphad.data.manifest import snapshot_id
from morphad.data.versions.data_registry import DataRegistry
from morphad.data.versions.identity import Address, DataVersion
from morphad.data.versions.making import BATCH, FILES, MANIFEST, RECORD, REJECTS, read_places
from morphad.data.versions.shards import unpack

Places = dict[str, list[PurePosixPath]]


def get_version(address: Address, line: str, name: str, out: Path, replace: bool = False) -> tuple[DataVersion, bool]:
    """Bring a version back: `out` then has images/, manifest.parquet, rejects.json and version.json.

    Every file's SHA-256 is held against the manifest, and the manifest's against the registry, before anything is put
    in its place. A call that was killed or failed goes on where it was, from the hidden folder beside `out`.

    Args:
        address: The registry.
        line: The product line.
        name: DATE-HASH, digits of the hash, or "latest".
        out: The folder.
        replace: Whether another snapshot that is there may be lost.

    Returns:
        The version, and whether anything had to be brought.

    Raises:
        BadInputError: There is no such version, or another snapshot is there.
        ServiceError: The registry or the place of the bytes does not answer, or gives other bytes.
    """
    out = out.absolute()
    with working_folder(out.with_name(f".{out.name}.get")) as work:
        registry = DataRegistry(address, work / "registry")
        version = registry.choose(line, name)
        if _is_there(out, version):
            return version, False
        if not replace and ((out / "images").exists() or (out / MANIFEST).exists()):
            raise BadInputError(
                f"{out}: holds another snapshot, or this one changed; give another folder with --out, or --replace"
            )
        registry.check_out(version)
        manifest, rows, shards = _describe(registry, version)
        images = work / f"images-{version.id[:12]}"
        _bring_files(registry, version, rows, shards, images)
        rejects = read_json(registry.version_path(version, REJECTS))
        (out / RECORD).unlink(missing_ok=True)  # it says that the rest is whole: last to come, first to go
        with atomic_directory(out / "images") as temporary:
            images.replace(temporary)
        with atomic_file(out / MANIFEST) as target:
            target.write_bytes(manifest.read_bytes())
        write_json(out / REJECTS, rejects)
        write_json(out / RECORD, version.to_json())
        return version, True


def read_version_manifest(address: Address, line: str, name: str, work: Path) -> tuple[DataVersion, pd.DataFrame]:
    """A version's manifest, without its images; `work` is a folder to work in."""
    registry = DataRegistry(address, work / "registry")
    version = registry.choose(line, name)
    registry.check_out(version)
    return version, _describe(registry, version)[1]


def _describe(registry: DataRegistry, version: DataVersion) -> tuple[Path, pd.DataFrame, dict[str, str]]:
    """The manifest's file, its rows, and the shard of each content."""
    manifest, places = registry.version_path(version, MANIFEST), registry.version_path(version, FILES)
    registry.bring([manifest, places])
    if sha256_file(manifest) != version.manifest_sha256:
        raise ServiceError(
            f"{version.spelling}: its manifest is damaged where the registry keeps its bytes; restore that object from "
            "a backup, or make the version again from the images"
        )
    # Not by `read_manifest`: a version must come back although manifests have got more columns since.
    rows: pd.DataFrame = pq.read_table(manifest).to_pandas()
    return manifest, rows, read_places(places)


def _bring_files(
    registry: DataRegistry, version: DataVersion, rows: pd.DataFrame, shards: Mapping[str, str], images: Path
) -> None:
    """Fetch and unpack the shards of a version, a few at a time."""
    wanted: dict[str, Places] = {}
    for digest, places in _places(rows, version).items():
        paths = [path for path in places if not _has_bytes(images / path, digest)]
        if digest not in shards:
            raise ServiceError(f"{version.spelling}: {places[0]} is in no shard; the version is damaged, make it again")
        if paths:
            wanted.setdefault(shards[digest], {})[digest] = paths

    def take(shard: str) -> None:
        path = registry.shard_path(version.line, shard)
        targets = {digest: [images / place for place in places] for digest, places in wanted[shard].items()}
        unpack(path, targets, f"{version.line}/shards/{shard}.tar")

    names = sorted(wanted)
    batches = [names[first : first + BATCH] for first in range(0, len(names), BATCH)]
    images.mkdir(parents=True, exist_ok=True)
    for batch in track(batches, f"fetching {version.spelling}"):
        files = [registry.shard_path(version.line, shard) for shard in batch]
        registry.bring(files)
        for _ in in_order(take, batch):
            pass
        registry.drop(files)


def _is_there(out: Path, version: DataVersion) -> bool:
    """Whether a folder holds this version, whole and unchanged."""
    try:
        if DataVersion.from_json(read_json(out / RECORD), str(out / RECORD)).id != version.id:
            return False
        rows: pd.DataFrame = pq.read_table(out / MANIFEST).to_pandas()
    except (MorphadError, OSError, ArrowException):
        return False
    if sha256_file(out / MANIFEST) != version.manifest_sha256 and snapshot_id(rows) != version.id:
        return False
    places = [(digest, path) for digest, paths in _places(rows, version).items() for path in paths]

    def intact(place: tuple[str, PurePosixPath]) -> bool:
        return _has_bytes(out / "images" / place[1], place[0])

    whole = track(in_order(intact, places), f"checking {version.line}", total=len(places))
    return all(whole)


def _places(rows: pd.DataFrame, version: DataVersion) -> Places:
    """Where each content of a snapshot lies, relative to it."""
    places: Places = {}
    columns: Sequence[tuple[str, str]] = (("path", "sha256"), ("mask", "mask_sha256"))
    for path_column, digest_column in columns:
        for text, digest in zip(rows[path_column], rows[digest_column], strict=True):
            if not text:
                continue
            path = PurePosixPath(text)
            if path.is_absolute() or ".." in path.parts or "\0" in text:
                raise ServiceError(f"{version.spelling}: {text!r} leads out of the snapshot; not brought")
            places.setdefault(digest, []).append(path)
    return places


def _has_bytes(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_file(path) == digest
