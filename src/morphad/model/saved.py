"""A saved detector as files, for those who do not load it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from morphad.base.errors import BadInputError
from morphad.base.files import read_json, sha256_file, sha256_json

if TYPE_CHECKING:
    from morphad.decision.calibration import Calibration

DESCRIPTION = "detector.json"  # all of a detector but its weights


@contextmanager
def whole_detector(fitted: Path, calibration: Path) -> Iterator[Path]:
    """Give a folder of the detector that a fitted one is with its calibration; nothing is copied.

    Args:
        fitted: Folder of the detector without a threshold.
        calibration: Folder of what `Detector.save` with its weights left out wrote.

    Raises:
        BadInputError: One of them is not there.
    """
    for folder in (fitted, calibration):
        if not (folder / DESCRIPTION).is_file():
            raise BadInputError(f"{folder}: not a saved detector (no {DESCRIPTION}); run the step that writes it again")
    with tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
        whole = Path(scratch) / "detector"
        whole.mkdir()
        for file in fitted.iterdir():
            own = calibration / file.name
            (whole / file.name).symlink_to((own if own.exists() else file).absolute())
        yield whole


def detector_hash(folder: Path) -> str:
    """Identity of a saved detector: SHA-256 over the names and contents of all files in its folder.

    Raises:
        BadInputError: The folder is missing or holds no detector.json.
    """
    if not (folder / DESCRIPTION).is_file():
        raise BadInputError(f"{folder}: not a saved detector (no {DESCRIPTION}); run the calibrate step first")
    return sha256_json(detector_files(folder))


def detector_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a saved detector by name, whose hash as JSON is the detector's."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def saved_calibration(detector: Path) -> "Calibration":
    """The calibration of a saved detector, without loading it."""
    from morphad.decision.calibration import Calibration  # noqa: PLC0415 -- SciPy, a second for who asks a registry

    description = detector / DESCRIPTION
    try:
        return Calibration.from_json(read_json(description)["calibration"])
    except (KeyError, TypeError) as error:
        raise BadInputError(f"{description}: has no calibration; run `morphad calibrate` again") from error
