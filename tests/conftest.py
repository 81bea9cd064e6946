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


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a saved detector with a threshold: the real thing, as small as it gets. Not to be changed."""
    import numpy as np

    from morphad.model.detector import Detector
    from morphad.settings import CalibrateSettings, train_settings

    settings = train_settings(
        {
            "device": "cpu",
            "image_size": (32, 32),
            "colour": "grey",
            "backbone": "small",
            "weights": "none",
            "cases": {"heights": (1, 3), "widths": (1, 3)},
            "optimiser": {"steps": 2, "batch_size": 4, "precision": "float32"},
            "score": {"layers": ("stage2",), "channels": 8},
        }
    )
    random = np.random.default_rng(0)
    good = random.normal(120, 10, (40, 32, 32)).clip(0, 255).astype(np.uint8)
    detector = Detector(settings, seed=0).fit(good[:20])
    detector.calibrate(good[20:], CalibrateSettings(false_reject_rate=0.2))
    folder = tmp_path_factory.mktemp("tiny") / "detector"
    detector.save(folder)
    return folder
