"""Fixtures that more than one test module needs."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_sets() -> Path:
    """Folder of real image sets in MVTec AD layout, for tests and benchmarks only."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MORPHAD_REAL_SETS", default))
    if not (folder / "mvtec" / "bottle").is_dir():
        pytest.skip(f"no real image sets at {folder}; set MORPHAD_REAL_SETS to a folder that holds mvtec/bottle")
    return folder
