"""One class is good, nine are not: ten runs on Fashion-MNIST or MNIST, morphad from scratch beside plain baselines.

    apt-get install dataset-fashion-mnist
    python -m benchmarks.one_class /usr/share/datasets/fashion-mnist [--models morphad,geometric] --out FILE.json

A folder holds the four IDX files as they are published, compressed or not. Each run learns on the good class's images
of the training files and scores all 10,000 test images. morphad's network, cases, margin, kernel-size loss and
training are those of the preset `paper` with the sizes of `SETTINGS`; nothing is chosen by a test label.
"""

import argparse
import gzip
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.measuring import Row, chosen, revision, run_missing
from benchmarks.paper import VARIANTS
from benchmarks.readings import read, spread
from benchmarks.self_supervised import BASELINES, Budget
from morphad.base.errors import BadInputError
from morphad.base.progress import Display
from morphad.decision.metrics import image_metrics
from morphad.model.morphology import case_table
from morphad.model.network import MorphologyNetwork
from morphad.model.training.fit import train_network
from morphad.settings import TrainSettings
from morphad.settings.presets import merge, train_settings

_SHARED = ("untrained", "softmax", "additive cosine", "multiplicative", "no kernel-size loss", "361 cases")
OURS: dict[str, Mapping[str, Any]] = {  # what differs in the settings
    "morphad": {},
    **{name: VARIANTS[name] for name in _SHARED},
    "square cases only": {"cases": {"square": True}},
}
MODELS = (*OURS, *BASELINES)
BORDER = 2  # px around the 28 x 28 of an image, black as its ground
# As long as ten runs on two cores allow; see docs/results/results.md on how score and sizes were chosen.
SETTINGS: dict[str, Any] = {
    "preset": "paper",
    "image_size": (32, 32),
    "backbone": "small",
    "cases": {"heights": tuple(range(1, 8)), "widths": tuple(range(1, 8))},
    "optimiser": {"steps": 400, "batch_size": 128, "learning_rate": 2e-3},
    "score": {"layers": ("stage2",)},
}
SCORED_CASES = 24
REFERENCES = 1500  # training images that a score is compared with
SCORE = "neighbours"
BUDGET = Budget(steps=400, batch_size=128, learning_rate=2e-3)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an IDX file of bytes, compressed with gzip or not.

    Raises:
        BadInputError: The file is missing, or is no whole IDX file of bytes.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise BadInputError(f"{path}: cannot be read ({error})") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise BadInputError(f"{path}: not an IDX file of bytes")
    shape = tuple(np.frombuffer(data, ">u4", data[3], 4).tolist()) if len(data) >= 4 + 4 * data[3] else ()
    body = data[4 + 4 * data[3] :]
    if len(body) != math.prod(shape) or not shape:
        raise BadInputError(f"{path}: holds {len(body)} bytes where its head says {shape}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def read_part(folder: Path, part: str) -> tuple[Tensor, NDArray[np.uint8]]:
    """Images [N, 1, 32, 32] uint8 and labels [N] of the part `train` or `t10k`."""
    found = {}
    for kind in ("images", "labels"):
        files = sorted(folder.glob(f"{part}-{kind}*"))
        if not files:
            raise BadInputError(
                f"{folder}: no file {part}-{kind}-idx*-ubyte.gz; expected the four files of (Fashion-)MNIST"
            )
        found[kind] = read_idx(files[0])
    images = torch.from_numpy(found["images"].copy())[:, None]
    return functional.pad(images, (BORDER,) * 4), found["labels"]


def run(folder: Path, good: int, name: str, seed: int) -> Row:
    """Learn one class and rank the test images."""
    images, labels = read_part(folder, "train")
    test, truth = read_part(folder, "t10k")
    training = images[torch.from_numpy(labels == good)]
    started = time.perf_counter()
    told: dict[str, Any] = {}
    if name in OURS:
        scores, told["case_accuracy"] = morphological_scores(training, test, seed, settings_of(name))
    else:
        with torch.random.fork_rng(devices=[]):
            scores = {name: BASELINES[name](training, BUDGET, seed)(test)}
    aurocs = {
        kind: image_metrics(truth != good, values.double().numpy())["image_auroc"] for kind, values in scores.items()
    }
    chosen = SCORE if name in OURS else name
    return {
        "image_auroc": aurocs[chosen],
        "scores": aurocs,
        **told,
        "seconds": round(time.perf_counter() - started, 1),
        "threads": torch.get_num_threads(),
        "revision": revision(),
    }


def settings_of(name: str) -> TrainSettings:
    """Of one of `OURS`."""
    return train_settings(merge(SETTINGS, OURS[name]))


def morphological_scores(
    training: Tensor, test: Tensor, seed: int, settings: TrainSettings
) -> tuple[dict[str, Tensor], float | None]:
    """Scores [N] of test images by several readings of one network, and its case accuracy."""
    table = case_table(settings.cases)
    network = MorphologyNetwork(settings, table, seed)
    trained = train_network(network, training, settings, table, seed, None, progress=Display("one class"))
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))
    cases = spread(SCORED_CASES, len(table))
    values = read(network, table, cases, training[order[:REFERENCES]], test)
    return {kind: rows.mean(0) for kind, rows in values.items()}, trained.case_accuracy


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what FILE.json lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default=",".join(MODELS), help="of " + ", ".join(MODELS))
    parser.add_argument("--classes", default="0,1,2,3,4,5,6,7,8,9")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args(arguments)
    models = chosen(parser, "model", options.models, MODELS)
    jobs = {
        f"{options.folder.name}/{good}/{name}/{seed}": (run, (options.folder, int(good), name, int(seed)))
        for seed in options.seeds.split(",")
        for good in options.classes.split(",")
        for name in models
    }
    run_missing(jobs, options.out)


if __name__ == "__main__":
    main()
