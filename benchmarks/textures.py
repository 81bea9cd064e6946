"""Three sets in MVTec AD layout of surfaces without a fixed place: crops of textures, some with planted defects.

    pip install -r benchmarks/peers.txt
    python -m benchmarks.textures FOLDER

Brick, grass and gravel of scikit-image (CC0, in its package). Good images of train/ are crops of the left part of a
texture, those of test/ of the rest, so that no place is in both. Crops differ in light and noise. A test image with a
defect has one of: a thin scratch, a soft spot, a place pulled out of shape, a place out of focus.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from morphad.base.errors import BadInputError

TEXTURES = ("brick", "grass", "gravel")
SIDE = 160  # px of a crop
LEFT = 0.625  # of a texture's columns are for train/
TRAIN, GOOD, DEFECTS = 200, 60, 20  # images; DEFECTS of each kind

Pixels = NDArray[np.float64]  # [SIDE, SIDE], grey levels
Mask = NDArray[np.bool_]  # [SIDE, SIDE]


def crop(texture: NDArray[np.uint8], rng: np.random.Generator) -> Pixels:
    """A square of a texture [H, W] at a random place, in a light of its own, with noise."""
    y, x = rng.integers(texture.shape[0] - SIDE + 1), rng.integers(texture.shape[1] - SIDE + 1)
    pixels = texture[y : y + SIDE, x : x + SIDE].astype(np.float64)
    lit = (pixels - 128) * rng.uniform(0.9, 1.1) + 128 + rng.uniform(-8, 8)
    return lit + rng.normal(0, 2, lit.shape)


def scratch(pixels: Pixels, rng: np.random.Generator) -> tuple[Pixels, Mask]:
    """A slightly bent line, 3 px thick, 25 to 70 px long, brighter or darker by 35 to 70 grey levels."""
    along = np.linspace(-0.5, 0.5, 2 * SIDE)
    length, angle = rng.uniform(25, 70), rng.uniform(0, np.pi)
    bend = 3 * np.sin(5 * along)
    centre = _centre(rng)
    rows = centre[0] + length * along * np.sin(angle) + bend * np.cos(angle)
    columns = centre[1] + length * along * np.cos(angle) - bend * np.sin(angle)
    mask = np.zeros(pixels.shape, bool)
    mask[np.clip(rows, 0, SIDE - 1).astype(int), np.clip(columns, 0, SIDE - 1).astype(int)] = True
    mask = ndimage.binary_dilation(mask)
    return pixels + mask * rng.choice([-1, 1]) * rng.uniform(35, 70), mask


def spot(pixels: Pixels, rng: np.random.Generator) -> tuple[Pixels, Mask]:
    """A Gaussian spot of 3 to 8 px standard deviation, brighter or darker by 40 to 80 grey levels."""
    bump = np.exp(-_squares(_centre(rng)) / (2 * rng.uniform(3, 8) ** 2))
    return pixels + rng.choice([-1, 1]) * rng.uniform(40, 80) * bump, bump > 0.4


def warp(pixels: Pixels, rng: np.random.Generator) -> tuple[Pixels, Mask]:
    """A place stretched along one side and pressed along the other."""
    centre = _centre(rng)
    pull = np.exp(-_squares(centre) / rng.uniform(10, 20) ** 2)
    amount = rng.choice([-1, 1]) * rng.uniform(0.3, 0.6)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    moved = [rows + (rows - centre[0]) * pull * amount, columns - (columns - centre[1]) * pull * amount]
    return ndimage.map_coordinates(pixels, moved, order=1, mode="reflect"), pull > 0.4


def blur(pixels: Pixels, rng: np.random.Generator) -> tuple[Pixels, Mask]:
    """A disc of 7 to 15 px radius out of focus."""
    mask = _squares(_centre(rng)) < rng.uniform(7, 15) ** 2
    return np.where(mask, ndimage.gaussian_filter(pixels, 2.0), pixels), mask


KINDS: dict[str, Callable[[Pixels, np.random.Generator], tuple[Pixels, Mask]]] = {
    "scratch": scratch,
    "spot": spot,
    "warp": warp,
    "blur": blur,
}


def write_set(texture: NDArray[np.uint8], folder: Path, seed: int) -> None:
    """Write one set from a grey texture [H, W]."""
    rng = np.random.default_rng(seed)
    border = round(LEFT * texture.shape[1])
    seen, unseen = texture[:, :border], texture[:, border:]
    for number in range(TRAIN):
        _save(crop(seen, rng), folder / f"train/good/{number:03}.png")
    for number in range(GOOD):
        _save(crop(unseen, rng), folder / f"test/good/{number:03}.png")
    for kind, spoil in KINDS.items():
        for number in range(DEFECTS):
            pixels, mask = spoil(crop(unseen, rng), rng)
            _save(pixels, folder / f"test/{kind}/{number:03}.png")
            _save(np.where(mask, 255.0, 0.0), folder / f"ground_truth/{kind}/{number:03}_mask.png")


def main() -> None:
    """Write the sets."""
    from skimage import data

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.folder.exists():
        raise BadInputError(f"{options.folder}: is there already; remove it or give another folder")
    for seed, name in enumerate(TEXTURES):
        write_set(getattr(data, name)(), options.folder / name, seed)
    print(f"written: {options.folder}")


def _centre(rng: np.random.Generator) -> NDArray[np.int64]:
    """Row and column of a defect, away from the border."""
    return rng.integers(SIDE // 6, SIDE - SIDE // 6, 2)


def _squares(centre: NDArray[np.int64]) -> Pixels:
    """Squared distance of each pixel from a centre."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    squares: Pixels = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2).astype(np.float64)
    return squares


def _save(pixels: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)).save(path)


if __name__ == "__main__":
    main()
