"""The ways a command can end badly, each with its exit code.

0 done, 1 a gate or check said no, 2 wrong use or bad input, 3 a service did not answer.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class MorphadError(Exception):
    """Base of every error that a user can remedy; the command line prints its message, never a traceback.

    A message names the file, line, key or value, says what was expected, and what to do. Credentials in it are hidden.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str = "") -> None:
        from morphad.base.text import masked  # noqa: PLC0415 -- its patterns would slow every start

        super().__init__(masked(message))


class BadInputError(MorphadError):
    """Wrong use, or input that cannot be worked with."""

    exit_code = 2


class CheckFailedError(MorphadError):
    """A check or a gate said no to good input."""

    exit_code = 1


class ServiceError(MorphadError):
    """A service (MLflow, S3) did not answer in time or refused."""

    exit_code = 3


class OutageError(ServiceError):
    """A service did not answer, or cannot work just now: asked again later, it may."""


@contextmanager
def ending_process(doing: str) -> Iterator[None]:
    """Let an error of a block end the process with its message and exit code, in place of a traceback.

    Args:
        doing: What the block does, such as "train pcb".
    """
    try:
        yield
    except MorphadError as error:
        sys.stderr.write(f"morphad {doing}: {error}\n")
        raise SystemExit(error.exit_code) from None
