"""What `make test` tries of many alike cases: a few of each. `make test-all` tries all."""

import os
from collections.abc import Sequence
from typing import TypeVar

import pytest

EXHAUSTIVE = bool(os.environ.get("MORPHAD_TEST_EXHAUSTIVE"))

minutes_long = pytest.mark.skipif(not EXHAUSTIVE, reason="minutes long, and others are like it: make test-all")

T = TypeVar("T")


def sample(cases: Sequence[T], count: int) -> list[T]:
    """So many of some cases, evenly spaced, the first and the last among them; all where everything is to be tried."""
    if EXHAUSTIVE or len(cases) <= count:
        return list(cases)
    return [cases[round(i * (len(cases) - 1) / (count - 1))] for i in range(count)]
