"""A training that is asked to end: it finishes its step and writes its checkpoint first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Ending:
    """Whether this process was asked to end (SIGTERM)."""

    CODE = 128 + signal.SIGTERM  # what a shell and Kubernetes show of a process that the signal ended

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def noting_sigterm() -> Iterator[Ending]:
    """Within a block, SIGTERM is noted and does nothing else, in the main thread; elsewhere it stays as it is.

    Whoever sends it waits a while before the process is killed (Kubernetes 30 s). When the block ends without having
    minded it, it has its usual effect.
    """
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        ending.asked = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield ending
    finally:
        signal.signal(signal.SIGTERM, before)
    if ending.asked:
        signal.raise_signal(signal.SIGTERM)
