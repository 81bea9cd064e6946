"""What came, what went, and what is said otherwise, between two states of a line's data."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from morphad.data.manifest import DERIVED

_FIRST = ("label", "defect", "group", "mask_sha256")
_IDENTITY = {"path", "sha256", "line", "mask"}


@dataclass(frozen=True)
class Change:
    """One image of which something is said otherwise: a column of the manifest; for a mask, its hash."""

    path: str
    field: str
    before: str
    after: str


@dataclass(frozen=True)
class Difference:
    """How the data changed. Images are identified by path, and known again by their bytes where they were renamed.

    Attributes:
        came: Paths of images that are new.
        went: Paths of images that are gone.
        renamed: Paths before and after of images with the same bytes.
        replaced: Paths whose bytes are others now.
        changed: What is said otherwise of images whose bytes are the same.
    """

    came: tuple[str, ...]
    went: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    replaced: tuple[str, ...]
    changed: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        """As a value for `write_json`."""
        return {
            "came": self.came,
            "went": self.went,
            "renamed": self.renamed,
            "replaced": self.replaced,
            "changed": [vars(change) for change in self.changed],
        }

    def in_words(self, most: int = 10) -> Iterator[str]:
        """Lines for people: the counts, and `most` examples of each."""
        fields: dict[str, list[Change]] = {}
        for change in self.changed:
            fields.setdefault(change.field, []).append(change)
        groups = [
            ("came", [f"+ {path}" for path in self.came]),
            ("went", [f"- {path}" for path in self.went]),
            ("renamed", [f"{before} -> {after}" for before, after in self.renamed]),
            ("with other bytes", list(self.replaced)),
            *(
                (f"with another {name}", [_change_in_words(change) for change in changes])
                for name, changes in fields.items()
            ),
        ]
        for what, examples in groups:
            if examples:
                yield f"{len(examples)} {what}"
                yield from (f"  {example}" for example in examples[:most])
                if len(examples) > most:
                    yield f"  and {len(examples) - most} more"
        if not any(examples for _, examples in groups):
            yield "no difference"


def compare(before: pd.DataFrame, after: pd.DataFrame) -> Difference:
    """The difference of two manifests."""
    old, new = (frame.sort_values("path").set_index("path") for frame in (before, after))
    both = old.index.intersection(new.index)
    gone, arrived = old.index.difference(new.index), new.index.difference(old.index)
    homeless: dict[str, list[str]] = {}
    for path, digest in reversed(list(zip(gone, old.loc[gone, "sha256"], strict=True))):
        homeless.setdefault(digest, []).append(path)
    renamed = [
        (homeless[digest].pop(), path)
        for path, digest in zip(arrived, new.loc[arrived, "sha256"], strict=True)
        if homeless.get(digest)
    ]
    same_bytes = (old.loc[both, "sha256"] == new.loc[both, "sha256"]).to_numpy()
    pairs = [*((path, path) for path in both[same_bytes]), *renamed]
    left, right = (frame.loc[[pair[side] for pair in pairs]] for side, frame in ((0, old), (1, new)))
    given = sorted((set(old.columns) | set(new.columns)) - DERIVED - _IDENTITY - set(_FIRST))
    changed = [
        Change(str(pairs[n][1]), column.removesuffix("_sha256"), was[n], now[n])
        for column in (*_FIRST, *given)
        for was, now in [(_texts(left, column), _texts(right, column))]
        for n in range(len(pairs))
        if was[n] != now[n]
    ]
    moved_from, moved_to = {pair[0] for pair in renamed}, {pair[1] for pair in renamed}
    return Difference(
        tuple(path for path in arrived if path not in moved_to),
        tuple(path for path in gone if path not in moved_from),
        tuple(renamed),
        tuple(both[~same_bytes]),
        tuple(changed),
    )


def _texts(rows: pd.DataFrame, column: str) -> list[str]:
    """A column; manifests of another time may not have it."""
    return [str(value) for value in rows[column]] if column in rows else [""] * len(rows)


def _change_in_words(change: Change) -> str:
    if change.field == "mask":
        what = "another mask" if change.before and change.after else "mask added" if change.after else "mask removed"
        return f"{change.path}: {what}"
    return f"{change.path}: {change.before or 'none'} -> {change.after or 'none'}"
