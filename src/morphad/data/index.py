"""What an ingest remembers from one run to the next: which bytes are at hand, and what was found in them.

All of it may be deleted at any time, at the price of one full run. It is a SQLite file, so that a killed run has lost
nothing but the last seconds, and a lock, so that two runs of one line do not work on the same files.
"""

import fcntl
import hashlib
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from morphad.base.errors import BadInputError
from morphad.base.files import cannot_write

_LAYOUT = 1  # of the tables; another one is begun anew
_TABLES = """
CREATE TABLE image (name TEXT PRIMARY KEY, source TEXT, mask TEXT, found TEXT, kept TEXT, kept_mask TEXT,
    sum TEXT) WITHOUT ROWID;
CREATE TABLE object (name TEXT PRIMARY KEY, identity TEXT, version TEXT, file TEXT, sha256 TEXT,
    sum TEXT) WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
_COMMIT_SECONDS = 2.0
# A file written this shortly before it was read may be written again within one tick of its clock.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of an image.

    Attributes:
        source: Fingerprint of the file that it was read from; "" where that file was not settled.
        mask: Fingerprint of its mask's file; "" for none.
        found: What its bytes say, JSON: columns of the manifest, or {"reason": ...} where it was rejected.
        kept: Fingerprints of the image and its mask in the snapshot; "" where they did not get there (yet).
    """

    source: str
    mask: str
    found: str
    kept: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Fetched:
    """An object of a bucket that was fetched to a local file.

    Attributes:
        identity: ETag, size and time of the object, as listed.
        version: The bucket's id of the version; "" where it keeps none.
        file: Fingerprint of the local file.
        sha256: Of its bytes.
    """

    identity: str
    version: str
    file: str
    sha256: str


@dataclass
class Changes:
    """What an ingest found other than the one before."""

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


def fingerprint(status: os.stat_result) -> str:
    """What changes when a file is written or replaced: size, time of change, inode."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def settled(status: os.stat_result) -> bool:
    """Whether a file was last written long enough ago that another writing would show in its fingerprint."""
    return time.time_ns() - status.st_mtime_ns > _SETTLED_NS


class Memory:
    """The memory of one line's ingests. Use it within `open_memory`, from one thread.

    Args:
        folder: Where it lies; files beside the database belong to it as well.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changes = Changes()
        self._path = folder / "index.sqlite"
        self._database = self._connect()
        self._committed = time.monotonic()

    def images(self) -> dict[str, Remembered]:
        """All that is remembered of images, by name; what does not match its checksum is forgotten."""
        known = {}
        for *values, checksum in self._rows("image"):
            name, source, mask, found, kept, kept_mask = values
            if checksum == _checksum(*values):
                known[name] = Remembered(source, mask, found, (kept, kept_mask))
        return known

    def put_image(self, name: str, image: Remembered) -> None:
        """Remember an image."""
        self._put("image", name, image.source, image.mask, image.found, *image.kept)

    def objects(self) -> dict[str, Fetched]:
        """All objects that were fetched, by name; what does not match its checksum is forgotten."""
        known = {}
        for *values, checksum in self._rows("object"):
            name, identity, version, file, sha256 = values
            if checksum == _checksum(*values):
                known[name] = Fetched(identity, version, file, sha256)
        return known

    def put_object(self, name: str, fetched: Fetched) -> None:
        """Remember an object that was fetched."""
        self._put("object", name, fetched.identity, fetched.version, fetched.file, fetched.sha256)

    def forget(self, table: str, names: Iterable[str]) -> None:
        """Forget images or objects."""
        self._database.executemany(f"DELETE FROM {table} WHERE name = ?", ((name,) for name in names))  # noqa: S608

    def holds_for(self, name: str, value: str, table: str) -> None:
        """Forget a whole table if it was made under another value of a fact, such as other settings."""
        row = self._database.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        if row is None or row[0] != value:
            self._database.execute(f"DELETE FROM {table}")  # noqa: S608
            self._database.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    def commit(self) -> None:
        """Make what was remembered outlive this process."""
        self._database.commit()
        self._committed = time.monotonic()

    def close(self) -> None:
        """Commit and close."""
        with suppress(sqlite3.Error):
            self._database.commit()
        self._database.close()

    def _put(self, table: str, *values: str) -> None:
        marks = ", ".join("?" * (len(values) + 1))
        statement = f"INSERT OR REPLACE INTO {table} VALUES ({marks})"  # noqa: S608
        self._database.execute(statement, (*values, _checksum(*values)))
        if time.monotonic() - self._committed > _COMMIT_SECONDS:
            self.commit()

    def _rows(self, table: str) -> Iterator[tuple[str, ...]]:
        yield from self._database.execute(f"SELECT * FROM {table}")  # noqa: S608

    def _connect(self) -> sqlite3.Connection:
        """The database, begun anew if it is damaged or not ours: what it holds can always be found out again."""
        try:
            database = sqlite3.connect(self._path)
            if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("damaged")
            layout = database.execute("PRAGMA user_version").fetchone()[0]
            tables = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if layout == _LAYOUT:
                return database
            if tables:
                raise sqlite3.DatabaseError("of another version")
        except sqlite3.OperationalError:  # not the file's fault: no permission, no space
            raise
        except sqlite3.DatabaseError as error:
            sys.stderr.write(f"morphad: {self._path}: {error}; it is begun anew, this run is as slow as the first\n")
            for path in (self._path, Path(f"{self._path}-journal")):
                path.unlink(missing_ok=True)
            database = sqlite3.connect(self._path)
        database.executescript(_TABLES)
        database.execute(f"PRAGMA user_version = {_LAYOUT}")
        database.commit()
        return database


@contextmanager
def open_memory(folder: Path, line: str) -> Iterator[Memory]:
    """The memory of a line's ingests, for this process alone.

    Raises:
        BadInputError: Another process ingests the line, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("ab+", buffering=0)
    except OSError as error:
        raise cannot_write(folder / "lock", error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise BadInputError(
                f"{line} is being ingested by {lock.read().decode().strip() or 'another process'}; wait for its end, "
                "or end it"
            ) from error
        try:
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        except OSError as error:
            raise cannot_write(folder / "lock", error) from error
        try:
            memory = Memory(folder)
            try:
                yield memory
            finally:
                memory.close()
        except sqlite3.Error as error:
            raise BadInputError(
                f"{folder}: {error}; check free space and permissions, or remove the folder (it can be made anew), and "
                "run again"
            ) from error
        finally:
            lock.truncate(0)


def _checksum(*values: str) -> str:
    return hashlib.blake2b("\0".join(values).encode(), digest_size=8).hexdigest()
