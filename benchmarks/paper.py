"""The preset `paper`, from scratch: what its parts are worth, how its score can be read, and plain baselines.

    python -m benchmarks.paper FOLDER [FOLDER ...] [--models paper,rotations] [--seeds 0] --out FILE.json

A folder is a set in MVTec AD layout. One network is trained for each variant of the preset; all readings of
`benchmarks/readings.py` and the score of the patch densities are of that network. The preset gets all of its steps,
other variants and the baselines, which have morphad's small network, those of `a third of the training`. A run that is
in FILE.json already is not repeated.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import RESAMPLES, Row, measure_sets, revision
from benchmarks.readings import OWN, READINGS, choose, fuse, read, spread, tells
from benchmarks.self_supervised import BASELINES, Budget
from morphad.base.progress import Display
from morphad.data.images import decode
from morphad.data.loading import in_order
from morphad.data.source.image import SourceImage
from morphad.jobs.benchmark import figures, read_set
from morphad.model.device import autocast_dtype
from morphad.model.morphology import case_table
from morphad.model.network import MorphologyNetwork
from morphad.model.prepare import prepare
from morphad.model.scorers import make_scorer
from morphad.model.scoring.base import BATCH
from morphad.model.scoring.synthetic import with_anomalies
from morphad.model.training.fit import train_network
from morphad.settings import TrainSettings
from morphad.settings.presets import merge, train_settings

WHOLE, SHORT = "paper", "a third of the training"
VARIANTS: dict[str, Mapping[str, Any]] = {
    WHOLE: {},
    SHORT: {"optimiser": {"steps": 1500}},  # what all others are laid over
    "softmax": {"margin": {"kind": "softmax"}},
    "additive cosine": {"margin": {"kind": "additive_cosine", "margin": 0.2}},
    "multiplicative": {"margin": {"kind": "multiplicative", "margin": 2.0}},
    "no kernel-size loss": {"kernel_size_weight": 0.0},
    "100 square cases": {"cases": {"square": True, "heights": tuple(range(1, 35)), "widths": tuple(range(1, 35))}},
    "361 cases": {"cases": {"heights": tuple(range(1, 12)), "widths": tuple(range(1, 12))}},
    "in colour": {"colour": "rgb"},
    "128 px": {"image_size": (128, 128)},
    "untrained": {"optimiser": {"steps": 0}},
    "packaged weights": {
        "backbone": "efficientnet_lite0",
        "weights": "packaged",
        "score": {"layers": ("blocks.1", "blocks.2")},
    },
}
MODELS = (*VARIANTS, *BASELINES)
SCORED_CASES = 48
COUNTS = (1, 2, 4, 8, 16)  # of cases, chosen on synthetic anomalies
DENSITY = "patch densities"
ERODED, DEEPER = f"{DENSITY}, an erosion as a second look", f"{DENSITY}, stride 16 as well"
DTYPE = autocast_dtype("auto", torch.device("cpu"))
STRIDE_16 = {"resnet18": "layer3", "efficientnet_lite0": "blocks.4"}
FUSED = "best on self-made defects, with patch densities"


def run(name: str, folder: Path, seed: int) -> Row:
    """Learn train/good and rank the test images."""
    base = {} if name == WHOLE else VARIANTS[SHORT]
    settings = train_settings({"preset": "paper", **merge(base, VARIANTS.get(name, {}))})
    training, test = read_set(folder)
    good, given = _prepared(training, settings), _prepared(test, settings)
    started = time.perf_counter()
    told: dict[str, Any] = {}
    if name in BASELINES:
        budget = Budget(settings.optimiser.steps, settings.optimiser.batch_size)
        with torch.random.fork_rng(devices=[]):
            scores = {name: BASELINES[name](good, budget, seed)(given)}
        own = name
    else:
        scores, told = _morphological(good, given, settings, seed, folder.name)
        own = OWN
    found = {kind: figures(test, values.double().numpy(), None, seed, RESAMPLES) for kind, values in scores.items()}
    return {
        **{key: found[own][key] for key in ("image_auroc", "image_ap", "interval", "per_defect")},
        "scores": {kind: row["image_auroc"] for kind, row in found.items()},
        **told,
        "seconds": round(time.perf_counter() - started, 1),
        "threads": torch.get_num_threads(),
        "revision": revision(),
    }


def _morphological(
    good: Tensor, given: Tensor, settings: TrainSettings, seed: int, what: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Scores [N] of the given images by each reading of one network, and how well it names cases."""
    table = case_table(settings.cases)
    network = MorphologyNetwork(settings, table, seed)
    trained = train_network(network, good, settings, table, seed, None, progress=Display(what))
    held = torch.arange(len(good)) % 5 == 4
    seen = torch.cat([given, good[held], with_anomalies(good[held], seed)])
    values = read(network, table, spread(SCORED_CASES, len(table)), good[~held], seen)
    densities: dict[str, dict[str, Any]] = {
        DENSITY: {},
        ERODED: {"views": ("identity", "erosion_5x5")},
        DEEPER: {"layers": (*settings.score.layers, STRIDE_16[settings.backbone])},
    }
    for kind, changes in densities.items():
        scorer = make_scorer(settings.score.model_copy(update={"kind": "density", **changes}), table, seed, DTYPE)
        with torch.inference_mode():
            scorer.fit(network, good[~held], lambda _: None)
            values[kind] = torch.cat([scorer.score(network, part).scores for part in torch.split(seen, BATCH)])[None]
    parts = {
        kind: torch.split(rows, [len(given), int(held.sum()), int(held.sum())], 1) for kind, rows in values.items()
    }
    selfmade = {kind: tells(clean.mean(0), spoilt.mean(0)) for kind, (_, clean, spoilt) in parts.items()}
    best = max(READINGS, key=lambda kind: selfmade[kind])
    scores = {kind: of_given.mean(0) for kind, (of_given, _, _) in parts.items()}
    scores[FUSED] = fuse(*(torch.stack([parts[kind][of].mean(0) for kind in (best, DENSITY)]) for of in range(3)))
    for kind in (OWN, "neighbours"):
        of_given, clean, spoilt = parts[kind]
        order = choose(clean, spoilt, COUNTS[-1])
        scores |= {f"{kind}, best {count} cases": of_given[order[:count]].mean(0) for count in COUNTS}
    return scores, {"case_accuracy": trained.case_accuracy, "cases": len(table), "selfmade": selfmade, "best": best}


def _prepared(images: Sequence[SourceImage], settings: TrainSettings) -> Tensor:
    """[N, C, H, W] uint8 at the preset's size."""
    assert settings.image_size is not None  # noqa: S101 -- as the preset has it
    decoded = in_order(lambda image: decode(image.file).pixels, images)
    return torch.stack([prepare(pixels, settings, settings.image_size)[0] for pixels in decoded])


def main() -> None:
    """Measure what FILE.json lacks, variant by variant."""
    measure_sets(__doc__, "model", MODELS, run)


if __name__ == "__main__":
    main()
