"""Shards: equal content makes equal files, little is packed twice, and what is damaged does not come out."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphad.base.errors import BadInputError, ServiceError
from morphad.data.versions.shards import SHARD_BYTES, File, Shard, check_shard, pack, plan, unpack


def file(number: int, size: int = 1000) -> File:
    return File(hashlib.sha256(str(number).encode()).hexdigest(), size, f"{number:06}.png")


def many(first: int, count: int, size: int = 1000) -> list[File]:
    return [file(number, size) for number in range(first, first + count)]


def sizes_of(shards: list[Shard]) -> dict[str, int]:
    return {shard.name: sum(f.room for f in shard.files) + 10_240 for shard in shards}


def places_of(shards: list[Shard]) -> dict[str, str]:
    return {f.sha256: shard.name for shard in shards for f in shard.files}


def test_a_first_version_fills_shards_in_the_order_of_the_files() -> None:
    files = many(0, 250, size=1 << 20)
    placed, shards = plan(files, {}, {})
    assert placed == {}
    assert [f for shard in shards for f in shard.files] == files
    assert len(shards) == 4 and all(sum(f.room for f in shard.files) <= SHARD_BYTES for shard in shards)


def test_a_file_larger_than_a_shard_gets_its_own() -> None:
    _, shards = plan([file(0), file(1, size=5 * SHARD_BYTES), file(2)], {}, {})
    assert [len(shard.files) for shard in shards] == [1, 1, 1]


def test_what_is_there_is_not_packed_again() -> None:
    _, first = plan(many(0, 5000), {}, {})
    placed, new = plan(many(0, 5100), places_of(first), sizes_of(first))
    assert placed == places_of(first)
    assert [f for shard in new for f in shard.files] == many(5000, 100)


def test_a_shard_that_is_mostly_unused_is_packed_anew() -> None:
    _, first = plan(many(0, 1000), {}, {})
    for left, kept in ((600, 600), (400, 0)):
        placed, new = plan(many(0, left), places_of(first), sizes_of(first))
        assert len(placed) == kept
        assert sum(len(shard.files) for shard in new) == left - kept


@pytest.mark.parametrize("size", [0, 1, 100, 511, 512, 513])
def test_a_full_shard_of_tiny_files_does_not_count_as_unused(size: int) -> None:
    files = many(0, 40, size)
    _, first = plan(files, {}, {})
    placed, new = plan(files, places_of(first), sizes_of(first))
    assert len(placed) == 40 and not new


def test_many_small_shards_become_one() -> None:
    known: dict[str, str] = {}
    sizes: dict[str, int] = {}
    counts = []
    for day in range(80):
        placed, new = plan(many(0, 100 * (day + 1)), known, sizes)
        known = placed | places_of(new)
        sizes |= sizes_of(new)
        counts.append(len(set(known.values())))
    assert max(counts) <= 33


def test_shards_that_are_gone_are_not_counted_on() -> None:
    _, first = plan(many(0, 50), {}, {})
    placed, new = plan(many(0, 50), places_of(first), {})
    assert placed == {} and len(new) == 1


contents = st.lists(st.binary(max_size=3000), min_size=1, max_size=12, unique=True)


@settings(max_examples=30, deadline=None)
@given(contents)
def test_what_is_packed_comes_out_and_equal_content_is_equal_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    files = []
    for number, content in enumerate(data):
        (folder / f"ä {number}.png").write_bytes(content)
        files.append(File(hashlib.sha256(content).hexdigest(), len(content), f"ä {number}.png"))
    shard = Shard(tuple(files))
    one, two = (pack(shard, folder, folder / name).read_bytes() for name in ("one.tar", "two.tar"))
    assert one == two
    wanted = {f.sha256: [folder / "out" / f.path, folder / "again" / f.path] for f in files[::2]}
    unpack(folder / "one.tar", wanted, "one.tar")
    for f, content in list(zip(files, data, strict=True))[::2]:
        assert (folder / "out" / f.path).read_bytes() == (folder / "again" / f.path).read_bytes() == content
    assert len(list((folder / "out").iterdir())) == len(wanted)


def written(folder: Path, count: int = 3) -> Shard:
    files = []
    for number in range(count):
        content = f"content {number}".encode() * 50
        (folder / f"{number}.png").write_bytes(content)
        files.append(File(hashlib.sha256(content).hexdigest(), len(content), f"{number}.png"))
    return Shard(tuple(files))


@pytest.mark.parametrize("change", [b"content X" * 50, b"", b"content 1" * 51])
def test_bytes_that_are_not_those_of_the_manifest_are_not_packed(tmp_path: Path, change: bytes) -> None:
    shard = written(tmp_path)
    (tmp_path / "1.png").write_bytes(change)
    with pytest.raises(BadInputError, match=r"1\.png: changed since the manifest was written; run `morphad ingest`"):
        pack(shard, tmp_path, tmp_path / "out.tar")
    with pytest.raises(BadInputError, match=r"1\.png: changed since"):
        check_shard(shard.files[1], tmp_path)
    (tmp_path / "1.png").unlink()
    with pytest.raises(BadInputError, match=r"1\.png: cannot be read"):
        check_shard(shard.files[1], tmp_path)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "junk", "lacks"])
def test_a_damaged_shard_is_an_error(tmp_path: Path, damage: str) -> None:
    shard = written(tmp_path)
    target = pack(shard, tmp_path, tmp_path / "out.tar")
    whole = bytearray(target.read_bytes())
    whole[600] ^= 1
    wanted = {f.sha256: [tmp_path / "out" / f.path] for f in shard.files}
    target.write_bytes({"cut": target.read_bytes()[:900], "bit": bytes(whole), "empty": b"", "junk": b"x" * 5000}.get(
        damage, target.read_bytes()
    ))  # fmt: skip
    if damage == "lacks":
        wanted["0" * 64] = [tmp_path / "out" / "other.png"]
    with pytest.raises(ServiceError, match=r"a/shards/x\.tar: damaged where the registry keeps its bytes"):
        unpack(target, wanted, "a/shards/x.tar")
