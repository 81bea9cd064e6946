"""The demonstration's lines as sets in MVTec AD layout, for benchmarks: `pip install "morphad[demo]"` first.

    python -m benchmarks.elpv FOLDER

writes FOLDER/pv-mono and FOLDER/pv-poly, each split as `make demo` splits it (seed 0): test/ is the frozen holdout,
train/good are the images of the roles train and calibration, because a benchmark sets no threshold. Cells of the middle
probabilities are left out by the source, near copies of held-out images by the split.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import pandas as pd

from morphad.base.errors import BadInputError
from morphad.data.manifest import read_manifest
from morphad.data.source.finding import find_images
from morphad.data.split.roles import split_manifest
from morphad.settings import IngestSettings, LineSettings, SplitSettings
from morphad.steps.ingest import ingest
from morphad.steps.paths import LinePaths

LINES = {"pv-mono": "mono", "pv-poly": "poly"}
SEED = 0


def places(manifest: pd.DataFrame) -> dict[str, str]:
    """Where each image of a split manifest belongs in MVTec AD layout, by its path; the excluded belong nowhere."""
    found: dict[str, str] = {}
    for path, role, label, defect in zip(
        manifest["path"], manifest["role"], manifest["label"], manifest["defect"], strict=True
    ):
        if role in {"train", "calibration"}:
            found[path] = "train/good"
        elif role == "holdout":
            found[path] = "test/good" if label == "good" else f"test/{defect}"
    return found


def export(line: str, folder: Path) -> dict[str, int]:
    """Write one line's set and say how many images each of its folders holds.

    Raises:
        BadInputError: The folder is there already.
    """
    if folder.exists():
        raise BadInputError(f"{folder}: is there already; remove it or give another folder")
    source = IngestSettings(source="demo", path=LINES[line])
    files = {image.name: image.file for image in find_images(source)}
    with tempfile.TemporaryDirectory() as temporary:
        paths = LinePaths.checkout(Path(temporary), line)
        ingest(LineSettings(ingest=source), paths)
        manifest, _ = split_manifest(read_manifest(paths.manifest), SplitSettings(), SEED, None)
    counts: dict[str, int] = {}
    for path, place in places(manifest).items():
        target = folder / place / Path(path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[path], target)
        counts[place] = counts.get(place, 0) + 1
    return counts


def main() -> None:
    """Write both lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for line in LINES:
        counts = export(line, folder / line)
        print(f"{folder / line}: " + ", ".join(f"{place} {count}" for place, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
