"""One SQLite registry for all tests here (its tables take seconds to make); every test has a line of its own."""

import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from exhaustive import EXHAUSTIVE
from morphad.registry import DatasetFacts, Registration, Registry
from morphad.registry.local import LocalRegistry
from morphad.settings import RegisterSettings

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    LocalRegistry(folder / "mlflow.db").open(make=True)
    return folder


# What a server could do otherwise than a file: the order of calls, locks, accounts, what is kept.
_ALWAYS_ON_BOTH = {
    "test_promotion_moves_the_old_champion_to_previous",
    "test_four_eyes",
    "test_cut_off_anywhere_there_is_a_champion_and_the_next_command_completes",
    "test_two_who_adopt_at_once_make_one_record",
    "test_a_trail_that_was_changed_in_the_database_is_noticed",
    "test_mlflow_itself_refuses_a_second_entry_of_one_number",
    "test_pruning_is_on_record_and_what_was_decided_can_still_be_told",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is decided holds on both kinds of registry: a file, and a server on PostgreSQL with accounts.

    `make test` asks the server for a part of it, `make test-all` for all.
    """
    if metafunc.module.__name__ in {"test_decisions", "test_retention"} and "registry" in metafunc.fixturenames:
        both = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
        on_both = EXHAUSTIVE or metafunc.function.__name__ in _ALWAYS_ON_BOTH
        metafunc.parametrize("settings", both if on_both else both[:1], indirect=True)


@pytest.fixture
def settings(request: pytest.FixtureRequest, store: Path, monkeypatch: pytest.MonkeyPatch) -> RegisterSettings:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if getattr(request, "param", "sqlite") == "sqlite":
        return RegisterSettings(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    stack = request.getfixturevalue("stack")
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    return RegisterSettings(tracking_uri=stack.tracking.endpoint)


@pytest.fixture
def registry(settings: RegisterSettings) -> Registry:
    return Registry(settings)


@pytest.fixture
def line() -> str:
    return f"line-{next(_numbers)}"


@pytest.fixture
def client(settings: RegisterSettings, registry: Registry) -> MlflowClient:
    """MLflow without morphad between."""
    registry.history("nobody")  # makes the tables
    return MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)


@pytest.fixture
def sql(settings: RegisterSettings, store: Path, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Change MLflow's database behind its back."""

    def run(statement: str, *values: str) -> None:
        if settings.tracking_uri.startswith("sqlite"):
            with closing(sqlite3.connect(store / "mlflow.db")) as database, database:
                database.execute(statement, values)
            return
        with closing(psycopg2.connect(_address(request))) as database, database, database.cursor() as cursor:
            cursor.execute(statement.replace("%", "%%").replace("?", "%s"), values)

    return run


def _address(request: pytest.FixtureRequest) -> str:
    """Of the stack's database, in the form of its own client."""
    return str(request.getfixturevalue("stack").database.uri).replace("+psycopg2", "")


@pytest.fixture
def add_versions(
    client: MlflowClient, registry: Registry, line: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Register versions without a model behind them; decisions look into it only before a rollback."""
    default = line
    monkeypatch.setattr(registry, "check", lambda version: None)

    def add(count: int, line: str = default, detector: str = "", by: str = "trainer") -> None:
        with registry._connection.session():
            experiment = registry._connection.experiment_id()
        with suppress(MlflowException):
            client.create_registered_model(f"morphad-{line}")
        for _ in range(count):
            run = client.create_run(experiment)
            tags = {"morphad.detector_hash": detector or run.info.run_id, "morphad.by": by}
            client.create_model_version(
                f"morphad-{line}", source=run.info.artifact_uri, run_id=run.info.run_id, tags=tags
            )

    return add


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
