"""Two models on the same images: paired differences with bounds, and whether one misses more of a kind of defect."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from morphad.decision.resampling import stratified_counts

Difference = dict[str, float]


def paired_differences(
    defect: NDArray[np.bool_],
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    rejected: tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, Difference | None]:
    """First model minus second in AUROC, overkill and escapes: stratified bootstrap with the same images for both.

    Args:
        defect: [N] which images show a defect; good ones occur.
        scores: [N] finite scores of either model.
        rejected: [N] verdicts of either model at its own threshold; None without one.
        confidence: Of each bound by itself, one-sided.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        auroc_difference, overkill_difference and escape_difference: {value, low, high} as fractions, or None where
        there are no defects or one model gives no verdicts.
    """
    n_good, n_defect = int((~defect).sum()), int(defect.sum())
    more = None
    if rejected[0] is not None and rejected[1] is not None:
        more = rejected[0].astype(np.float64) - rejected[1]

    def differences(counts: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        found = {}
        if n_defect:
            found["auroc_difference"] = resampled_auroc(defect, scores[0], counts) - resampled_auroc(
                defect, scores[1], counts
            )
        if more is not None:
            found["overkill_difference"] = counts[:, ~defect] @ more[~defect] / n_good
        if more is not None and n_defect:
            found["escape_difference"] = (n_defect - counts[:, defect] @ (1 + more[defect])) / n_defect
        return found

    chunks = [differences(counts) for counts in stratified_counts(defect, resamples, seed)]
    as_they_are = differences(np.ones((1, defect.size), dtype=np.int64))
    result: dict[str, Difference | None] = dict.fromkeys(
        ("auroc_difference", "overkill_difference", "escape_difference")
    )
    for name, value in as_they_are.items():
        low, high = np.quantile(np.concatenate([chunk[name] for chunk in chunks]), [1 - confidence, confidence])
        result[name] = {"value": float(value[0]), "low": float(low), "high": float(high)}
    return result


def resampled_auroc(
    defect: NDArray[np.bool_], scores: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """AUROC of every resample at once: the share of pairs in order, equal scores half.

    The AUROC of `metrics.ranking` alone, in a fraction of its time.

    Args:
        defect: [N] which images show a defect; both classes occur.
        scores: [N] finite scores.
        counts: [B, N] how often each image is in each resample; both classes occur in each.

    Returns:
        [B] values.
    """
    good = np.flatnonzero(~defect)[np.argsort(scores[~defect])]
    below = np.zeros((counts.shape[0], good.size + 1), dtype=np.int64)
    np.cumsum(counts[:, good], axis=1, out=below[:, 1:])
    lower, upper = (np.searchsorted(scores[good], scores[defect], side) for side in ("left", "right"))
    drawn = counts[:, defect]
    in_order = (drawn * (below[:, lower] + below[:, upper])).sum(axis=1)
    result: NDArray[np.float64] = in_order / (2 * below[:, -1] * drawn.sum(axis=1))
    return result


def chance_of_as_many(newly_missed: int, newly_found: int) -> float:
    """McNemar's test, mid-p: how likely two equal models would differ so far in this direction.

    Each image on which they differ is a fair coin, and half the probability of the outcome itself is counted. The test
    keeps its level with few images and has more power than the exact one (Fagerland, Lydersen and Laake, BMC Medical
    Research Methodology 13:91, 2013).

    Args:
        newly_missed: Defects that the second model rejects and the first does not.
        newly_found: Defects that the first model rejects and the second does not.
    """
    differing = newly_missed + newly_found
    at_least, more = (special.bdtrc(count, differing, 0.5) for count in (newly_missed - 1, newly_missed))
    return float(at_least + more) / 2
