"""Manifests of made-up lines for tests of the data contract: as varied as real ones, without any fault."""

import hashlib

import numpy as np
import pandas as pd

from morphad.data.manifest import SCHEMA


def clean(good: int = 60, defects: int = 6, seed: int = 0, flips: float = 0.25) -> pd.DataFrame:
    """Rows of a line of aligned parts: hashes are one look with some of its bits flipped."""
    rng = np.random.default_rng(seed)
    count = good + defects
    look = np.random.default_rng(7).integers(0, 2, 256)
    hashes = np.packbits(look ^ (rng.random((count, 256)) < flips), axis=1)
    is_good = np.arange(count) < good
    rows = pd.DataFrame({
        "path": [f"{'train/good' if n < good else 'test/crack'}/{n:04}.png" for n in range(count)],
        "sha256": [hashlib.sha256(f"{seed}-{n}".encode()).hexdigest() for n in range(count)],
        "line": "caps",
        "label": np.where(is_good, "good", "defect"),
        "defect": np.where(is_good, "", "crack"),
        "mask": [f"masks/{n:04}.png" if n >= good else "" for n in range(count)],
        "mask_sha256": [hashlib.sha256(f"mask-{seed}-{n}".encode()).hexdigest() * (n >= good) for n in range(count)],
        "group": "", "lot": "", "shift": "", "camera": "", "origin": "", "acquired": "",
        "bytes": 1000, "height": 200, "width": 300, "mode": "RGB", "bit_depth": 8,
        "brightness": rng.normal(120, 6, count),
        "contrast": rng.normal(30, 2, count),
        "sharpness": 80 * np.exp(rng.normal(0, 0.15, count)),
        "entropy": rng.normal(6.5, 0.1, count),
        "peak": 250, "dark": 0.0,
        "saturated": rng.random(count) * 0.01,
        "masked": np.where(is_good, 0.0, 0.1),
        "perceptual_hash": [row.tobytes().hex() for row in hashes],
    })  # fmt: skip
    return rows[SCHEMA.names].astype({"path": "str", "label": "str", "defect": "str"})
