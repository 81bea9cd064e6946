"""Progress for people: rate and remaining time on a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

T = TypeVar("T")
_SECONDS = 30.0  # between two lines in a log


class Progress(Protocol):
    """A callback: how far a stage of the work is."""

    def __call__(self, stage: str, done: int, total: int) -> object:
        """`done` of `total` items of the stage, such as "training", are done."""


def silent(stage: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


class Display:
    """A `Progress` that people see.

    Args:
        what: What is worked on, such as a line; shown after the stage.
    """

    def __init__(self, what: str = "") -> None:
        self._what = what
        self._stage = ""
        self._bar: tqdm[Any] | None = None
        self._said = 0.0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show it; a stage ends when another begins, or when all is done."""
        if stage != self._stage:
            self.close()
            self._stage, self._said = stage, time.monotonic()
        if sys.stderr.isatty():
            bar: tqdm[Any] = self._bar or tqdm(
                desc=self._title, total=total, unit="", initial=done, leave=False, delay=1
            )
            bar.update(done - bar.n)
            self._bar = bar
        elif time.monotonic() - self._said >= _SECONDS:
            self._said = time.monotonic()
            sys.stderr.write(f"{self._title}: {done}{f' of {total}' if total else ''}\n")
            sys.stderr.flush()
        if done == total:
            self.close()

    def close(self) -> None:
        """End the stage."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""

    @property
    def _title(self) -> str:
        return f"{self._stage} {self._what}".rstrip()


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Pass `items` through, showing how far they are.

    Args:
        items: What is worked through.
        what: A few words for the person who waits, such as "scoring pv-mono".
        total: How many items there are, where `items` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    display, done = Display(), 0
    display(what, 0, total)
    try:
        for item in items:
            yield item
            done += 1
            display(what, done, total)
    finally:
        display.close()
