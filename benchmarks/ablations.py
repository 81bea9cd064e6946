"""What each ingredient is worth: one at a time taken from the preset `default`, or changed in the preset `paper`.

    python -m benchmarks.ablations FOLDER [FOLDER ...] [--variants default,no training] [--seeds 0] --out FILE.json

A folder is a set in MVTec AD layout. A run that is in FILE.json already is not repeated.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import Row, chosen, measure_morphad, run_missing
from morphad.model.scoring import DensityScorer

EQUAL_WEIGHTS = "equal weights"
PRETRAINED = {"backbone": "efficientnet_lite0", "weights": "packaged", "score": {"layers": ("blocks.1", "blocks.2")}}
# What differs from the preset; a variant named as a preset is the preset itself.
FROM_DEFAULT: dict[str, Mapping[str, Any]] = {
    "default": {},
    "no training": {"optimiser": {"steps": 0}},
    "softmax for the margin": {"margin": {"kind": "softmax"}},
    "cosine margin": {"margin": {"kind": "additive_cosine", "margin": 0.2}},
    "no kernel-size loss": {"kernel_size_weight": 0.0},
    "one look": {"score": {"looks": ("identity",)}},
    "square cases only": {"cases": {"square": True}},
    "Gaussian only": {"score": {"densities": ("gaussian",)}},
    "subspace only": {"score": {"densities": ("subspace",)}},
    "memory only": {"score": {"densities": ("memory",)}},
    "without subspace": {"score": {"densities": ("gaussian", "memory")}},
    EQUAL_WEIGHTS: {},
    "without stride 4": {"score": {"layers": ("blocks.2", "blocks.4")}},
    "without stride 16": {"score": {"layers": ("blocks.1", "blocks.2")}},
}
TO_PAPER: dict[str, Mapping[str, Any]] = {
    "paper": {},
    "paper with softmax for the margin": {"margin": {"kind": "softmax"}},
    "paper without kernel-size loss": {"kernel_size_weight": 0.0},
    "paper scored by density": {"score": {"kind": "density"}},
    "paper untrained and scored by density": {"score": {"kind": "density"}, "optimiser": {"steps": 0}},
    "paper with packaged weights": PRETRAINED,
}
VARIANTS = {**FROM_DEFAULT, **TO_PAPER}


def settings_of(variant: str) -> dict[str, Any]:
    """Training settings of a variant, to lay over those of its preset."""
    return {"preset": "paper" if variant in TO_PAPER else "default", **VARIANTS[variant]}


def run(variant: str, folder: Path, seed: int) -> Row:
    """Measure one variant on one set."""
    if variant == EQUAL_WEIGHTS:
        fit = DensityScorer.fit

        def fit_and_forget(scorer: DensityScorer, *arguments: Any) -> DensityScorer:
            fit(scorer, *arguments)
            scorer._weights = torch.full_like(scorer._weights, 1 / scorer._weights.numel())
            return scorer

        DensityScorer.fit = fit_and_forget  # type: ignore[method-assign,assignment]
    return measure_morphad(folder, settings_of(variant), seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what FILE.json lacks, variant by variant, so that each is compared over as many sets as there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of " + ", ".join(VARIANTS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args(arguments)
    variants = chosen(parser, "variant", options.variants, VARIANTS)
    jobs = {
        f"{folder.name}/{variant}/{seed}": (run, (variant, folder, int(seed)))
        for variant in variants
        for seed in options.seeds.split(",")
        for folder in options.folders
    }
    run_missing(jobs, options.out)


if __name__ == "__main__":
    main()
