"""Progress for people: rate and remaining time on a terminal, elsewhere a line every 30 s."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Protocol, Self, TypeVar

from tqdm import tqdm

T = TypeVar("T")
_SECONDS = 30.0  # between two lines in a log


class Progress(Protocol):
    """A callback: how far a stage of the work is."""

    def __call__(self, stage: str, done: int, total: int) -> object:
        """`done` of `total` items of the stage, such as "training", are done."""


def silent(stage: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


def counted(progress: Progress, stage: str, total: int) -> Callable[[int], object]:
    """A callback that gets how many more items of a stage are done."""
    done = 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        progress(stage, done, total)

    return more


class Display:
    """A `Progress` that people see.

    Within `with`, a line comes every 30 s where there is no terminal, also while the work reports nothing.

    Args:
        what: What is worked on, such as a line; shown after the stage.
    """

    def __init__(self, what: str = "") -> None:
        self._what = what
        self._stage = ""
        self._done = 0
        self._total: int | None = None
        self._bar: tqdm[Any] | None = None
        self._begun = self._said = 0.0
        self._lock = threading.Lock()  # of what is said
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Begin to say from time to time how far the work is."""
        if not sys.stderr.isatty():
            threading.Thread(target=self._remind, daemon=True, name="progress").start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._ended.set()
        self.close()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show it; a stage ends when another begins."""
        if stage != self._stage:
            self.close()
            self._stage, self._begun = stage, time.monotonic()
            self._said = self._begun
        self._done, self._total = done, total
        if sys.stderr.isatty():
            bar: tqdm[Any] = self._bar or tqdm(
                desc=self._title, total=total, unit="", initial=done, leave=False, delay=1
            )
            bar.update(done - bar.n)
            self._bar = bar
            if done == total:
                self.close()
        else:
            self._say_if_due()

    def close(self) -> None:
        """End the stage."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""

    def _remind(self) -> None:
        while not self._ended.wait(_SECONDS / 10):
            self._say_if_due()

    def _say_if_due(self) -> None:
        with self._lock:
            now = time.monotonic()
            if self._stage and now - self._said >= _SECONDS:
                self._said = now
                of = f" of {self._total}" if self._total else ""
                sys.stderr.write(f"{self._title}: {self._done}{of} after {now - self._begun:.0f} s\n")
                sys.stderr.flush()

    @property
    def _title(self) -> str:
        return f"{self._stage} {self._what}".rstrip()


class Ticker:
    """What is waited for: on a terminal one line that changes, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._said = time.monotonic()
        self._open = False

    def say(self, text: str) -> None:
        """Show it, if it is time."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text[:110]}")
            self._open = True
        elif time.monotonic() - self._said >= _SECONDS:
            sys.stderr.write(f"{text}\n")
            self._said = time.monotonic()
        sys.stderr.flush()

    def close(self) -> None:
        """Make room for what is printed next."""
        if self._open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._open = False


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Pass `items` through, showing how far they are.

    Args:
        items: What is worked through.
        what: A few words for the person who waits, such as "scoring pv-mono".
        total: How many items there are, where `items` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    done = 0
    with Display() as display:
        display(what, 0, total)
        for item in items:
            yield item
            done += 1
            display(what, done, total)
