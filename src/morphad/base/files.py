"""Files that appear whole or not at all, and the hashes that name their content."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from morphad.base.errors import BadInputError

_UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.EISDIR,
    errno.ENOTDIR, errno.ENAMETOOLONG,
}  # fmt: skip

# What a file system without hard links answers.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


@contextmanager
def atomic_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well.

    Args:
        path: The file.
        replace: False: a file of that name stays as it is, also if another process makes it during the block.

    Raises:
        BadInputError: The folder is read-only or the disk is full; `path` keeps its earlier content.
    """
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        if replace:
            temporary.replace(path)
        else:
            put_if_free(temporary, path)
    except OSError as error:
        raise (cannot_write(path, error) if error.errno in _UNWRITABLE else error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; put it in the place of `path` when the block ends well.

    Raises:
        BadInputError: The parent folder is read-only or the disk is full; `path` keeps its earlier content.
    """
    temporary = _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        _put_in_place(temporary, path)
    except OSError as error:
        raise (cannot_write(path, error) if error.errno in _UNWRITABLE else error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """Give a folder that one process at a time may work in.

    It is gone when the block ends well. Otherwise it stays, unless there is nothing in it to go on with.

    Raises:
        BadInputError: Another process works in it, or it cannot be made.
    """
    descriptor = _locked(path)
    try:
        yield path
        shutil.rmtree(path, ignore_errors=True)
    finally:
        with suppress(OSError):  # there is something in it
            path.rmdir()
        os.close(descriptor)


def _locked(folder: Path) -> int:
    """A descriptor of a folder, made if need be, that holds its lock."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise cannot_write(folder, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise BadInputError(f"{folder}: another process works here; wait for its end, or end it") from None
        except FileNotFoundError:
            pass
        os.close(descriptor)  # between opening and locking another process ended its work and removed the folder


def put_if_free(temporary: Path, path: Path) -> None:
    """Give a file the name `path`, unless something has it."""
    try:
        os.link(temporary, path)  # refused where the name exists: there is no moment between check and act
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not path.exists():
            temporary.replace(path)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Give a folder the name `path`; what has the name goes first, and comes back where the renaming fails."""
    while True:
        retired = _beside(path)
        with suppress(FileNotFoundError):  # nothing there, or another process was faster to remove it
            path.replace(retired)
        try:
            temporary.replace(path)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                continue  # another process was faster to put its own there: the last one stays
            with suppress(OSError):
                retired.replace(path)
            raise
        finally:
            shutil.rmtree(retired, ignore_errors=True)
        return


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside `path`; only for a process that nobody else writes `path` beside."""
    for temporary in path.parent.glob(f".{path.name}.*"):
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Find out before long work that `path` could not be written after it.

    Raises:
        BadInputError: The folder is read-only, the disk is full, or `path` is a folder.
    """
    if path.is_dir():
        raise cannot_write(path, IsADirectoryError(errno.EISDIR, "Is a directory"))
    _beside(path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, making parent folders."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: sorted keys, NaN refused, so equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        BadInputError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: not found; run the step that writes it first") from error
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: not valid JSON ({error}); remove it and run the step that writes it") from error


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hexadecimal SHA-256 of a value's canonical JSON: sorted keys, no spaces."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def cannot_write(path: Path, error: OSError) -> BadInputError:
    """The error for a path that cannot be written, with the system's reason."""
    return BadInputError(
        f"{path}: cannot write ({error.strerror or error}); check free space and permissions, then run again"
    )


def _beside(path: Path) -> Path:
    """A free hidden name in the folder of `path`, which is made if need be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    os.close(descriptor)
    Path(name).unlink()
    return Path(name)
