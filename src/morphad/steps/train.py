"""Step `train`: a detector learns from good images."""

import sys
from collections.abc import Callable

import pandas as pd

from morphad.base.progress import Display
from morphad.base.wording import counted
from morphad.data.loading import Repeatable, read_pixels
from morphad.data.manifest import read_manifest
from morphad.model.alignment.alignment import other_size
from morphad.model.detector import Detector
from morphad.model.region import region_of
from morphad.model.training.placing import place_training
from morphad.settings import LineSettings, TrainSettings
from morphad.steps.anchor import read_anchor
from morphad.steps.common import Figures, check_size, training_facts, with_role
from morphad.steps.paths import LinePaths


def train(settings: LineSettings, paths: LinePaths, seed: int, *, gpus: int = 0) -> Figures:
    """Fit a detector on the training images; a killed run resumes from its checkpoint.

    Args:
        settings: Of the line.
        paths: Where its files are.
        seed: Of the training.
        gpus: How many GPUs were asked for on behalf of this step: more than one means so many processes, and if none
            of them works, the figures hold a warning.

    Raises:
        BadInputError: Too few training images, settings that do not fit network, device or its memory, or images
            of another size than the region's; nothing is read where the device is not there.
    """
    unfitted = Detector(settings.train, seed, place_training(settings.train, gpus), settings.ingest.decoding)
    rows = with_role(paths.split, "train")
    everyone = read_manifest(paths.split)  # calibration and holdout, too: now, and not after hours
    used = everyone[everyone["role"] != "excluded"]
    check_size(paths.line, _refusal(settings.train, rows), used)
    anchor = read_anchor(settings, paths, everyone)
    pixels = Repeatable(lambda: read_pixels(rows, paths.pictures, unfitted.decoding, f"reading {paths.line}"))
    sizes = list(zip(rows["height"].tolist(), rows["width"].tolist(), strict=True))
    _say_cost(unfitted, sizes, paths.line)
    with Display(paths.line) as progress:
        detector = unfitted.fit(
            pixels,
            sizes=sizes,
            names=rows["path"].tolist(),
            anchor=anchor,
            checkpoint=paths.checkpoint,
            progress=progress,
        )
    if lost := detector.lost_:
        sys.stderr.write(
            f"{paths.line}: part not found in {counted(len(lost), 'image')}, left out: {', '.join(lost)}\n"
        )
    detector.save(paths.fitted)
    paths.checkpoint.unlink(missing_ok=True)
    begun = detector.training_.resumed_from if detector.training_ else 0
    return {**training_facts(detector), "resumed_from": begun}


def _refusal(settings: TrainSettings, rows: pd.DataFrame) -> Callable[[int, int], str]:
    """Which sizes are refused: what is known before anything is learned."""
    if settings.region is not None:
        return region_of(settings.region).refusal
    if settings.align != "none":
        size = int(rows["height"].iloc[0]), int(rows["width"].iloc[0])
        return lambda height, width: other_size((height, width), size)
    return lambda height, width: ""


def _say_cost(unfitted: Detector, sizes: list[tuple[int, int]], line: str) -> None:
    """What a picture will take, where the settings ask for tiles or give a budget; one that is too small is refused."""
    resolution = unfitted.settings.resolution
    if (resolution.smallest_defect, resolution.tiled_size, resolution.budget_ms) == (None, None, None):
        return
    cost = unfitted.cost(sizes)
    cost.check(unfitted.settings)
    fits = "" if resolution.budget_ms is None else f"; budget {resolution.budget_ms:g} ms: fits"
    sys.stderr.write(f"{line}: {cost}{fits}\n")
