"""What every model is measured by: the same images, the same figures, and where they were measured."""

import argparse
import multiprocessing
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from morphad.benchmark import COLUMNS
from morphad.data.images import decode
from morphad.data.loading import in_order, read_mask
from morphad.data.sources import SourceImage, find_images
from morphad.decision.metrics import evaluate
from morphad.files import read_json, write_json
from morphad.model.detector import Detector
from morphad.settings import EvaluateSettings, IngestSettings, train_settings
from morphad.spool import MapSpool

Row = dict[str, Any]


def chosen(parser: argparse.ArgumentParser, what: str, given: str, known: Collection[str]) -> list[str]:
    """The names in `given`, which commas part; one that is not known ends the program with a word on it."""
    names = given.split(",")
    if unknown := set(names) - set(known):
        parser.error(f"no {what} {min(unknown)!r}; there are {', '.join(known)}")
    return names


def run_missing(jobs: Mapping[str, tuple[Callable[..., Row], tuple[Any, ...]]], out: Path) -> dict[str, Row]:
    """Run what `out` does not hold yet, each in a process of its own, and write after each; give all that it holds.

    Args:
        jobs: By the key of the run, a function of a module and its arguments.
        out: JSON, rows by their keys; those that are not among the jobs stay.
    """
    runs: dict[str, Row] = read_json(out) if out.exists() else {}
    for key, (function, arguments) in jobs.items():
        if key in runs:
            continue
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            row = pool.submit(function, *arguments).result()
        runs = {**(read_json(out) if out.exists() else {}), key: row}  # another program may have written meanwhile
        write_json(out, runs)
        print(f"{key}: AUROC {100 * row['image_auroc']:.1f}", flush=True)
    return runs


def read_set(folder: Path) -> tuple[list[SourceImage], list[SourceImage]]:
    """Images of train/good, and of test/, of a set in MVTec AD layout."""
    images = find_images(IngestSettings(source="folder", path=str(folder)))
    training = [image for image in images if image.origin.startswith("train/") and image.label == "good"]
    return training, [image for image in images if image.origin.startswith("test/")]


def figures(
    test: Sequence[SourceImage], scores: ArrayLike, maps: Iterable[NDArray[np.float32]] | None, seed: int
) -> dict[str, Any]:
    """Image and pixel figures, the bootstrap interval (95 %) of the image AUROC, and the image AUROC of each kind."""
    found = evaluate(
        [image.label for image in test],
        scores,
        settings=EvaluateSettings(bootstrap=1000),
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


def measure_morphad(folder: Path, settings: Mapping[str, Any], seed: int) -> Row:
    """Fit a detector with these training settings (a preset and what differs from it) and score the test images."""
    training, test = read_set(folder)
    detector = Detector(train_settings(dict(settings)), seed)
    started = time.perf_counter()
    detector.fit(in_order(_pixels, training), what=folder.name)
    fitted = time.perf_counter()
    scores: list[float] = []
    with MapSpool() as maps:
        for prediction in detector.predict(in_order(_pixels, test)):
            scores.append(prediction.score)
            maps.append(prediction.heatmap)
        scored = time.perf_counter()
        found = figures(test, scores, maps, seed)
    accuracy = detector.training_.case_accuracy if detector.training_ else None
    return {**found, "case_accuracy": accuracy, **how(started, fitted, scored, len(test))}


def how(started: float, fitted: float, scored: float, count: int) -> dict[str, Any]:
    """Times of a run, and with which revision and how many threads it was made."""
    return {
        "fit_seconds": round(fitted - started, 2),
        "images_per_second": round(count / (scored - fitted), 2),
        "threads": torch.get_num_threads(),
        "revision": revision(),
    }


def revision() -> str:
    """Of the code that runs, short, with a plus where files differ from it; "" outside of a git repository."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/src", ":/benchmarks/*.py")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def _pixels(image: SourceImage) -> NDArray[np.uint8]:
    return decode(image.file).pixels
