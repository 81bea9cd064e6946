"""`morphad benchmark`: fit and score every set in MVTec AD layout; no label is used for any choice."""

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from morphad.errors import BadInputError
from morphad.files import check_writable, write_json

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
        # A fresh process, so that the peak of its memory is this set's own.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                results[folder.name] = pool.submit(measure, folder, preset, seed).result()
            except BrokenProcessPool as error:
                raise BadInputError(f"{folder}: its process was killed, most likely for want of memory") from error
        write_json(out, results)
    return _table(results) + f"\nwritten to {out}"


def measure(folder: Path, preset: str, seed: int) -> dict[str, Any]:
    """Fit on train/good of one set and score its test images.

    Returns:
        image_auroc, image_ap, pixel_auroc, aupro, per_defect {kind: image AUROC}, fit_seconds, images_per_second
        (decoding, score and heatmap), peak_rss_mb, n_train, n_test.
    """
    from morphad.data.images import decode
    from morphad.data.loading import in_order, read_mask
    from morphad.data.sources import find_images
    from morphad.decision.metrics import evaluate
    from morphad.model.detector import Detector
    from morphad.progress import track
    from morphad.settings import EvaluateSettings, IngestSettings, train_settings
    from morphad.spool import MapSpool

    images = find_images(IngestSettings(source="folder", path=str(folder)))
    training = [image for image in images if image.origin.startswith("train/") and image.label == "good"]
    test = [image for image in images if image.origin.startswith("test/")]
    if not training or not test:
        raise BadInputError(
            f"{folder}: expected images in train/good and in test/; got {len(training)} and {len(test)}"
        )

    def pixels(of: list[Any], what: str) -> Any:
        return track(in_order(lambda image: decode(image.file).pixels, of), f"{what} {folder.name}", total=len(of))

    started = time.perf_counter()
    detector = Detector(train_settings({"preset": preset}), seed)
    detector.fit(pixels(training, "reading"), what=folder.name)
    fitted = time.perf_counter()
    scores: list[float] = []
    with MapSpool() as maps:
        for prediction in detector.predict(pixels(test, "scoring")):
            scores.append(prediction.score)
            maps.append(prediction.heatmap)
        scored = time.perf_counter()
        figures = evaluate(
            [image.label for image in test],
            scores,
            settings=EvaluateSettings(bootstrap=100),
            kinds=[image.defect for image in test],
            masks=(read_mask(image.mask) if image.mask else None for image in test),
            maps=maps,
            seed=seed,
        )
    return {
        **{name: figures[name] for name in COLUMNS},
        "per_defect": {kind: row["auroc"] for kind, row in figures["per_defect"].items()},
        "fit_seconds": round(fitted - started, 2),
        "images_per_second": round(len(test) / (scored - fitted), 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "n_train": len(training),
        "n_test": len(test),
    }


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
