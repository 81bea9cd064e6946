"""A zip from elsewhere, read without trust in its names, its sizes or its texts.

Nothing is unpacked to the disk, and no more is read than a dossier could hold.
"""

import hashlib
import json
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from morphad.base.errors import BadInputError
from morphad.registry.dossier_format import safe_name
from morphad.registry.sentences import printable

MOST_MEMBERS = 20_000
MOST_BYTES = 16 << 30  # of all members, unpacked
MOST_BYTES_READ = 256 << 20  # of a member that is read into memory

_CHUNK = 1 << 20
DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip


class WrongError(Exception):
    """Something is not as it was written."""


class SafeZip:
    """The members of an open zip.

    Args:
        archive: A zip that `opened` has found safe.

    Attributes:
        names: Of its members.

    Every method raises WrongError where a member is missing, damaged, or not what it should be.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = {member.filename for member in archive.infolist()}

    def hash(self, name: str) -> str:
        """SHA-256 of a member, whatever its size."""
        digest = hashlib.sha256()
        for chunk in self._chunks(name):
            digest.update(chunk)
        return digest.hexdigest()

    def text(self, name: str) -> str:
        """A member as UTF-8."""
        return self.read(name).decode()

    def json(self, name: str) -> Any:
        """A member as JSON."""
        try:
            return json.loads(self.text(name))
        except (ValueError, RecursionError) as error:
            raise WrongError(f"{name} cannot be read ({short(error)})") from error

    def read(self, name: str) -> bytes:
        """A member of at most `MOST_BYTES_READ`."""
        if name not in self.names:
            raise WrongError(f"{name} is missing")
        if self._archive.getinfo(name).file_size > MOST_BYTES_READ:
            raise WrongError(f"{name} is larger than {MOST_BYTES_READ >> 20} MiB, which no dossier needs")
        return b"".join(self._chunks(name))

    def _chunks(self, name: str) -> Iterator[bytes]:
        try:
            with self._archive.open(name) as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
        except DAMAGED as error:
            raise WrongError(f"{name} is damaged ({short(error)})") from error


@contextmanager
def opened(path: Path) -> Iterator[SafeZip]:
    """A zip that is safe to read.

    Raises:
        BadInputError: It is none.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: not found") from error
    except DAMAGED as error:
        raise BadInputError(f"{path}: not a zip file, or cut off ({short(error)})") from error
    with archive:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise BadInputError(f"{path}: holds {len(members):,} files; no dossier has more than {MOST_MEMBERS:,}")
        if sum(member.file_size for member in members) > MOST_BYTES:
            raise BadInputError(f"{path}: unpacks to more than {MOST_BYTES >> 30} GiB; no dossier does")
        names = Counter(member.filename for member in members)
        for member in members:
            why = _unsafe(member)
            if not why and names[member.filename] > 1:
                why = "is there twice"
            if why:
                raise BadInputError(f"{path}: {member.filename!a} {why}; nothing was read")
        yield SafeZip(archive)


def _unsafe(member: zipfile.ZipInfo) -> str:
    """Why a member is not read; "" where it may be."""
    mode = member.external_attr >> 16
    if not safe_name(member.filename) or member.orig_filename != member.filename:
        return "is no name for a file in a dossier"
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        return "is no plain file"
    if member.flag_bits & 1 or member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return "is encrypted, or packed in a way that no dossier is"
    return ""


def short(error: BaseException) -> str:
    """What an error says, in one printable line."""
    return printable(" ".join(str(error).split()))[:200] or type(error).__name__
