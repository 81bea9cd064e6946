"""How far apart are the perceptual hashes of different images of a line, and those of an image and its copies?

    python benchmarks/near_duplicates.py FOLDER [FOLDER ...] [mono poly] [--json FILE]

A folder is in MVTec AD layout or flat; mono and poly are the demonstration lines. It prints two tables for the choice
of split.near_duplicate_bits, and the closest pairs of different images, to view.
"""

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.Image import Resampling

from morphad.base.files import write_json
from morphad.data.images import decode
from morphad.data.loading import in_order
from morphad.data.snapshot.statistics import perceptual_hash
from morphad.data.source.finding import find_images
from morphad.settings import IngestSettings

BITS = (2, 4, 6, 8, 10, 12)
COPIES = ("JPEG 95", "resized 90 %", "brightness +5", "shifted 1 px")


def main() -> None:
    """Measure every line given and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", help="folders, or mono, poly")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures = {Path(line).name: measure(line) for line in arguments.lines}
    print("| line | images | closest pair | closest 0.01 % | pairs within " + " / ".join(map(str, BITS)) + " bits |")
    print("|---|---|---|---|---|")
    for name, f in figures.items():
        within = " / ".join(map(str, f["within"]))
        print(f"| {name} | {f['images']} | {f['closest']} | {f['closest_0.01%']:g} | {within} |")
    print("\n| line | copy | median | 99 % | largest | share within " + " / ".join(map(str, BITS)) + " bits |")
    print("|---|---|---|---|---|---|")
    for name, f in figures.items():
        for kind, c in f["copies"].items():
            shares = " / ".join(f"{share:.0%}" for share in c["within"])
            print(f"| {name} | {kind} | {c['median']:g} | {c['99%']:g} | {c['largest']} | {shares} |")
    print("\nClosest pairs of different images, with distances in bits:")
    for name, f in figures.items():
        for distance, a, b in f["pairs"]:
            print(f"  {name}  {distance:3d}  {a}  {b}")
    if arguments.json:
        write_json(arguments.json, figures)


def measure(line: str) -> dict[str, Any]:
    """Distances of one line: between all its images, and between each and its copies."""
    demo = line in {"mono", "poly"}
    sources = find_images(IngestSettings(source="demo" if demo else "folder", path=line))
    hashes = list(in_order(lambda source: _hashes(decode(source.file).grey), sources))
    bits = np.array([[int(word, 16) for word in _words(own)] for own, _ in hashes], np.uint64)
    left, right = np.triu_indices(len(bits), 1)
    between = np.zeros(len(left), np.int64)
    for word in range(bits.shape[1]):
        between += np.bitwise_count(bits[left, word] ^ bits[right, word])
    nearest = np.argsort(between, kind="stable")[:8]
    copies = {}
    for kind in COPIES:
        distance = np.array([(int(own, 16) ^ int(copy[kind], 16)).bit_count() for own, copy in hashes])
        copies[kind] = {
            "median": float(np.median(distance)),
            "99%": float(np.quantile(distance, 0.99)),
            "largest": int(distance.max()),
            "within": [float((distance <= limit).mean()) for limit in BITS],
        }
    return {
        "images": len(bits),
        "closest": int(between.min()),
        "closest_0.01%": float(np.quantile(between, 1e-4)),
        "within": [int((between <= limit).sum()) for limit in BITS],
        "copies": copies,
        "pairs": [(int(between[n]), sources[left[n]].name, sources[right[n]].name) for n in nearest],
    }


def _hashes(grey: NDArray[np.uint8]) -> tuple[str, dict[str, str]]:
    picture = Pillow.fromarray(grey)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=95)
    height, width = grey.shape
    smaller = picture.resize((round(width * 0.9), round(height * 0.9)), Resampling.LANCZOS)
    variants = (
        decode(stream.getvalue()).grey,
        np.asarray(smaller),
        np.minimum(grey.astype(np.int16) + 5, 255).astype(np.uint8),
        np.roll(grey, 1, axis=1),
    )
    copies = {kind: perceptual_hash(Pillow.fromarray(v)) for kind, v in zip(COPIES, variants, strict=True)}
    return perceptual_hash(picture), copies


def _words(digits: str) -> list[str]:
    return [digits[start : start + 16] for start in range(0, len(digits), 16)]


if __name__ == "__main__":
    main()
