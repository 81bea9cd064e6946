"""Step `validate`: the manifest against the data contract."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from morphad.base.errors import CheckFailedError
from morphad.base.files import write_json
from morphad.data.contract import check_manifest
from morphad.data.images import decode
from morphad.data.manifest import read_manifest
from morphad.decision.attainable import outlook
from morphad.report.contract_page import write_contract_page
from morphad.settings import LineSettings
from morphad.steps.common import Figures, label_counts
from morphad.steps.paths import LinePaths


def validate(settings: LineSettings, paths: LinePaths, seed: int = 0, *, data_docs: Path | None = None) -> Figures:
    """Hold the manifest against the data contract; write the findings and the page that shows them.

    Without a reference (no file, or one without rows: no champion yet) nothing is compared with a champion's data.

    Raises:
        CheckFailedError: A finding is an error; each is named. Findings and page are written all the same.
    """
    rows = read_manifest(paths.manifest)
    pictures = paths.pictures
    known = read_manifest(paths.reference) if paths.reference.exists() else None
    result = check_manifest(
        rows,
        settings.validate_,
        paths.line,
        reference=known,
        white_level=settings.ingest.white_level,
        data_docs=data_docs,
    )

    hashes = dict(zip(rows["path"], rows["sha256"], strict=True))

    def pixels(path: str) -> NDArray[np.uint8]:
        return decode(pictures.read_image(path, hashes[path]), settings.ingest.decoding, name=path).pixels

    write_json(paths.validation, result.to_json())
    write_contract_page(paths.contract_page, result, rows, known, pixels=pixels)
    if result.errors:
        listed = "\n".join(f"  {finding.name}: {finding.sentence}" for finding in result.errors)
        # A warning may say why: a white level that is not the camera's makes images all black.
        listed += "".join(f"\n  warning: {finding.name}: {finding.sentence}" for finding in result.warnings)
        raise CheckFailedError(f"{paths.line}: the data breaks its contract:\n{listed}\nsee {paths.contract_page}")
    ahead = outlook(label_counts(rows)["good"], settings.split.calibration, settings.calibrate.false_reject_rate)
    return {
        "warnings": [
            *(f"{finding.name}: {finding.sentence}" for finding in result.warnings),
            *([f"false_reject_rate: {ahead}"] if ahead else []),
        ]
    }
