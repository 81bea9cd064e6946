"""Progress for people: rate and remaining time on a terminal, silence elsewhere."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int | None = None, unit: str = "image", start: int = 0) -> Iterator[T]:
    """Pass `items` through, showing how far they are, at what rate, and the time that remains.

    Args:
        items: What is worked through.
        what: A few words for the person who waits, such as "scoring pv-mono".
        total: How many items there are, where `items` has no length.
        unit: What one item is.
        start: How many were done before (a resumed training).
    """
    yield from tqdm(
        items, desc=what, total=total, unit=unit, initial=start, disable=not sys.stderr.isatty(), leave=False, delay=1
    )


@contextmanager
def counter(what: str, total: int, unit: str = "image") -> Iterator[Callable[[int], object]]:
    """Like `track` for work that is not a loop over items: gives a function to call with how many more are done."""
    with tqdm(desc=what, total=total, unit=unit, disable=not sys.stderr.isatty(), leave=False, delay=1) as bar:
        yield bar.update
