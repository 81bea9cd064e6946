"""What each ingredient of the preset `default` is worth: one at a time removed or changed.

    python -m benchmarks.ablations FOLDER [FOLDER ...] [--variants no training,one look] [--seeds 0] --out FILE.json

A folder is a set in MVTec AD layout. A run that is in FILE.json already is not repeated. The preset itself is measured
by `benchmarks.peers`. Variants that differ in the score alone share a trained network, so `fit_seconds` says nothing
here.
"""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import SQUARE, Row, measure_morphad, measure_sets
from morphad.base.files import sha256_json
from morphad.model.scoring import fusion
from morphad.model.scoring.patches import DensityScorer

EQUAL_WEIGHTS, MAXIMUM = "equal weights", "maximum of the map"
EDGE, RELIEF = "the edge as it is", "no relief"
# What differs from the preset; what of the score has no setting is changed in `run`.
VARIANTS: dict[str, Mapping[str, Any]] = {
    "no training": {"optimiser": {"steps": 0}},
    "three times the training": {"optimiser": {"steps": 300, "learning_rate": 3e-3}},
    "softmax for the margin": {"margin": {"kind": "softmax"}},
    "cosine margin": {"margin": {"kind": "additive_cosine", "margin": 0.2}},
    "no kernel-size loss": {"kernel_size_weight": 0.0},
    "square cases only": {"cases": {"square": True}},
    "one look": {"score": {"views": ("identity",)}},
    "Gaussian only": {"score": {"densities": ("gaussian",)}},
    "subspace only": {"score": {"densities": ("subspace",)}},
    "memory only": {"score": {"densities": ("memory",)}},
    "without Gaussian": {"score": {"densities": ("subspace", "memory")}},
    "without subspace": {"score": {"densities": ("gaussian", "memory")}},
    "without memory": {"score": {"densities": ("gaussian", "subspace")}},
    EQUAL_WEIGHTS: {},
    MAXIMUM: {},
    EDGE: {},
    RELIEF: {},
    "without stride 4": {"score": {"layers": ("blocks.2", "blocks.4")}},
    "without stride 16": {"score": {"layers": ("blocks.1", "blocks.2")}},
}


def run(variant: str, folder: Path, seed: int, networks: Path) -> Row:
    """Measure one variant on one set; `networks` is where the trained networks are."""
    if variant == EQUAL_WEIGHTS:
        fit = DensityScorer.fit

        def fit_and_forget(scorer: DensityScorer, *arguments: Any) -> DensityScorer:
            fit(scorer, *arguments)
            scorer._weights = torch.full_like(scorer._weights, 1 / scorer._weights.numel())
            return scorer

        DensityScorer.fit = fit_and_forget  # type: ignore[method-assign,assignment]
    if variant == MAXIMUM:
        DensityScorer.PEAK = 0.0
    if variant == EDGE:
        fusion.EDGE = 0
    if variant == RELIEF:
        fusion.contrast_with_surroundings = lambda maps, inside=None: torch.ones_like(maps)
    training = sha256_json({key: value for key, value in VARIANTS[variant].items() if key != "score"})
    network = networks / f"{folder.name}-{seed}-{training[:16]}.safetensors"
    return measure_morphad(folder, {"preset": "default", "image_size": SQUARE, **VARIANTS[variant]}, seed, network)


def main() -> None:
    """Measure what FILE.json lacks, variant by variant."""
    with tempfile.TemporaryDirectory() as networks:
        measure_sets(__doc__, "variant", VARIANTS, partial(run, networks=Path(networks)))


if __name__ == "__main__":
    main()
