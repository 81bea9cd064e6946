"""How well heatmaps find the defect within the image: pixel AUROC and AUPRO, exact over all thresholds."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from morphad.base.errors import BadInputError

_EIGHT = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner belong to one region


@dataclass(frozen=True)
class PixelScores:
    """All pixels of a holdout, the normal ones sorted: 4 bytes a normal pixel, 16 bytes a defect pixel.

    Attributes:
        normal: Scores of inspected pixels outside every mask, ascending.
        defect: Scores of inspected pixels inside a mask.
        region_weight: For each defect pixel 1 / the number of pixels in its region.
        regions: How many regions (8-connected parts of masks) there are.
        masked: How many images have a mask with a defect pixel.
    """

    normal: NDArray[np.float32]
    defect: NDArray[np.float32]
    region_weight: NDArray[np.float64]
    regions: int
    masked: int

    @classmethod
    def gather(
        cls,
        images: Iterable[tuple[NDArray[np.bool_] | None, NDArray[np.float32]]],
        inspected: NDArray[np.bool_] | Iterable[NDArray[np.bool_]] | None = None,
    ) -> "PixelScores":
        """Sort the pixels of images, which are read once and may come from a generator.

        Args:
            images: Mask and heatmap of each: bool [H, W], True where the defect is, or None for an image without any;
                and float32 [H, W] of the same size. Images may differ in size.
            inspected: bool [H, W], the pixels that count, of all images where they are of one size, or of each; None:
                all pixels.

        Raises:
            BadInputError: A heatmap is not finite or not [H, W], or its mask is of another size or not bool.
        """
        normal: list[NDArray[np.float32]] = []
        defect: list[NDArray[np.float32]] = []
        weights: list[NDArray[np.float64]] = []
        regions = 0
        insides = repeat(inspected) if inspected is None or isinstance(inspected, np.ndarray) else inspected
        for number, ((mask, heatmap), inside) in enumerate(zip(images, insides, strict=False)):
            scores = _checked(heatmap, mask, number)
            counting = slice(None) if inside is None else inside
            if mask is not None and inside is not None:
                mask = mask & inside  # noqa: PLW2901 -- a region that is cut is what is left of it
            if mask is None or not mask.any():
                normal.append(scores[counting].reshape(-1))
                continue
            labels, found = ndimage.label(mask, structure=_EIGHT)
            within = labels[mask]
            sizes = np.bincount(within, minlength=found + 1).astype(np.float64)
            normal.append(scores[~mask if inside is None else inside & ~mask])
            defect.append(scores[mask])
            weights.append(1 / sizes[within])
            regions += found
        pooled = np.concatenate(normal) if normal else np.empty(0, np.float32)
        pooled.sort()
        return cls(
            pooled,
            np.concatenate(defect) if defect else np.empty(0, np.float32),
            np.concatenate(weights) if weights else np.empty(0),
            regions,
            len(defect),
        )

    def auroc(self) -> float | None:
        """Area under the ROC curve of all pixels pooled; None without normal or without defect pixels."""
        return self._area(np.ones(self.defect.size), 1.0)

    def aupro(self, max_fpr: float = 0.3) -> float | None:
        """Area under the per-region-overlap curve up to a false-positive rate, divided by that rate.

        The curve of Bergmann et al. (MVTec AD, IJCV 2021): for each threshold the share of normal pixels above it
        against the mean over regions of the share of the region above it. Here every distinct score is a threshold
        and the last piece is interpolated. None without normal pixels or regions.
        """
        if not 0 < max_fpr <= 1:
            raise BadInputError(f"max_fpr = {max_fpr!r}: expected above 0 and at most 1")
        return self._area(self.region_weight, max_fpr)

    def _area(self, weight: NDArray[np.float64], limit: float) -> float | None:
        """Weighted mean over defect pixels of the area that each adds to the curve between 0 and `limit`.

        A pixel of score s lifts the curve from false-positive rate P(normal > s) to P(normal >= s), by a straight
        line where normal pixels tie with it and a step where none do. So the area is a sum over defect pixels and
        no curve of millions of points is built.
        """
        if not self.normal.size or not self.defect.size:
            return None
        total = 0.0
        step = 1 << 20
        order = np.argsort(self.defect)  # neighbouring look-ups stay in the processor's cache
        for start in range(0, order.size, step):
            part = order[start : start + step]
            scores = self.defect[part]
            first = 1 - np.searchsorted(self.normal, scores, side="right") / self.normal.size
            last = 1 - np.searchsorted(self.normal, scores, side="left") / self.normal.size
            ramp = np.clip(limit - first, 0, last - first)
            slope = np.divide(ramp, 2 * (last - first), out=np.zeros_like(ramp), where=last > first)
            total += float(weight[part] @ (np.maximum(limit - last, 0) + ramp * slope))
        return total / (float(weight.sum()) * limit)


def pixel_auroc(masks: Iterable[NDArray[np.bool_] | None], maps: Iterable[NDArray[np.float32]]) -> float | None:
    """Pixel AUROC of heatmaps against masks, one or None each (`PixelScores.gather` says what they hold)."""
    return PixelScores.gather(zip(masks, maps, strict=True)).auroc()


def aupro(
    masks: Iterable[NDArray[np.bool_] | None], maps: Iterable[NDArray[np.float32]], max_fpr: float = 0.3
) -> float | None:
    """AUPRO of heatmaps against masks, one or None each (`PixelScores.gather` says what they hold)."""
    return PixelScores.gather(zip(masks, maps, strict=True)).aupro(max_fpr)


def _checked(heatmap: NDArray[np.float32], mask: NDArray[np.bool_] | None, number: int) -> NDArray[np.float32]:
    if heatmap.ndim != 2:
        raise BadInputError(f"pixel metrics: heatmap {number} has shape {heatmap.shape}; expected [H, W]")
    if not np.isfinite(heatmap).all():
        raise BadInputError(f"pixel metrics: heatmap {number} holds values that are not finite")
    if mask is not None and mask.shape != heatmap.shape:
        raise BadInputError(
            f"pixel metrics: mask {number} is {mask.shape[0]} x {mask.shape[1]} px but its heatmap is "
            f"{heatmap.shape[0]} x {heatmap.shape[1]} px (height x width); resize the heatmap to the image"
        )
    if mask is not None and mask.dtype != np.bool_:
        raise BadInputError(f"pixel metrics: mask {number} is {mask.dtype}; expected bool, True where the defect is")
    return heatmap.astype(np.float32, copy=False)
