"""Files appear whole or not at all, whatever happens while they are written."""

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphad.base import files
from morphad.base.errors import BadInputError
from morphad.base.files import (
    atomic_directory,
    atomic_file,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    """All entries, hidden ones too."""
    return sorted(entry.name for entry in folder.iterdir())


def fill(folder: Path, text: str) -> None:
    for name in ("a", "b"):
        (folder / name).write_text(text)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with a file and a folder that were written before."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    fill(tmp_path / "folder", "old")
    return tmp_path


def assert_old(old: Path) -> None:
    assert (old / "file").read_text() == "old"
    assert names(old / "folder") == ["a", "b"]
    assert (old / "folder" / "a").read_text() == (old / "folder" / "b").read_text() == "old"
    assert names(old) == ["file", "folder"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_another_process_was_faster_to_make_stays(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as a file system without hard links

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "file"
    with atomic_file(path, replace=False) as temporary:
        temporary.write_text("first")
    with atomic_file(path, replace=False) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["file"]


def test_a_file_and_its_folders_appear_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "whole"
    assert names(path.parent) == ["file.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()  # not the 0600 of a temporary file


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_takes_the_place_of_an_older_one(old: Path) -> None:
    with atomic_directory(old / "folder") as temporary:
        assert names(temporary) == []
        (temporary / "c").write_text("new")
        assert_old_but_temporary(old, temporary)
    assert names(old / "folder") == ["c"]
    assert names(old) == ["file", "folder"]


def assert_old_but_temporary(old: Path, temporary: Path) -> None:
    assert names(old / "folder") == ["a", "b"]
    assert set(names(old)) == {"file", "folder", temporary.name}


class HalfDoneError(Exception):
    pass


def test_an_exception_in_the_block_leaves_what_was_there(old: Path) -> None:
    with pytest.raises(HalfDoneError), atomic_file(old / "file") as temporary:
        temporary.write_text("ne")
        raise HalfDoneError
    with pytest.raises(HalfDoneError), atomic_directory(old / "folder") as folder:
        (folder / "c").write_text("ne")
        raise HalfDoneError
    assert_old(old)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_refuses_is_told_with_path_reason_and_remedy(old: Path, number: int) -> None:
    reason = re.escape(os.strerror(number))
    with (
        pytest.raises(BadInputError, match=rf"file: cannot write \({reason}\); check free space"),
        atomic_file(old / "file") as temporary,
    ):
        temporary.write_text("ne")
        raise OSError(number, os.strerror(number))
    with (
        pytest.raises(BadInputError, match=rf"folder: cannot write \({reason}\); check free space"),
        atomic_directory(old / "folder") as folder,
    ):
        (folder / "c").write_text("ne")
        raise OSError(number, os.strerror(number))
    assert_old(old)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_what_was_there(small_disk: Path) -> None:
    (small_disk / "file").write_text("old")
    (small_disk / "folder").mkdir()
    fill(small_disk / "folder", "old")
    with pytest.raises(BadInputError, match="No space left"):
        write_text(small_disk / "file", "x" * 200_000)
    with pytest.raises(BadInputError, match="No space left"), atomic_directory(small_disk / "folder") as temporary:
        (temporary / "a").write_text("new")
        (temporary / "b").write_bytes(b"x" * 200_000)
    assert_old(small_disk)


def test_a_full_disk_while_renaming_brings_the_older_folder_back(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target == old / "folder" and (self / "c").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(BadInputError, match="No space left"), atomic_directory(old / "folder") as temporary:
        (temporary / "c").write_text("new")
    assert_old(old)


def test_a_folder_without_write_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):  # root may write anywhere

        def deny(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(files.tempfile, "mkstemp", deny)
    with pytest.raises(BadInputError, match=r"locked/x: cannot write \(Permission denied\)"):
        write_text(folder / "x", "text")
    with (
        pytest.raises(BadInputError, match=r"locked/y: cannot write \(Permission denied\)"),
        atomic_directory(folder / "y"),
    ):
        pass


def test_a_path_below_a_file_or_in_place_of_a_folder_is_told(old: Path) -> None:
    with pytest.raises(BadInputError, match=r"file/below/x: cannot write \((Not a directory|File exists)\)"):
        write_text(old / "file" / "below" / "x", "text")
    with pytest.raises(BadInputError, match=r"folder: cannot write \(Is a directory\)"):
        write_text(old / "folder", "text")
    assert_old(old)


KILLED = """
import sys, time
from pathlib import Path
from morphad.base.files import atomic_directory, atomic_file
root = Path(sys.argv[1])
with atomic_file(root / "file") as file, atomic_directory(root / "folder") as folder:
    file.write_text("ne")
    (folder / "a").write_text("ne")
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_what_was_there(old: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(old)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert (old / "file").read_text() == "old"
    assert names(old / "folder") == ["a", "b"]
    assert (old / "folder" / "a").read_text() == "old"
    # The next run is not disturbed by what the killed one left beside.
    write_text(old / "file", "new")
    with atomic_directory(old / "folder") as folder:
        fill(folder, "new")
    assert (old / "file").read_text() == (old / "folder" / "a").read_text() == "new"


COMPETING = """
import sys
from pathlib import Path
from morphad.base.files import atomic_directory, write_text
root, who = Path(sys.argv[1]), sys.argv[2]
for i in range(150):
    text = f"{who}{i}" * 1000
    write_text(root / "file", text)
    with atomic_directory(root / "folder") as folder:
        (folder / "a").write_text(text)
        (folder / "b").write_text(text)
"""


def test_processes_that_write_the_same_path_never_mix(old: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", COMPETING, str(old), who], stderr=subprocess.PIPE, text=True)
        for who in "xyz"
    ]
    seen = 0
    while any(process.poll() is None for process in running):
        text = (old / "file").read_text()
        assert text == "old" or text == text[: len(text) // 1000] * 1000
        seen += 1
    for process in running:
        assert process.stderr is not None
        told = process.stderr.read()
        process.stderr.close()
        assert process.returncode == 0, told
    assert seen
    assert names(old) == ["file", "folder"]
    assert names(old / "folder") == ["a", "b"]
    assert (old / "folder" / "a").read_text() == (old / "folder" / "b").read_text()


def test_json_is_whole_readable_and_the_same_for_equal_values(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"b": [1, 2.5, None], "a": "ü"})
    first = path.read_bytes()
    write_json(path, {"a": "ü", "b": [1, 2.5, None]})
    assert path.read_bytes() == first
    assert read_json(path) == {"a": "ü", "b": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert path.read_bytes() == first
    assert names(tmp_path) == ["x.json"]


def test_json_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"a": ')
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    for path, told in (
        (tmp_path / "half.json", "not valid JSON"),
        (tmp_path / "binary.json", "not valid JSON"),
        (tmp_path / "none.json", "not found"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(BadInputError, match=told) as failure:
            read_json(path)
        assert str(failure.value).startswith(f"{path}: ")


def test_hashes_are_those_of_sha256sum_and_of_canonical_json(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "x") == known
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1}) != sha256_json({"a": 1, "b": [3]})
