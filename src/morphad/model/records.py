"""What a detector says of an image, and what is known of its training."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prediction:
    """What the detector says of one image.

    Attributes:
        score: Higher for more abnormal; unbounded, comparable within one model only.
        heatmap: [H, W] float32 at the image's own size, in the unit of the score for a density score; [0, 0] where
            nobody asked for it.
        rejected: Whether the score is above the threshold; None where there is no threshold.
        p_value: Share of good calibration images that are at least as abnormal, in (0, 1]; None before calibration.
        reason: Why it is rejected whatever the threshold, such as a part that was not found; "" for others.
        inspected: bool [H, W], which pixels were inspected; None: all, or nobody asked for a heatmap.
    """

    score: float
    heatmap: NDArray[np.float32]
    rejected: bool | None
    p_value: float | None
    reason: str = ""
    inspected: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class TrainingResult:
    """How a training went.

    Attributes:
        history: About a hundred records: `step` (steps done), `learning_rate`, and the means since the record before
            of `loss`, `case_loss`, `height_loss` and `width_loss`.
        case_accuracy: Share of probe images whose case is named right, 0..1; None without training. The probe is
            256 training images, each through one random case, the same for equal seeds.
        height_accuracy: The same for the structuring element's height.
        width_accuracy: The same for its width.
        resumed_from: Steps that a checkpoint had done; 0 for an unbroken run.
        device: cpu or cuda.
        processes: How many trained together.
        warning: Why it was not where one would expect it, such as on the CPU of a machine with a GPU.
    """

    history: tuple[dict[str, float], ...] = ()
    case_accuracy: float | None = None
    height_accuracy: float | None = None
    width_accuracy: float | None = None
    resumed_from: int = 0
    device: str = "cpu"
    processes: int = 1
    warning: str | None = None
