"""A set in MVTec AD layout with few of its good training images, as a new line has them.

    python -m benchmarks.few SET FOLDER [--images 10]

The images are drawn with a fixed seed; test images and masks stay as they are.
"""

import argparse
import random
import shutil
from pathlib import Path

from morphad.base.errors import BadInputError
from morphad.jobs.benchmark import read_set

SEED = 0


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=10)
    options = parser.parse_args()
    if options.folder.exists():
        raise BadInputError(f"{options.folder}: is there already; remove it or give another folder")
    good = sorted(image.file for image in read_set(options.set)[0])
    if len(good) < options.images:
        raise BadInputError(f"{options.set}: expected at least {options.images} images in train/good, got {len(good)}")
    for part in ("test", "ground_truth"):
        if (options.set / part).exists():
            shutil.copytree(options.set / part, options.folder / part)
    training = options.folder / "train" / "good"
    training.mkdir(parents=True)
    for file in random.Random(SEED).sample(good, options.images):  # noqa: S311 - nothing secret
        shutil.copyfile(file, training / file.name)
    print(f"{options.folder}: train/good {options.images} of {len(good)}")


if __name__ == "__main__":
    main()
