"""Many small files in a few tar files: what DVC and an object store are slow at, they never see.

A shard holds files under the SHA-256 of their bytes and is named by that of its members, so equal content makes equal
shards. Shards are never changed: a new version adds shards for what is new and goes on using those that are there.
"""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import IO

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.files import cannot_write

SHARD_BYTES = 64 << 20
_SMALL = SHARD_BYTES // 4
_MANY_SMALL = 32  # so many small shards are packed together anew
_CHUNK = 1 << 20
_TAIL = tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE  # a tar file ends with empty blocks


@dataclass(frozen=True)
class File:
    """One content: its SHA-256, its size in bytes, and a path that has it, relative to the snapshot."""

    sha256: str
    size: int
    path: str

    @property
    def room(self) -> int:
        """Bytes that it needs in a shard, with its head."""
        return tarfile.BLOCKSIZE * (1 + -(-self.size // tarfile.BLOCKSIZE))


@dataclass(frozen=True)
class Shard:
    """A shard that is to be made, of these files."""

    files: tuple[File, ...]

    @cached_property
    def name(self) -> str:
        """By its content."""
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()[:32]


def plan(
    files: Sequence[File], known: Mapping[str, str], sizes: Mapping[str, int]
) -> tuple[dict[str, str], list[Shard]]:
    """Which shards of earlier versions a new one goes on using, and which are to be made.

    A shard that is needed for less than half of its bytes is dropped and what is needed of it packed anew, and so are
    small ones where they have become many: what is fetched for a version is never much more than it holds.

    Args:
        files: Distinct contents of the new version, those that belong together next to each other.
        known: Shard by SHA-256, of an earlier version.
        sizes: Of the earlier version's shards, in bytes.

    Returns:
        Shard by SHA-256 for what is there already, and the shards to make for the rest.
    """
    needed: dict[str, int] = {}
    for file in files:
        if file.sha256 in known:
            shard = known[file.sha256]
            needed[shard] = needed.get(shard, 0) + file.room
    kept = {shard for shard, room in needed.items() if shard in sizes and 2 * room >= sizes[shard] - _TAIL}
    small = {shard for shard in kept if sizes[shard] < _SMALL}
    if len(small) > _MANY_SMALL:
        kept -= small
    placed = {file.sha256: known[file.sha256] for file in files if known.get(file.sha256) in kept}
    return placed, _filled(file for file in files if file.sha256 not in placed)


def _filled(files: Iterable[File]) -> list[Shard]:
    shards: list[Shard] = []
    members: list[File] = []
    size = 0
    for file in files:
        if members and size + file.room > SHARD_BYTES:
            shards.append(Shard(tuple(members)))
            members, size = [], 0
        members.append(file)
        size += file.room
    return [*shards, Shard(tuple(members))] if members else shards


def pack(shard: Shard, snapshot_dir: Path, target: Path) -> Path:
    """Write a shard: equal content gives equal bytes, whoever packs it and when.

    Raises:
        BadInputError: A file is gone or no longer has the bytes that the manifest says, or `target` cannot be written.
    """
    try:
        with tarfile.open(target, "w") as tar:
            for file in shard.files:
                head = tarfile.TarInfo(file.sha256)
                head.size = file.size
                with _opened(snapshot_dir, file.path) as stream:
                    if os.fstat(stream.fileno()).st_size != file.size:
                        raise _changed(snapshot_dir, file.path)
                    content = _Hashing(stream)
                    tar.addfile(head, content)  # type: ignore[arg-type]
                    if content.hexdigest() != file.sha256:
                        raise _changed(snapshot_dir, file.path)
                _forget_members(tar)
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def check_shard(file: File, snapshot_dir: Path) -> None:
    """Find out whether a file still has the bytes that the manifest says.

    Raises:
        BadInputError: It has others, or is gone.
    """
    with _opened(snapshot_dir, file.path) as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
            raise _changed(snapshot_dir, file.path)


def _changed(snapshot_dir: Path, path: str) -> BadInputError:
    """The error for a file whose bytes are not those of the manifest."""
    return BadInputError(
        f"{snapshot_dir / path}: changed since the manifest was written; run `morphad ingest` again, so that both agree"
    )


def unpack(tar_file: Path, wanted: Mapping[str, Sequence[Path]], name: str) -> None:
    """Write the wanted members of a shard, each wherever it belongs, and check every byte.

    Args:
        tar_file: The shard.
        wanted: Where each content goes, by SHA-256; all must be in the shard.
        name: What the shard is called in messages.

    Raises:
        ServiceError: The shard is damaged: no tar file, a wanted file is not in it, or has other bytes.
        BadInputError: A file cannot be written.
    """
    missing = set(wanted)
    try:
        with tarfile.open(tar_file, "r|") as tar:
            while (member := tar.next()) is not None:
                _forget_members(tar)
                if member.name not in missing:
                    continue
                stream = tar.extractfile(member)
                if stream is None or _write(_Hashing(stream), wanted[member.name]) != member.name:
                    raise _damaged(name, f"file {member.name[:12]} in it has other bytes")
                missing.discard(member.name)
    except tarfile.TarError as error:
        raise _damaged(name, str(error)) from error
    if missing:
        raise _damaged(name, f"it lacks {len(missing)} files, such as {min(missing)[:12]}")


def _write(content: "_Hashing", targets: Sequence[Path]) -> str:
    first, *others = targets
    try:
        first.parent.mkdir(parents=True, exist_ok=True)
        with first.open("wb") as out:
            while chunk := content.read(_CHUNK):
                out.write(chunk)
        for other in others:
            other.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(first, other)
    except OSError as error:
        raise cannot_write(first, error) from error
    return content.hexdigest()


def _forget_members(tar: tarfile.TarFile) -> None:
    """Keep memory flat: an open tar file remembers every member that went through it."""
    tar.members = []  # type: ignore[attr-defined]


def _damaged(name: str, how: str) -> ServiceError:
    return ServiceError(
        f"{name}: damaged where the registry keeps its bytes ({how}); restore that object from a backup, or remove it "
        "and make the version again from the images"
    )


def _opened(snapshot_dir: Path, path: str) -> BufferedReader:
    try:
        return (snapshot_dir / path).open("rb")
    except OSError as error:
        raise BadInputError(
            f"{snapshot_dir / path}: cannot be read ({error.strerror or error}); run `morphad ingest` again"
        ) from error


class _Hashing:
    """A stream that hashes what is read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self._digest.update(chunk)
        return chunk

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
