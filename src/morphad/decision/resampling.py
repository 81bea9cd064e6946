"""How sure a figure is: exact intervals of rates, stratified bootstrap by counts."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

_CELLS = 4_000_000  # counts held at once: bounds memory for large holdouts


@dataclass(frozen=True)
class Interval:
    """An interval of a rate or a metric, as fractions."""

    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return {"low": self.low, "high": self.high}


def binomial_interval(count: int, n: int, confidence: float) -> Interval:
    """Clopper-Pearson interval of a rate: `count` of `n` > 0 images, assumed to be independent."""
    return Interval(*one_sided_bounds(count, n, (1 + confidence) / 2))


def one_sided_bounds(count: int, n: int, confidence: float) -> tuple[float, float]:
    """Lower and upper Clopper-Pearson bound of a rate, each by itself at `confidence`: `count` of `n` > 0 images."""
    low = special.betainccinv(count, n - count + 1, confidence) if count else 0.0
    high = special.betaincinv(count + 1, n - count, confidence) if count < n else 1.0
    return float(low), float(high)


def percentile_interval(resampled: NDArray[np.float64], confidence: float) -> Interval:
    """Two-sided percentile interval of resampled values."""
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def stratified_counts(defect: NDArray[np.bool_], resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each image is drawn in each resample, good and defect images apart.

    Drawing with replacement and counting is the same as indexing, and lets every metric be a cumulative sum.

    Args:
        defect: [N] which images show a defect.
        resamples: How many resamples in all.
        seed: Of the draw; the chunks are the same for the same N and seed.

    Yields:
        [b, N] counts; the sum of all b is `resamples`. Each row sums to the class sizes within each class.
    """
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS // max(1, defect.size))
    for start in range(0, resamples, chunk):
        b = min(chunk, resamples - start)
        counts = np.zeros((b, defect.size), dtype=np.int64)
        for members in (np.flatnonzero(~defect), np.flatnonzero(defect)):
            n = members.size
            if n:
                drawn = rng.integers(0, n, size=(b, n)) + np.arange(b)[:, None] * n
                counts[:, members] = np.bincount(drawn.reshape(-1), minlength=b * n).reshape(b, n)
        yield counts
