"""The file of a local registry: made at once by many, killed, in strange folders, moved, copied, old, broken."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphad.base.errors import BadInputError
from morphad.jobs import batch
from morphad.registry import DatasetFacts, Registration, Registry
from morphad.registry.local import LocalRegistry
from morphad.settings import RegisterSettings
from morphad.settings.reading import resolve

STRANGE = "jürgen's #1 %41 50%?a=b&c;d:e+f@[g]"


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def publish_in(
    detector_folder: Path, report_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], Registration]:
    """Publish a detector of line `a` in the local registry of a project folder, and make it champion."""

    def call(folder: Path, data: str = "a") -> Registration:
        registry = registry_of(folder, monkeypatch)
        facts = DatasetFacts(Path("manifest.parquet"), data * 64, "f" * 64)
        published = registry.publish("a", detector_folder, report_folder, params={}, metrics={}, tags={}, dataset=facts)
        registry.promote("a", published.version, {"reasons": ["good"]}, "anna")
        return published

    return call


def registry_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """As a command in that folder opens it; the current folder is another one afterwards."""
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        return Registry(RegisterSettings())


def download(registry: Registry, folder: Path) -> bytes:
    champion = registry.champion("a")
    assert champion is not None
    return (registry.download(champion, folder) / "detector.json").read_bytes()


def in_children(count: int, work: Callable[[], None]) -> list[int]:
    """Run something in forked processes at once; their process ids."""
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    return children


def is_whole(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT name FROM experiments").fetchall() == [("Default",)]


def test_all_who_meet_a_registry_that_is_not_there_share_one(tmp_path: Path) -> None:
    LocalRegistry(tmp_path / "first.db").open(make=True)  # from here on the tables are at hand: the race is close
    for attempt in range(8):
        path = tmp_path / f"{attempt}.db"
        start = time.monotonic() + 0.05

        def meet(path: Path = path, start: float = start) -> None:
            time.sleep(max(0.0, start - time.monotonic()))
            LocalRegistry(path).open(make=True)
            with closing(sqlite3.connect(path)) as database:  # what is written is in the file that stays
                database.execute("INSERT INTO registered_models (name) VALUES (?)", (str(os.getpid()),))
                database.commit()

        children = in_children(4, meet)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
        with closing(sqlite3.connect(path)) as database:
            names = {name for (name,) in database.execute("SELECT name FROM registered_models")}
        assert names == {str(child) for child in children}


def test_a_kill_at_any_moment_leaves_a_whole_registry_or_none(tmp_path: Path) -> None:
    LocalRegistry(tmp_path / "first.db").open(make=True)

    def made(name: str) -> int:
        return in_children(1, lambda: LocalRegistry(tmp_path / name).open(make=True))[0]

    start = time.monotonic()
    os.waitpid(made("second.db"), 0)
    whole = time.monotonic() - start
    for attempt in range(30):
        path = tmp_path / f"{attempt}.db"
        child = made(path.name)
        time.sleep(attempt / 30 * whole)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert not path.exists() or is_whole(path)
        LocalRegistry(path).open(make=True)
        assert is_whole(path)


def test_who_reads_makes_no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of(tmp_path, monkeypatch)
    for read in (
        lambda: registry.champion("a"),
        lambda: registry.history("a"),
        lambda: registry.version("a", 1),
        lambda: registry.rollback("a", "bad", "anna"),
    ):
        with pytest.raises(BadInputError, match=r"there is no registry at sqlite:///.*mlflow\.db: run `dvc repro`"):
            read()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="file"):
        LocalRegistry(tmp_path / "file" / "mlflow.db").open(make=True)


def test_any_folder_will_do_and_nothing_is_made_outside_it(
    tmp_path: Path, publish_in: Callable[[Path], Registration], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / STRANGE
    project.mkdir()
    before = sorted(tmp_path.iterdir())
    publish_in(project)
    registry = registry_of(project, monkeypatch)
    assert registry.uri == f"sqlite:///{project}/mlflow.db"
    assert b"calibration" in download(registry, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before
    assert sorted(path.name for path in project.iterdir()) == ["mlartifacts", "mlflow.db"]


def test_the_champion_scores_in_any_folder(
    tmp_path: Path, publish_in: Callable[[Path], Registration], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / STRANGE
    (project / "pictures").mkdir(parents=True)
    Image.fromarray(np.full((32, 32), 120, np.uint8)).save(project / "pictures" / "1.png")
    publish_in(project)
    monkeypatch.chdir(project)
    line = resolve({"lines": {"a": {"ingest": {"path": "x"}}}}).line("a")
    figures = batch.predict("a", line, "pictures", out=Path("out.csv"))
    assert (figures["images"], figures["unreadable"]) == (1, 0)
    assert sorted(path.name for path in project.iterdir()) == ["mlartifacts", "mlflow.db", "out.csv", "pictures"]


@pytest.mark.parametrize("experiment", ["../../outside", "..", "a/b", "Linie #1 %2e"])
def test_files_of_any_experiment_are_beside_the_registry(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morphad.registry.connection import Connection

    monkeypatch.chdir(tmp_path)
    connection = Connection(RegisterSettings(experiment=experiment))
    with connection.session(make=True) as client:
        run = client.create_run(connection.experiment_id())
        client.log_text(run.info.run_id, "x", "x.txt")
    (folder,) = (tmp_path / "mlartifacts").iterdir()
    assert (folder / run.info.run_id / "artifacts" / "x.txt").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlartifacts", "mlflow.db"]


class TestMoved:
    def test_a_project_that_got_another_name_keeps_its_champion(
        self, tmp_path: Path, publish_in: Callable[..., Registration], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "before").mkdir()
        publish_in(tmp_path / "before")
        (tmp_path / "before").rename(tmp_path / STRANGE)
        registry = registry_of(tmp_path / STRANGE, monkeypatch)
        assert b"calibration" in download(registry, tmp_path / "out")
        assert publish_in(tmp_path / STRANGE, data="b").version == 2
        assert not (tmp_path / "before").exists()
        champion = registry.champion("a")
        assert champion is not None
        assert [entry.version for entry in registry.trail("a").entries] == [1, 2]

    def test_a_copy_and_its_original_go_on_apart(
        self, tmp_path: Path, publish_in: Callable[..., Registration], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, copy = tmp_path / "original", tmp_path / "copy"
        original.mkdir()
        publish_in(original)
        shutil.copytree(original, copy)
        before = contents(original)
        assert publish_in(copy, data="b").version == 2
        assert contents(original) == before
        shutil.rmtree(copy)
        assert b"calibration" in download(registry_of(original, monkeypatch), tmp_path / "a")
        other = Path(shutil.copytree(original, tmp_path / "other"))
        shutil.rmtree(original)
        assert b"calibration" in download(registry_of(other, monkeypatch), tmp_path / "b")

    def test_a_copy_of_the_file_alone_puts_nothing_among_the_files_of_the_original(
        self, tmp_path: Path, publish_in: Callable[..., Registration], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, copy = tmp_path / "original", tmp_path / "copy"
        original.mkdir()
        copy.mkdir()
        publish_in(original)
        shutil.copy(original / "mlflow.db", copy)
        before = contents(original)
        assert b"calibration" in download(registry_of(copy, monkeypatch), tmp_path / "a")  # it has no other to read
        publish_in(copy, data="b")
        assert contents(original) == before

    def test_artifacts_that_were_left_behind_are_told(
        self, tmp_path: Path, publish_in: Callable[..., Registration], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "before").mkdir()
        (tmp_path / "now").mkdir()
        publish_in(tmp_path / "before")
        (tmp_path / "before" / "mlflow.db").rename(tmp_path / "now" / "mlflow.db")
        shutil.move(tmp_path / "before" / "mlartifacts", tmp_path / "aside")
        registry = registry_of(tmp_path / "now", monkeypatch)
        with pytest.raises(Exception, match=f"mlartifacts in {tmp_path}/now are whole"):
            download(registry, tmp_path / "a")
        shutil.move(tmp_path / "aside", tmp_path / "now" / "mlartifacts")
        assert b"calibration" in download(registry, tmp_path / "b")

    def test_a_link_to_the_file_is_the_registry_where_the_file_is(
        self, tmp_path: Path, publish_in: Callable[..., Registration], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "shared").mkdir()
        (tmp_path / "project").mkdir()
        publish_in(tmp_path / "shared")
        (tmp_path / "project" / "mlflow.db").symlink_to(tmp_path / "shared" / "mlflow.db")
        publish_in(tmp_path / "project", data="b")
        assert b"calibration" in download(registry_of(tmp_path / "shared", monkeypatch), tmp_path / "a")
        assert [path.name for path in (tmp_path / "project").iterdir()] == ["mlflow.db"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tables_of(path: Path, revision: str, *, filled: bool) -> None:
    """A file with MLflow's tables as they were at an earlier revision: an old registry, or one that is half made."""
    from alembic import command
    from alembic.config import Config
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine, text

    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        config: Config = _get_alembic_config("sqlite://")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        if filled:
            connection.execute(text("INSERT INTO experiments (experiment_id, name) VALUES (0, 'Default')"))
    with closing(engine.raw_connection()) as raw, closing(sqlite3.connect(path)) as target:
        raw.driver_connection.backup(target)  # type: ignore[union-attr]
    engine.dispose()


