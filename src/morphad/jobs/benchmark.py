"""`morphad benchmark`: fit and score every set in MVTec AD layout; no label is used for any choice."""

import multiprocessing
import os
import resource
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from morphad.base.errors import BadInputError
from morphad.base.files import check_writable, write_json
from morphad.base.progress import Display, track
from morphad.base.spool import MapSpool
from morphad.data.images import decode
from morphad.data.loading import Repeatable, in_order, read_mask
from morphad.data.source.finding import find_images
from morphad.data.source.image import SourceImage
from morphad.decision.metrics import evaluate
from morphad.model.detector import Detector
from morphad.model.training.launching import follow_parent
from morphad.settings import EvaluateSettings, IngestSettings
from morphad.settings.presets import train_settings

COLUMNS = ("image_auroc", "image_ap", "pixel_auroc", "aupro")


def run(root: Path, names: list[str] | None, preset: str, seed: int, out: Path) -> str:
    """Measure each set in a process of its own, write the figures after each, and give them as a table.

    Raises:
        BadInputError: ROOT holds no set, a named set is missing, or `out` cannot be written.
    """
    folders = _sets(root, names)
    check_writable(out)
    results: dict[str, Any] = {}
    for folder in folders:
        with fresh_process() as pool:
            try:
                results[folder.name] = pool.submit(measure, folder, {"preset": preset}, seed).result()
            except BrokenProcessPool as error:
                raise BadInputError(f"{folder}: its process was killed, most likely for want of memory") from error
        write_json(out, results)
    return _table(results) + f"\nwritten to {out}"


def fresh_process() -> ProcessPoolExecutor:
    """One new process, so that the peak of its memory is its own; it ends when this one is killed."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=follow_parent, initargs=(os.getpid(),))


def measure(
    folder: Path,
    settings: Mapping[str, Any],
    seed: int,
    resamples: int = 100,
    checkpoint: Path | None = None,
    *,
    anchor: NDArray[np.uint8] | None = None,
) -> dict[str, Any]:
    """Fit on train/good of one set and score its test images.

    Args:
        folder: A set in MVTec AD layout.
        settings: Of training: a preset and what differs from it.
        seed: Of the fit and of the resamples.
        resamples: Behind the interval of the image AUROC.
        checkpoint: As in `Detector.fit`.
        anchor: As in `Detector.fit`.

    Returns:
        What `figures` gives; fit_seconds, images_per_second (decoding, score and heatmap), peak_rss_mb, n_train,
        n_test, and case_accuracy: the share of cases named right at the end of training, None untrained.
    """
    training, test = read_set(folder)
    started = time.perf_counter()
    detector = Detector(train_settings(dict(settings)), seed)
    sizes = (pixels.shape[:2] for pixels in _pixels(training, f"measuring {folder.name}"))  # read if they are asked for
    with Display(folder.name) as progress:
        pixels = Repeatable(lambda: _pixels(training, f"reading {folder.name}"))
        detector.fit(pixels, sizes=sizes, anchor=anchor, checkpoint=checkpoint, progress=progress)
    fitted = time.perf_counter()
    scores: list[float] = []
    with MapSpool() as maps:
        for prediction in detector.predict(_pixels(test, f"scoring {folder.name}")):
            scores.append(prediction.score)
            maps.append(prediction.heatmap)
        scored = time.perf_counter()
        found = figures(test, scores, maps, seed, resamples)
    return {
        **found,
        "case_accuracy": detector.training_.case_accuracy if detector.training_ else None,
        "fit_seconds": round(fitted - started, 2),
        "images_per_second": round(len(test) / (scored - fitted), 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "n_train": len(training),
        "n_test": len(test),
    }


def read_set(folder: Path) -> tuple[list[SourceImage], list[SourceImage]]:
    """Images of train/good, and of test/, of a set in MVTec AD layout.

    Raises:
        BadInputError: One of the two is empty.
    """
    images = find_images(IngestSettings(source="folder", path=str(folder)))
    training = [image for image in images if image.origin.startswith("train/") and image.label == "good"]
    test = [image for image in images if image.origin.startswith("test/")]
    if not training or not test:
        raise BadInputError(
            f"{folder}: expected images in train/good and in test/; got {len(training)} and {len(test)}"
        )
    return training, test


def figures(
    test: Sequence[SourceImage],
    scores: ArrayLike,
    maps: Iterable[NDArray[np.float32]] | None,
    seed: int,
    resamples: int = 100,
) -> dict[str, Any]:
    """How well scores and heatmaps separate the test images of a set.

    Returns:
        image_auroc, image_ap, pixel_auroc, aupro; interval: the 95 % bootstrap interval of the image AUROC, [low, high]
        or None; per_defect {kind: image AUROC}.
    """
    found = evaluate(
        [image.label for image in test],
        scores,
        settings=EvaluateSettings(bootstrap=resamples),
        kinds=[image.defect for image in test],
        masks=(read_mask(image.mask) if image.mask else None for image in test),
        maps=maps,
        seed=seed,
    )
    interval = found["intervals"]["image_auroc"]
    return {
        **{column: found[column] for column in COLUMNS},
        "interval": interval and [interval["low"], interval["high"]],
        "per_defect": {kind: row["auroc"] for kind, row in found["per_defect"].items()},
    }


def _pixels(images: Sequence[SourceImage], what: str) -> Iterator[NDArray[np.uint8]]:
    return track(in_order(lambda image: decode(image.file).pixels, images), what, total=len(images))


def _sets(root: Path, names: list[str] | None) -> list[Path]:
    if not root.is_dir():
        raise BadInputError(f"{root}: no such folder; give a folder of sets in MVTec AD layout, or one set")
    alone = (root / "train" / "good").is_dir()
    found = {
        folder.name: folder
        for folder in ([root.resolve()] if alone else sorted(root.iterdir()))
        if (folder / "train" / "good").is_dir()
    }
    missing = [name for name in names or [] if name not in found]
    if missing or not found:
        what = f"no set {missing[0]!r}" if missing else "no folder with train/good in it"
        raise BadInputError(f"{root}: {what}; sets there: {', '.join(found) or 'none'}")
    return [found[name] for name in names] if names else list(found.values())


def _table(results: dict[str, Any]) -> str:
    names = ("image AUROC", "AP", "pixel AUROC", "AUPRO", "fit s", "images/s", "peak MB")
    widths = (12, 8, 13, 8, 8, 10, 9)
    lines = [f"{'set':<20}" + "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))]
    for name, row in results.items():
        shown = ["-" if row[c] is None else f"{100 * row[c]:.1f}" for c in COLUMNS]
        lines.append(
            f"{name:<20}{shown[0]:>12}{shown[1]:>8}{shown[2]:>13}{shown[3]:>8}"
            f"{row['fit_seconds']:>8.0f}{row['images_per_second']:>10.1f}{row['peak_rss_mb']:>9}"
        )
    return "\n".join(lines)
