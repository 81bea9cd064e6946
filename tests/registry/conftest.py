"""One SQLite registry for all tests here (its tables take seconds to make); every test has a line of its own."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from morphad.registry import DatasetFacts, Registration, Registry
from morphad.settings import RegisterSettings

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def settings(store: Path, monkeypatch: pytest.MonkeyPatch) -> RegisterSettings:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return RegisterSettings(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")


@pytest.fixture
def registry(settings: RegisterSettings) -> Registry:
    return Registry(settings)


@pytest.fixture
def line() -> str:
    return f"line-{next(_numbers)}"


@pytest.fixture
def detector_folder(tiny_detector: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(tiny_detector, tmp_path / "models" / "detector"))


@pytest.fixture
def report_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "report"
    (folder / "pictures").mkdir(parents=True)
    (folder / "index.html").write_text("<h1>report</h1>")
    (folder / "pictures" / "worst.png").write_bytes(b"\x89PNG")
    (folder / "registration.json").write_text("{}")
    (folder / ".index.html.half").write_text("unfinished")
    return folder


@pytest.fixture
def publish(
    registry: Registry, line: str, detector_folder: Path, report_folder: Path
) -> Iterator[Callable[..., Registration]]:
    """Publish the detector of `line`; other data with `data="..."`."""

    def call(data: str = "a", **changed: Any) -> Registration:
        arguments: dict[str, Any] = {
            "params": {"train": {"backbone": "small", "cases": {"heights": [1, 3]}}, "seed": 0},
            "metrics": {"auroc": 0.91, "overkill": 0.05},
            "tags": {"image_digest": "sha256:0"},
            "dataset": DatasetFacts(Path("data/x/manifest.parquet"), data * 64, "f" * 64, {"train": 20, "holdout": 9}),
        }
        return registry.publish(line, detector_folder, report_folder, **{**arguments, **changed})

    yield call