def revision(place: int) -> str:
    """A revision of MLflow's tables by its place in the history: 0 is the newest."""
    from morphad.registry.local import _migrations

    return str([script.revision for script in _migrations().walk_revisions()][place])


class TestBroken:
    """Files that MLflow itself would change, or fail at with words that help nobody."""

    def refused(self, path: Path) -> str:
        before = path.read_bytes()
        with pytest.raises(BadInputError) as caught:
            LocalRegistry(path).open(make=True)
        assert path.read_bytes() == before
        assert f"sqlite:///{path}" in str(caught.value)
        return str(caught.value)

    def follow(self, message: str, path: Path) -> None:
        """Do what the message says behind its last colon."""
        command = message.rpartition(": ")[2]
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(command, shell=True, check=True, env={**os.environ, "PATH": programs}, capture_output=True)  # noqa: S602
        LocalRegistry(path).open(make=True)
        assert is_whole(path)

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        (tmp_path / STRANGE).mkdir()
        return tmp_path / STRANGE / "mlflow.db"

    def test_an_empty_file(self, path: Path) -> None:
        path.touch()
        message = self.refused(path)
        assert "empty, no version is in it" in message
        self.follow(message, path)

    @pytest.mark.parametrize("place", [40, 1])
    def test_one_that_is_half_made(self, path: Path, place: int) -> None:
        tables_of(path, revision(place), filled=False)
        message = self.refused(path)
        assert "half made, no version is in it" in message
        self.follow(message, path)

    def test_one_of_an_older_mlflow(self, path: Path) -> None:
        tables_of(path, revision(3), filled=True)
        message = self.refused(path)
        assert "made by an older MLflow than" in message
        self.follow(message, path)
        assert path.with_name("mlflow.db.before").exists()

    def test_one_of_a_newer_mlflow(self, path: Path) -> None:
        LocalRegistry(path).open(make=True)
        change(path, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
        assert "made by a newer MLflow than" in self.refused(path)

    def test_an_upgrade_that_was_cut_off(self, path: Path) -> None:
        tables_of(path, revision(3), filled=True)
        change(path, "CREATE TABLE _alembic_tmp_runs (x)")
        assert "an upgrade of its tables was cut off" in self.refused(path)

    def test_a_database_of_something_else(self, path: Path) -> None:
        change(path, "CREATE TABLE orders (x)")
        assert "a database of something else (it has a table 'orders')" in self.refused(path)

    def test_no_database_at_all(self, path: Path) -> None:
        path.write_bytes(b"these are not the tables you are looking for" * 100)
        assert "file is not a database" in self.refused(path)


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()
