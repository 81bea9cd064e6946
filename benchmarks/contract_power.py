"""How often the data contract sees a planted shift, and how often it sees one where there is none.

    python benchmarks/contract_power.py FOLDER ... mono poly [--seeds 40] [--out FILE.json]

Each set's good images are divided at random: one half is the reference, the other the new images, changed as the row
says. Every picture is cut out 12 px inside its edges, so that a shifted or turned one has true pixels at its edges. A
cell is the share of the seeds in which the contract spoke: any of the statistics / the camera.
"""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy import ndimage

from morphad.base.progress import track
from morphad.data.contract.drift import CAMERA, shifts
from morphad.data.contract.table import comparable
from morphad.data.images import Image, decode
from morphad.data.snapshot.statistics import statistics
from morphad.data.source.finding import find_images
from morphad.settings import IngestSettings, ValidateSettings

Grey = NDArray[np.uint8]

MARGIN = 12  # px


def _inside(grey: Grey, down: int = 0, right: int = 0) -> Grey:
    height, width = grey.shape
    return grey[MARGIN + down : height - MARGIN + down, MARGIN + right : width - MARGIN + right]


def _brighter(factor: float) -> Callable[[Grey], Grey]:
    return lambda grey: np.clip(_inside(grey) * factor + 0.5, 0, 255).astype(np.uint8)


def _blurred(sigma: float) -> Callable[[Grey], Grey]:
    return lambda grey: _inside(ndimage.gaussian_filter(grey.astype(np.float32), sigma).round().astype(np.uint8))


def _shifted(pixels: int) -> Callable[[Grey], Grey]:
    return lambda grey: _inside(grey, pixels, pixels)


def _turned(degrees: float) -> Callable[[Grey], Grey]:
    return lambda grey: _inside(ndimage.rotate(grey, degrees, reshape=False, order=1, mode="nearest"))


def _zoomed(grey: Grey) -> Grey:
    height, width = grey.shape
    larger = np.asarray(Pillow.fromarray(grey).resize((round(width * 1.05), round(height * 1.05))))
    top, left = (larger.shape[0] - height) // 2, (larger.shape[1] - width) // 2
    return _inside(larger[top : top + height, left : left + width])


CHANGES: dict[str, Callable[[Grey], Grey]] = {
    "none": _inside,
    "brightness +5 %": _brighter(1.05),
    "brightness +10 %": _brighter(1.1),
    "brightness +20 %": _brighter(1.2),
    "blur, sigma 0.5 px": _blurred(0.5),
    "blur, sigma 1 px": _blurred(1),
    "shift 1 px": _shifted(1),
    "shift 2 px": _shifted(2),
    "shift 5 px": _shifted(5),
    "shift 10 px": _shifted(10),
    "turn 1 degree": _turned(1),
    "turn 5 degrees": _turned(5),
    "turn 90 degrees": lambda grey: np.rot90(_inside(grey)),
    "zoom 5 %": _zoomed,
}


def describe(folder: str, most: int, changes: dict[str, Callable[[Grey], Grey]] = CHANGES) -> dict[str, pd.DataFrame]:
    """Rows of the good images of a set by change, as the contract compares them."""
    settings = IngestSettings(source="demo" if folder in {"mono", "poly"} else "folder", path=folder)
    good = [image for image in find_images(settings) if image.label == "good"]
    good = good[:: -(-len(good) // most)]

    def one(file: Path) -> dict[str, dict[str, Any]]:
        grey = decode(file).grey
        changed = {name: np.ascontiguousarray(change(grey)) for name, change in changes.items()}
        return {
            name: {"label": "good", "height": pixels.shape[0], "width": pixels.shape[1]}
            | {"lot": "", "shift": "", "group": "", "acquired": ""}
            | statistics(Image(pixels, "L", 8))
            for name, pixels in changed.items()
        }

    with ThreadPoolExecutor() as pool:
        rows = list(track(pool.map(one, [image.file for image in good]), f"drawing {folder}", total=len(good)))
    return {name: comparable(pd.DataFrame([row[name] for row in rows])) for name in changes}


def measure(rows: dict[str, pd.DataFrame], seeds: int) -> dict[str, dict[str, float]]:
    """For each change the share of the seeds in which any statistic, and in which the camera, was noticed."""
    settings = ValidateSettings()
    found: dict[str, dict[str, float]] = {}
    for name, changed in rows.items():
        noticed = {"statistics": 0, "camera": 0}
        count = seeds * 10 if name == "none" else seeds
        for seed in range(count):
            order = np.random.default_rng(seed).permutation(len(changed))
            half = len(order) // 2
            result = shifts(changed.iloc[order[half:]], rows["none"].iloc[order[:half]], settings)
            drifted = {key for key, shift in result.items() if shift.drifted}
            noticed["statistics"] += bool(drifted - {CAMERA})
            noticed["camera"] += CAMERA in drifted
        found[name] = {key: value / count for key, value in noticed.items()}
    return found


def main() -> None:
    """Print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="FOLDER", help="a set in MVTec AD layout, or mono, poly")
    parser.add_argument("--seeds", type=int, default=40, help="divisions a change; ten times as many without one")
    parser.add_argument("--most", type=int, default=600, help="images of a set at most")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for folder in options.sets:
        rows = describe(folder, options.most)
        name = Path(folder).name
        results[name] = {"images": len(rows["none"]), "noticed": measure(rows, options.seeds)}
    print("| change | " + " | ".join(f"{name} ({result['images']})" for name, result in results.items()) + " |")
    print("|---" * (len(results) + 1) + "|")
    for change in CHANGES:
        cells = [result["noticed"][change] for result in results.values()]
        print(f"| {change} | " + " | ".join(f"{c['statistics']:.1%} / {c['camera']:.1%}" for c in cells) + " |")
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
