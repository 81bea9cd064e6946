"""What it is worth to keep the shape of pictures that are not square, and to see large ones in tiles, too.

    python -m benchmarks.shapes FOLDER [FOLDER ...] [--variants "own shape"] [--seeds 0] --out FILE.json

A folder is a set in MVTec AD layout. A run that is in FILE.json already is not repeated.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import SQUARE, Row, measure_morphad, measure_sets

VARIANTS: dict[str, Mapping[str, Any]] = {
    "own shape": {"image_size": None},
    "squeezed to a square": {"image_size": SQUARE},
    "own shape and tiles": {"image_size": None, "resolution": {"smallest_defect": 3.0}},
}


def run(variant: str, folder: Path, seed: int) -> Row:
    """Measure one variant on one set."""
    return measure_morphad(folder, {"preset": "default", **VARIANTS[variant]}, seed)


def main() -> None:
    """Measure what FILE.json lacks, variant by variant."""
    measure_sets(__doc__, "variant", VARIANTS, run)


if __name__ == "__main__":
    main()
