"""What it is worth to put parts in their place before all else (`train.align`), in minutes.

    python -m benchmarks.aligned FOLDER [FOLDER ...] [--variants "moved"] [--seeds 0] --out FILE.json

A folder is a set in MVTec AD layout. In variants that are "moved" each picture and its mask are shifted by up to 10 %
of their sides, the same in each run; the outermost pixels go on where nothing was. In "boxed" ones a region follows,
the rectangle around the part: where the mean of good training pictures in line stands out from its middle grey by a
quarter of what it does at most. Preset fast, untrained, with as many pixels as 128 x 128: what differs is where the
part lies. A run that is in FILE.json already is not repeated.
"""

import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.measuring import Row, measure_morphad, measure_sets
from morphad.data.source.layouts import files_below, is_image
from morphad.model.alignment.alignment import Alignment, most_alike
from morphad.model.alignment.registration import Kind
from morphad.model.alignment.warp import Warp, fetched
from morphad.model.resolution import whole_strides

SIDE = 128  # px of a square of as many pixels as the network sees
REACH = 0.1  # of a side
LEARNED = 60  # good pictures behind the mean of a box
VARIANTS: dict[str, Mapping[str, Any]] = {
    "as it is": {},
    "similarity": {"align": "similarity"},
    "similarity and boxed": {"align": "similarity"},
    "moved": {},
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


def boxed(folder: Path, kind: Kind) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Settings with the region around the part, and its anchor."""
    files = sorted((folder / "train" / "good").iterdir())
    pictures = [np.asarray(Image.open(file)) for file in files[:: -(-len(files) // LEARNED)]]
    anchor = pictures[most_alike(pictures, kind)]
    alignment = Alignment.learned(pictures, kind, anchor)
    found = [(image, alignment.find(image)) for image in pictures]
    seen = [fetched(image, warp) for image, warp in found if isinstance(warp, Warp)]
    mean = np.mean([np.asarray(Image.fromarray(image).convert("L"), np.float64) for image in seen], 0)
    contrast = np.abs(mean - np.median(mean))
    rows, columns = (np.flatnonzero((contrast > contrast.max() / 4).any(axis)) for axis in (1, 0))
    corners = [[int(columns[0]), int(rows[0])], [int(columns[-1]), int(rows[-1])]]
    shape = (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
    size = whole_strides(SIDE * shape**0.5), whole_strides(SIDE / shape**0.5)
    return {"region": {"size": mean.shape, "inspect": [corners]}, "image_size": size}, anchor


def run(variant: str, folder: Path, seed: int) -> Row:
    """Measure one variant on one set."""
    settings = {"preset": "fast", "image_size": (SIDE, SIDE), "optimiser": {"steps": 0}, **VARIANTS[variant]}
    anchor = None
    with tempfile.TemporaryDirectory() as scratch:
        if "moved" in variant:
            folder = moved(folder, Path(scratch))
        if "boxed" in variant:
            region, anchor = boxed(folder, settings["align"])
            settings |= region
        return measure_morphad(folder, settings, seed, anchor=anchor)


def main() -> None:
    """Measure what FILE.json lacks, variant by variant."""
    measure_sets(__doc__, "variant", VARIANTS, run)


if __name__ == "__main__":
    main()
