"""One SQLite registry for all tests here (its tables take seconds to make); every test has a line of its own."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from morphad.registry import DatasetFacts, Registration, Registry
from morphad.registry.local import LocalRegistry
from morphad.settings import RegisterSettings

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    LocalRegistry(folder / "mlflow.db").open(make=True)
    return folder


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


class _Trap:
    """Its unpickling makes a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


@pytest.fixture
def pickled(tmp_path: Path) -> tuple[Path, Path]:
    """A model as MLflow pickles it, and the file that its unpickling makes."""
    import mlflow
    from mlflow.pyfunc.model import PythonModel

    class Pickled(PythonModel):
        def __init__(self, trap: _Trap) -> None:
            self.trap = trap

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return model_input

    mlflow.pyfunc.save_model(
        str(tmp_path / "pickled" / "model"), python_model=Pickled(_Trap(tmp_path / "ran")), pip_requirements=[]
    )
    return tmp_path / "pickled" / "model", tmp_path / "ran"
