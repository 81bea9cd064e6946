"""Keys of objects as names of files: safe below the mirror, or refused by name."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphad.base.errors import BadInputError
from morphad.data.source.mirror import local_names
from morphad.data.source.s3 import Listed

PARTS = st.text(st.sampled_from("ab./\\ \0\n\u00e9e\u0301\u200b%+"), max_size=12)


def listed(key: str) -> Listed:
    return Listed(key, '"e"', 1, "2026-01-01T00:00:00+00:00")


@given(st.lists(PARTS, max_size=4, unique=True))
def test_every_name_stays_below_the_mirror(parts: list[str]) -> None:
    keys = [f"line/{part}.png" for part in parts]
    try:
        names = local_names(map(listed, keys), "line/", "s3://b/line")
    except BadInputError as error:
        assert str(error).startswith("s3://b/line: ")
        return
    root = "/mirror"
    for name in names:
        path = os.path.normpath(f"{root}/{name}")
        assert path == f"{root}/{name}"
        assert Path(root) in Path(path).parents
        assert name.isprintable() or "\u200b" in name
        assert f"line/{name}" in keys


@pytest.mark.parametrize(
    "key",
    ["line/../x.png", "line//x.png", "line/./x.png", "line/a\\..\\x.png", "line/a\0.png", f"line/{'x' * 300}.png",
     "line/../../etc/x.json", "line//etc/passwd.png"],
)  # fmt: skip
def test_keys_that_lead_elsewhere_are_refused_by_name(key: str) -> None:
    with pytest.raises(BadInputError) as told:
        local_names(iter([listed("line/good.png"), listed(key)]), "line/", "s3://b/line")
    assert repr(key) in str(told.value)
    assert "give these objects other keys" in str(told.value)


def test_what_is_no_image_of_the_line_is_left_alone() -> None:
    keys = ["line/", "line/a.png", "line/.hidden.png", "line/.cache/b.png", "line/../notes.txt", "line/Thumbs.db"]
    aside: list[str] = []
    assert list(local_names(map(listed, keys), "line/", "s3://b/line", aside)) == ["a.png"]
    assert aside == ["Thumbs.db"]


def test_an_object_cannot_be_file_and_folder() -> None:
    keys = ["line/a.png", "line/a.png/b.png"]
    with pytest.raises(BadInputError, match=r"a\.png is an object and the folder of a\.png/b\.png"):
        local_names(map(listed, keys), "line/", "s3://b/line")
