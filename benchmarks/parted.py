"""A set in MVTec AD layout with its good images split anew, so that near copies do not part.

    python -m benchmarks.parted SET FOLDER

The good images of train/ and test/ are put together; those that correlate by more than 0.95 at 24 x 24 px, directly or
through others, make one group; whole groups go to test/good, in random order with a fixed seed, as long as they fit
into as many places as there were, and all others to train/good. Defects and masks stay as they are.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from morphad.base.errors import BadInputError
from morphad.data.images import decode
from morphad.data.source.image import SourceImage
from morphad.jobs.benchmark import read_set

SIDE = 24  # px
ALIKE = 0.95  # correlation
SEED = 0


def thumbnails(images: list[SourceImage]) -> NDArray[np.float32]:
    """Grey images [N, SIDE * SIDE] about their mean, of length 1: products are correlations."""
    rows = []
    for image in images:
        pixels = torch.from_numpy(decode(image.file).pixels.astype(np.float32))
        grey = pixels.mean(-1) if pixels.ndim == 3 else pixels
        rows.append(transforms.resize(grey[None], [SIDE, SIDE], antialias=True).flatten())
    stacked = torch.stack(rows)
    centred: NDArray[np.float32] = functional.normalize(stacked - stacked.mean(1, keepdim=True)).numpy()
    return centred


def choose(rows: NDArray[np.float32], places: int, seed: int) -> NDArray[np.bool_]:
    """Which of the thumbnails [N, D] go to the test, `places` at most; no near copies on both sides."""
    count, group = connected_components(rows @ rows.T > ALIKE, directed=False)
    chosen = np.zeros(len(rows), dtype=bool)
    for number in np.random.default_rng(seed).permutation(count):
        if chosen.sum() + (group == number).sum() <= places:
            chosen |= group == number
    return chosen


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.folder.exists():
        raise BadInputError(f"{options.folder}: is there already; remove it or give another folder")
    training, test = read_set(options.set)
    held = [image for image in test if image.label == "good"]
    good = [*training, *held]
    tested = choose(thumbnails(good), len(held), SEED)
    for image, to_test in zip(good, tested, strict=True):
        target = options.folder / ("test" if to_test else "train") / "good" / "_".join(Path(image.name).parts[-3:])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image.file, target)
    for image in test:
        if image.label == "defect":
            for file in (image.file, *([image.mask] if image.mask else [])):
                target = options.folder / file.relative_to(options.set)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    print(f"{options.folder}: train/good {int((~tested).sum())}, test/good {int(tested.sum())}")


if __name__ == "__main__":
    main()
