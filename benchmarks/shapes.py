"""What it is worth to keep the shape of pictures that are not square, and to see large ones in tiles, too.

    python -m benchmarks.shapes FOLDER [FOLDER ...] [--variants "own shape"] [--seeds 0] --out FILE.json

A folder is a set in MVTec AD layout. A run that is in FILE.json already is not repeated. The peers need `pip install -r
benchmarks/peers.txt`. In their own shape they see what morphad sees; in tiles, of KolektorSDD, about its full size.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import SQUARE, Row, measure_morphad, measure_sets
from benchmarks.peers import Scorer, measure_peer, padim, patchcore

VARIANTS: dict[str, Mapping[str, Any]] = {
    "own shape": {"image_size": None},
    "squeezed to a square": {"image_size": SQUARE},
    "own shape and tiles": {"image_size": None, "resolution": {"smallest_defect": 3.0}},
}
OWN_SHAPE, FULL_SIZE, TILE = (576, 224), (1280, 512), 256  # px, of KolektorSDD
PEERS: dict[str, tuple[Callable[..., Scorer], Sequence[int]]] = {
    "padim squeezed": (padim, SQUARE),
    "patchcore squeezed": (patchcore, SQUARE),
    "padim own shape": (padim, OWN_SHAPE),
    "patchcore own shape": (patchcore, OWN_SHAPE),
    "padim tiles": (partial(padim, tile=TILE), FULL_SIZE),
    "patchcore tiles": (partial(patchcore, tile=TILE), FULL_SIZE),
}


def run(variant: str, folder: Path, seed: int) -> Row:
    """Measure one variant on one set."""
    if variant in PEERS:
        peer, size = PEERS[variant]
        return measure_peer(peer, folder, seed, size)
    return measure_morphad(folder, {"preset": "default", **VARIANTS[variant]}, seed)


def main() -> None:
    """Measure what FILE.json lacks, variant by variant."""
    measure_sets(__doc__, "variant", (*VARIANTS, *PEERS), run)


if __name__ == "__main__":
    main()
