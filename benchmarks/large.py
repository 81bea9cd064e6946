"""Pictures of 20 megapixels: time and memory of fit and score with tiles, and whether small specks are found.

    python -m benchmarks.large [--defect 12] [--good 12] --out benchmarks/results/large.json

Drawn pictures, 4,000 x 5,000 px: brushed metal with grain, uneven light and fine scratches along one direction, which
good parts have, too. A defect is a dark or bright speck of the stated side. What is measured is cost, and that nothing
is lost between tiles; how well real defects are told from good parts is for real sets. A process of its own, so that
its peak is its own.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import where
from morphad.base.files import write_json
from morphad.base.progress import Display
from morphad.data.loading import Repeatable
from morphad.jobs.benchmark import fresh_process
from morphad.model.detector import Detector
from morphad.settings import CalibrateSettings
from morphad.settings.presets import train_settings

HEIGHT, WIDTH = 4000, 5000
CALIBRATION, TEST = 10, 6


def draw(number: int, defect: int = 0) -> NDArray[np.uint8]:
    """A picture; with `defect` px of side, one speck."""
    rng = np.random.default_rng(number)
    rows = 130 + 12 * rng.standard_normal((HEIGHT, 1))  # brushed along the rows
    light = 15 * np.sin(np.linspace(0, 3, WIDTH) + rng.uniform(-0.2, 0.2))
    picture = rows + light + rng.normal(0, 6, (HEIGHT, WIDTH)).astype(np.float32)
    for _ in range(30):
        y, x, length = rng.integers(0, HEIGHT), rng.integers(0, WIDTH - 400), rng.integers(100, 400)
        picture[y : y + 2, x : x + length] += 25
    if defect:
        y, x = rng.integers(0, HEIGHT - defect), rng.integers(0, WIDTH - defect)
        picture[y : y + defect, x : x + defect] += rng.choice([-60, 60])
    return np.asarray(picture.clip(0, 255), np.uint8)


def run(defect: int, good: int, seed: int) -> dict[str, Any]:
    """Fit, calibrate and score."""
    began = time.perf_counter()
    settings = train_settings({"resolution": {"smallest_defect": float(defect)}})
    detector = Detector(settings, seed)
    with Display("large") as progress:
        detector.fit(Repeatable(lambda: _pictures(0, good)), progress=progress)
    fitted = time.perf_counter()
    detector.calibrate(_pictures(100, CALIBRATION), CalibrateSettings(false_reject_rate="attainable"))
    scores = detector.score_samples(_pictures(200, TEST))
    scored = time.perf_counter()
    found = list(detector.predict(_pictures(300, TEST, defect)))
    maps = time.perf_counter()
    threshold = detector.calibration_.threshold if detector.calibration_ else None
    return {
        "pixels": [HEIGHT, WIDTH],
        "defect_px": defect,
        "good": good,
        "image_size": detector.settings.image_size,
        "tiled_size": detector.settings.resolution.tiled_size,
        "fit_seconds": round(fitted - began, 1),
        "score_seconds_a_picture": round((scored - fitted) / (CALIBRATION + TEST), 2),
        "heatmap_seconds_a_picture": round((maps - scored) / TEST, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "threshold": threshold,
        "good_scores": [round(float(score), 2) for score in scores],
        "defect_scores": [round(prediction.score, 2) for prediction in found],
        **where(),
    }


def _pictures(first: int, count: int, defect: int = 0) -> Iterator[NDArray[np.uint8]]:
    for number in range(first, first + count):
        yield draw(number, defect)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--defect", type=int, default=12, help="side of a speck, px")
    parser.add_argument("--good", type=int, default=12, help="good pictures to learn from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    with fresh_process() as pool:
        row = pool.submit(run, options.defect, options.good, options.seed).result()
    write_json(options.out, row)
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
