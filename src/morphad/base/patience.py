"""Waiting out the outage of a service, or of a volume."""

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from morphad.base.errors import BadInputError, OutageError

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds

VARIABLE = "MORPHAD_PATIENCE_MINUTES"

# What a file system answers whose server is away, or came back as another.
_AWAY = {
    errno.ESTALE, errno.EIO, errno.EREMOTEIO, errno.ENOTCONN, errno.ESHUTDOWN, errno.ETIMEDOUT, errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
}  # fmt: skip

T = TypeVar("T")


@contextmanager
def outages_of(volume: Path) -> Iterator[None]:
    """Within a block, errors that say that a volume does not answer are outages, and can be waited out.

    Args:
        volume: Where it is mounted. Errors with files that lie elsewhere stay as they are.

    Raises:
        OutageError: The volume does not answer.
    """
    try:
        yield
    except (OSError, BadInputError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in _AWAY:
            raise
        if cause.filename is not None and not Path(os.fsdecode(cause.filename)).absolute().is_relative_to(volume):
            raise
        raise OutageError(
            f"{volume}: the volume does not answer ({cause.strerror}); see that its server runs and is reached"
        ) from error


def wait_out(
    work: Callable[[], T],
    what: str,
    minutes: float | None = None,
    *,
    volume: Path | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Do what may be begun again at any time, and begin again while a service or a volume is away.

    Pauses grow to a minute, and stderr says each with its reason. An answer that says no ends the work at once.

    Args:
        work: What to do; it is called anew after each outage.
        what: What it is, for these messages.
        minutes: How long the pauses may be together; 0: never wait; None: what MORPHAD_PATIENCE_MINUTES says, where
            a pod has it, else 0.
        volume: Where a volume is mounted that the work needs, as in `outages_of`.
        sleep: How to wait.

    Raises:
        OutageError: It is away still.
        BadInputError: MORPHAD_PATIENCE_MINUTES is no such number.
    """
    if minutes is None:
        given = os.environ.get(VARIABLE, "0")
        if not given.isdecimal():
            raise BadInputError(f"{VARIABLE}={given}: expected minutes, such as 10")
        minutes = int(given)

    longest = 60 * minutes

    def attempt() -> T:
        if volume is None:
            return work()
        with outages_of(volume.absolute()):
            return work()

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        sys.stderr.write(
            f"morphad {what}: {error}\n  next try in {state.upcoming_sleep:.0f} s; with that, waited "
            f"{state.idle_for:.0f} s of {longest:.0f} s\n"
        )

    attempts = Retrying(
        retry=retry_if_exception_type(OutageError),
        wait=wait_exponential(min=_FIRST_PAUSE, multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE),
        stop=lambda state: state.idle_for + state.upcoming_sleep > longest,
        before_sleep=tell,
        sleep=sleep,
        reraise=True,
    )
    return attempts(attempt)
