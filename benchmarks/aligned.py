"""What it is worth to put parts in their place before all else (`train.align`), in minutes.

    python -m benchmarks.aligned FOLDER [FOLDER ...] [--variants "moved"] [--seeds 0] --out FILE.json

A folder is a set in MVTec AD layout. In variants that are "moved" each picture and its mask are shifted by up to 10 %
of their sides, the same in each run; the outermost pixels go on where nothing was. Preset fast at 128 px, untrained:
what differs is where the part lies. A run that is in FILE.json already is not repeated.
"""

import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measuring import Row, measure_morphad, measure_sets
from morphad.data.source.layouts import files_below, is_image
from morphad.model.alignment.warp import Warp, fetched

REACH = 0.1  # of a side
VARIANTS: dict[str, Mapping[str, Any]] = {
    "as it is": {"align": "none"},
    "as it is and similarity": {"align": "similarity"},
    "moved": {"align": "none"},
    "moved and shift": {"align": "shift"},
}


def moved(folder: Path, target: Path) -> Path:
    """A copy of a set whose pictures are shifted, each by what follows from its name; a mask goes with its picture."""
    for name in filter(is_image, files_below(folder)):
        pixels = np.asarray(Image.open(folder / name))
        picture = name.replace("ground_truth", "test").replace("_mask", "")
        rng = np.random.default_rng(zlib.crc32(picture.encode()))
        down, across = (round(rng.uniform(-REACH, REACH) * side) for side in pixels.shape[:2])
        file = target / folder.name / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fetched(pixels, Warp(1, 0, across, down))).save(file)
    return target / folder.name


def run(variant: str, folder: Path, seed: int) -> Row:
    """Measure one variant on one set."""
    settings = {"preset": "fast", "image_size": (128, 128), "optimiser": {"steps": 0}, **VARIANTS[variant]}
    with tempfile.TemporaryDirectory() as scratch:
        return measure_morphad(moved(folder, Path(scratch)) if "moved" in variant else folder, settings, seed)


def main() -> None:
    """Measure what FILE.json lacks, variant by variant."""
    measure_sets(__doc__, "variant", VARIANTS, run)


if __name__ == "__main__":
    main()
