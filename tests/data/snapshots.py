"""Snapshots for tests: a few small files and a true manifest, without decoding."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from morphad.data.manifest import SCHEMA, read_manifest, write_manifest
from morphad.steps.paths import LinePaths


def write_snapshot(place: LinePaths, images: Mapping[str, bytes], masks: Mapping[str, bytes] | None = None) -> None:
    """Make a line's snapshot hold these images; those in a folder `crack` are defects, masks go by the image's path."""
    shutil.rmtree(place.snapshot, ignore_errors=True)
    rows = []
    for path, content in sorted(images.items()):
        mask = (masks or {}).get(path)
        _put(place.snapshot / path, content)
        if mask is not None:
            _put(place.snapshot / "masks" / f"{path}.png", mask)
        defect = "crack" if "crack/" in path else ""
        rows.append({
            "path": path, "sha256": _hash(content), "line": place.line, "label": "defect" if defect else "good",
            "defect": defect, "mask": "" if mask is None else f"masks/{path}.png",
            "mask_sha256": "" if mask is None else _hash(mask), "bytes": len(content),
            "perceptual_hash": _hash(content),
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    for field in SCHEMA:
        if field.name not in frame:
            frame[field.name] = "" if str(field.type) == "string" else 8 if str(field.type) == "int64" else 0.5
    write_manifest(frame[SCHEMA.names], place.manifest)


def relabel(place: LinePaths, path: str, **values: str) -> None:
    """Say something else of one image."""
    rows = read_manifest(place.manifest)
    rows.loc[rows["path"] == path, list(values)] = list(values.values())
    write_manifest(rows, place.manifest)


def noise(count: int, seed: int = 0, folder: str = "train/good", size: int = 900) -> dict[str, bytes]:
    """Images by path: what they show is of no interest."""
    rng = np.random.default_rng(seed)
    return {f"{folder}/{seed}-{number:03}.png": rng.bytes(size) for number in range(count)}


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
