"""What a model is worth on labelled images: ranking, pixels, overkill and escape, each with how sure it is.

A metric that the images do not allow (one class only, no masks) is None, never NaN, so every result is valid JSON.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import tee, zip_longest
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from morphad.base.errors import BadInputError
from morphad.decision.calibration import finite_scores, operating_point
from morphad.decision.pixels import PixelScores, aupro, pixel_auroc
from morphad.decision.resampling import Interval, binomial_interval, percentile_interval, stratified_counts
from morphad.settings import EvaluateSettings

__all__ = [
    "aupro",
    "evaluate",
    "histogram_rows",
    "image_metrics",
    "is_defect",
    "per_defect",
    "pixel_auroc",
    "roc_points",
]

T = TypeVar("T")
METRICS = ("image_auroc", "image_ap", "image_f1_max")


def is_defect(labels: ArrayLike) -> NDArray[np.bool_]:
    """[N] whether each image shows a defect, from "good" / "defect", 0 / 1 or booleans.

    Raises:
        BadInputError: A label is something else.
    """
    values = np.asarray(labels)
    if values.ndim != 1:
        raise BadInputError(f"labels: expected one an image, got an array of shape {values.shape}")
    if values.dtype == np.bool_ or not values.size:
        return values.astype(bool)
    allowed = {"good": False, "defect": True, 0: False, 1: True}
    try:
        return np.array([allowed[value] for value in values.tolist()])
    except (KeyError, TypeError) as error:
        raise BadInputError(f"labels: {error} is not a label; expected good or defect (or 0 and 1)") from error


def ranking(
    defect: NDArray[np.bool_], scores: NDArray[np.float64], counts: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """AUROC, average precision and greatest F1 of every resample at once.

    Cumulative counts from the highest score down are the ROC and precision-recall curves; equal scores are one step.

    Args:
        defect: [N] which images show a defect; both classes occur.
        scores: [N] finite scores.
        counts: [B, N] how often each image is in each resample; both classes occur in each.

    Returns:
        [B] values by the names in `METRICS`.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    drawn, positive = counts[:, order], defect[order]
    tp = np.cumsum(drawn * positive, axis=1)[:, last_of_equals]
    fp = np.cumsum(drawn * ~positive, axis=1)[:, last_of_equals]
    n_defect, n_good = tp[:, -1], fp[:, -1]
    new_tp, new_fp = np.diff(tp, prepend=0, axis=1), np.diff(fp, prepend=0, axis=1)
    precision = tp / np.maximum(tp + fp, 1)
    return {
        "image_auroc": (new_fp * (2 * tp - new_tp)).sum(axis=1) / (2 * n_defect * n_good),
        "image_ap": (new_tp * precision).sum(axis=1) / n_defect,
        "image_f1_max": (2 * tp / (tp + fp + n_defect[:, None])).max(axis=1),
    }


def image_metrics(labels: ArrayLike, scores: ArrayLike) -> dict[str, float | None]:
    """Image AUROC, average precision and greatest F1 on raw scores; None each where one class is missing.

    Raises:
        BadInputError: A score is not finite, a label is unknown, or their numbers differ.
    """
    defect, values = _checked(labels, scores)
    if defect.all() or not defect.any():
        return dict.fromkeys(METRICS)
    ones = np.ones((1, values.size), dtype=np.int64)
    return {name: float(found[0]) for name, found in ranking(defect, values, ones).items()}


def image_intervals(
    labels: ArrayLike, scores: ArrayLike, resamples: int, confidence: float, seed: int = 0
) -> dict[str, Interval | None]:
    """Stratified-bootstrap percentile intervals of `image_metrics`, None where the metric is None.

    Where scores separate the classes without error every resample does too, and the bootstrap would claim certainty.
    The AUROC then gets the Clopper-Pearson interval of min(good, defect) disjoint pairs, all in order (each pair
    is an independent trial with success probability AUROC); the other two get no interval.
    """
    defect, values = _checked(labels, scores)
    if defect.all() or not defect.any():
        return dict.fromkeys(METRICS)
    chunks = [ranking(defect, values, counts) for counts in stratified_counts(defect, resamples, seed)]
    result: dict[str, Interval | None] = {}
    for name in METRICS:
        resampled = np.concatenate([chunk[name] for chunk in chunks])
        interval: Interval | None = percentile_interval(resampled, confidence)
        if resampled.min() == resampled.max():
            pairs = int(min(defect.sum(), (~defect).sum()))
            value = float(resampled[0])
            exact = name == "image_auroc" and value in {0.0, 1.0}
            interval = binomial_interval(round(value) * pairs, pairs, confidence) if exact else None
        result[name] = interval
    return result


