"""A saved detector as files, for those who do not load it."""

from pathlib import Path

from morphad.base.errors import BadInputError
from morphad.base.files import read_json, sha256_file, sha256_json
from morphad.decision.calibration import Calibration


def detector_hash(folder: Path) -> str:
    """Identity of a saved detector: SHA-256 over the names and contents of all files in its folder.

    Raises:
        BadInputError: The folder is missing or holds no detector.json.
    """
    if not (folder / "detector.json").is_file():
        raise BadInputError(f"{folder}: not a saved detector (no detector.json); run the calibrate step first")
    return sha256_json(detector_files(folder))


def detector_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a saved detector by name, whose hash as JSON is the detector's."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def saved_calibration(detector: Path) -> Calibration:
    """The calibration of a saved detector, without loading it."""
    description = detector / "detector.json"
    try:
        return Calibration.from_json(read_json(description)["calibration"])
    except (KeyError, TypeError) as error:
        raise BadInputError(f"{description}: has no calibration; run `morphad calibrate` again") from error