def per_defect(
    labels: ArrayLike,
    scores: ArrayLike,
    kinds: Sequence[str],
    *,
    threshold: float | None,
    settings: EvaluateSettings,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Every defect kind against all good images.

    Args:
        labels: [N] labels.
        scores: [N] scores.
        kinds: [N] name of the defect kind; that of good images does not count, an empty one counts as "defect".
        threshold: Reject iff score > threshold; None leaves the escape figures None.
        settings: Resamples and confidence.
        seed: Of the bootstrap.

    Returns:
        By kind: n, auroc, auroc_low, auroc_high, escapes, escape_rate, escape_low, escape_high.
    """
    defect, values = _checked(labels, scores)
    if len(kinds) != values.size:
        raise BadInputError(f"defect kinds: got {len(kinds)} for {values.size} images")
    named = np.array([kind or "defect" for kind in kinds], dtype=object)
    result: dict[str, dict[str, Any]] = {}
    for kind in sorted(set(named[defect])):
        of_kind = defect & (named == kind)
        chosen = of_kind | ~defect
        auroc = image_metrics(of_kind[chosen], values[chosen])["image_auroc"]
        interval = image_intervals(of_kind[chosen], values[chosen], settings.bootstrap, settings.confidence, seed)
        spread = interval["image_auroc"]
        escape = None if threshold is None else rate_of(values[of_kind] <= threshold, settings.confidence)
        result[kind] = {
            "n": int(of_kind.sum()),
            "auroc": auroc,
            "auroc_low": spread and spread.low,
            "auroc_high": spread and spread.high,
            "escapes": escape and escape["count"],
            "escape_rate": escape and escape["rate"],
            "escape_low": escape and escape["low"],
            "escape_high": escape and escape["high"],
        }
    return result


def rate_of(happened: NDArray[np.bool_], confidence: float) -> dict[str, Any] | None:
    """Rate with Clopper-Pearson interval: {rate, low, high, count, n}; None without images."""
    count, n = int(happened.sum()), happened.size
    if not n:
        return None
    return {"rate": count / n, **binomial_interval(count, n, confidence).to_json(), "count": count, "n": n}


def roc_points(labels: ArrayLike, scores: ArrayLike) -> list[dict[str, float]]:
    """Corners of the ROC curve as rows {"fpr", "tpr"}, from (0, 0) to (1, 1); empty where one class is missing."""
    defect, values = _checked(labels, scores)
    if defect.all() or not defect.any():
        return []
    from sklearn.metrics import roc_curve  # noqa: PLC0415 -- a second to import, and a decision needs no curve

    fpr, tpr, _ = roc_curve(defect, values)
    return [{"fpr": float(x), "tpr": float(y)} for x, y in zip(fpr, tpr, strict=True)]


def histogram_rows(labels: ArrayLike, scores: ArrayLike) -> list[dict[str, Any]]:
    """One row {"score", "label"} an image, for a histogram; label is "good" or "defect"."""
    defect, values = _checked(labels, scores)
    return [{"score": float(s), "label": "defect" if d else "good"} for s, d in zip(values, defect, strict=True)]


def evaluate(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    settings: EvaluateSettings,
    threshold: float | None = None,
    kinds: Sequence[str] | None = None,
    masks: Iterable[NDArray[np.bool_] | None] | None = None,
    maps: Iterable[NDArray[np.float32]] | None = None,
    inspected: NDArray[np.bool_] | Iterable[NDArray[np.bool_]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of one model on the holdout, ready for JSON.

    Args:
        labels: [N] "good" or "defect".
        scores: [N] raw scores, higher is more abnormal.
        settings: Resamples, confidence, parts per shift, defect rate, prices.
        threshold: Reject iff score > threshold; None where the guarantee is not attainable.
        kinds: [N] defect kinds, or None to treat all defects as one kind.
        masks: N masks, read once; a defect image whose mask is None is left out of the pixel figures.
        maps: N heatmaps of the masks' sizes, read once.
        inspected: bool [H, W], the pixels that pixel figures count, of all images or of each, read once; None: all.
        seed: Of the bootstrap.

    Returns:
        image_auroc, image_ap, image_f1_max, pixel_auroc, aupro, intervals {metric: {low, high} | None},
        per_defect {kind: {n, auroc, ...}}, n_good, n_defect, n_masks, threshold, overkill and escape {rate, low, high,
        count, n, parts_per_shift} | None, operating_point | None, confidence, parts_per_shift, defect_rate.

    Raises:
        BadInputError: Scores, labels, kinds, masks or maps do not fit each other or are not finite.
    """
    defect, values = _checked(labels, scores)
    confidence = settings.confidence
    intervals = image_intervals(defect, values, settings.bootstrap, confidence, seed)
    pixels = None if masks is None or maps is None else _pixels(defect, masks, maps, inspected)
    overkill = escape = None
    if threshold is not None:
        overkill = rate_of(values[~defect] > threshold, confidence)
        escape = rate_of(values[defect] <= threshold, confidence)
    parts, defect_rate = settings.parts_per_shift, settings.defect_rate
    if overkill is not None:
        overkill["parts_per_shift"] = parts * (1 - defect_rate) * overkill["rate"]
    if escape is not None:
        escape["parts_per_shift"] = parts * defect_rate * escape["rate"]
    by_cost = None
    if settings.cost is not None and defect.any() and not defect.all():
        by_cost = operating_point(values[~defect], values[defect], settings.cost, confidence).to_json()
    return {
        **image_metrics(defect, values),
        "pixel_auroc": pixels.auroc() if pixels else None,
        "aupro": pixels.aupro() if pixels else None,
        "intervals": {name: interval and interval.to_json() for name, interval in intervals.items()},
        "per_defect": per_defect(
            defect, values, kinds or [""] * values.size, threshold=threshold, settings=settings, seed=seed
        ),
        "n_good": int((~defect).sum()),
        "n_defect": int(defect.sum()),
        "n_masks": pixels.masked if pixels else 0,
        "threshold": threshold,
        "overkill": overkill,
        "escape": escape,
        "operating_point": by_cost,
        "confidence": confidence,
        "parts_per_shift": parts,
        "defect_rate": defect_rate,
    }


def _pixels(
    defect: NDArray[np.bool_],
    masks: Iterable[NDArray[np.bool_] | None],
    maps: Iterable[NDArray[np.float32]],
    inspected: NDArray[np.bool_] | Iterable[NDArray[np.bool_]] | None,
) -> PixelScores:
    if inspected is None or isinstance(inspected, np.ndarray):
        return PixelScores.gather(_known(defect, masks, maps), inspected)
    some, same = tee(_known(defect, masks, zip(maps, inspected, strict=True)))
    return PixelScores.gather(((mask, heatmap) for mask, (heatmap, _) in some), (inside for _, (_, inside) in same))


def _known(
    defect: NDArray[np.bool_], masks: Iterable[NDArray[np.bool_] | None], maps: Iterable[T]
) -> Iterator[tuple[NDArray[np.bool_] | None, T]]:
    """Masks and heatmaps of the images whose every pixel has a known label."""
    for shows_defect, mask, heatmap in zip_longest(defect, masks, maps):
        if shows_defect is None or heatmap is None:
            raise BadInputError("pixel metrics: one mask (or None) and one heatmap are needed for each of the images")
        if not shows_defect or mask is not None:
            yield mask, heatmap


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    defect, values = is_defect(labels), finite_scores(scores)
    if values.shape != defect.shape:
        raise BadInputError(f"got {defect.size} labels but scores of shape {values.shape}; expected one score a label")
    return defect, values
