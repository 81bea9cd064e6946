"""The local registry: one SQLite file, and the files of its runs and versions in `mlartifacts` beside it.

Left to itself, MLflow makes its tables in the file, one by one, for seconds: a second command meets half of them, and a
kill leaves half of them for ever. And it keeps the absolute place of every artifact, which is lost when the folder gets
another name. Here the file appears whole, in one moment, and follows its folder.
"""

import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote, urlsplit

import mlflow

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.files import atomic_file

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_ARTIFACTS = "mlartifacts"

# The columns of MLflow's tables that hold places of artifacts; `source` does where a version is of no logged model.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)

_BUSY_SECONDS = 30  # longer than any transaction of MLflow
_ELSEWHERE = "correct `register.tracking_uri` (MLFLOW_TRACKING_URI in the environment wins)"


class NoRegistryError(BadInputError):
    """There is no registry yet: whoever only reads makes none."""


class LocalRegistry:
    """The SQLite file of a local registry.

    Args:
        path: The file; a relative one is meant from the current folder of now. It need not be there.
        query: What follows `?` in its address.
    """

    def __init__(self, path: Path, query: str = "") -> None:
        self.path = path.absolute()
        self._query = f"?{query}" if query else ""

    @property
    def uri(self) -> str:
        """The address for MLflow.

        SQLAlchemy decodes percents in it, so they are encoded. The driver is named because MLflow makes folders for an
        address that begins with `sqlite:///`, and reads the encoded path as the path.
        """
        return f"sqlite+pysqlite:///{quote(str(self.path))}{self._query}"

    @property
    def shown_uri(self) -> str:
        """The address for people, the path as it is."""
        return f"sqlite:///{self.path}{self._query}"

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts: beside the file itself, where `path` is a link to it."""
        return self.path.resolve().parent / _ARTIFACTS

    def open(self, *, make: bool) -> None:
        """See that MLflow can work with the file, and that the file knows where its artifacts are now.

        Args:
            make: Make the registry if there is none. It appears whole or not at all; two who make it at once share it.

        Raises:
            NoRegistryError: There is no registry.
            BadInputError: The file is none; the message says what it is and what to do.
            ServiceError: Another process keeps the file locked.
        """
        if not self.path.exists():
            if not make:
                raise NoRegistryError(
                    f"there is no registry at {self.shown_uri}: run `dvc repro`, or `morphad register LINE` and then "
                    f"`morphad promote LINE` for a line that is evaluated; where one should be, {_ELSEWHERE}"
                )
            with atomic_file(self.path.resolve(), replace=False) as temporary:
                temporary.write_bytes(_empty(self.artifacts))
        with self._database() as database:
            self._check(database)
            self._follow(database)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection that makes no file and begins no transaction by itself."""
        address = f"file:{quote(str(self.path))}?mode=rw"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as database:
                yield database
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise ServiceError(
                    f"registry at {self.shown_uri}: {error}: another process has been writing for more than "
                    f"{_BUSY_SECONDS} s; run again when it has ended"
                ) from None
            raise BadInputError(
                f"registry at {self.shown_uri}: {error}; see that the file is whole and that this user may read and "
                f"write it and its folder, or {_ELSEWHERE}"
            ) from None

    def _check(self, database: sqlite3.Connection) -> None:
        """Say what a file is that MLflow cannot work with, before MLflow changes it."""
        tables = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        revision = _value(database, "SELECT version_num FROM alembic_version") if "alembic_version" in tables else None
        scripts = _migrations()
        if revision in scripts.get_heads():
            return
        experiments = _value(database, "SELECT count(*) FROM experiments") if "experiments" in tables else 0
        folder, name = shlex.quote(str(self.path.parent)), shlex.quote(self.path.name)
        if tables and "experiments" not in tables:
            said = f"a database of something else (it has a table {min(tables)!r}); {_ELSEWHERE}"
        elif not experiments:
            said = (
                f"{'half made' if tables else 'empty'}, no version is in it. A command was killed while it made it, or "
                f"an MLflow server is making it now. If none is, remove it and run again: rm {folder}/{name}"
            )
        elif any(table.startswith("_alembic_tmp_") for table in tables):
            said = "an upgrade of its tables was cut off; put the copy that was made before it in its place"
        elif revision not in {script.revision for script in scripts.walk_revisions()}:
            said = f"made by a newer MLflow than {mlflow.__version__} (tables {revision}); install that one"
        else:
            said = (
                f"made by an older MLflow than {mlflow.__version__} (tables {revision}). End what uses it, then keep a "
                f"copy and upgrade it: cd {folder} && cp {name} {name}.before && mlflow db upgrade sqlite:///{name}"
            )
        raise BadInputError(f"registry at {self.shown_uri}: {said}")

    def _follow(self, database: sqlite3.Connection) -> None:
        """Point the records at artifacts that came along when the file moved or was copied; all of them or none."""
        if not self._moved(database):
            return
        database.execute("BEGIN IMMEDIATE")
        for table, column, before, now in self._moved(database):  # again: another process may have done it
            database.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (now, before))  # noqa: S608
        database.execute("COMMIT")

    def _moved(self, database: sqlite3.Connection) -> list[tuple[str, str, str, str]]:
        """Table, column, place on record and place now, of artifacts that are no longer there but here."""
        here = f"{self.artifacts.as_uri()}/"
        found = []
        for table, column in _PLACES:
            rows = database.execute(
                f"SELECT DISTINCT {column} FROM {table} "  # noqa: S608
                f"WHERE {column} LIKE 'file:%/{_ARTIFACTS}/%' AND substr({column}, 1, ?) != ?",
                (len(here), here),
            )
            for (before,) in rows.fetchall():
                folder, _, tail = urlsplit(before).path.rpartition(f"/{_ARTIFACTS}/")
                there = Path(unquote(folder))
                gone = not _is_there(there / _ARTIFACTS / unquote(tail))
                # What is new goes beside this file, also if the artifacts were not copied with it.
                left = table == "experiments" and _is_there(there / self.path.name)
                if gone or left or _is_there(self.artifacts / unquote(tail)):
                    found.append((table, column, before, here + tail))
        return found


def _empty(artifacts: Path) -> bytes:
    """A registry with nothing in it, as the bytes of its file."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.deserialize(_tables())
        # The experiment that MLflow makes for those who name none.
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", ((artifacts / "0").as_uri(),)
        )
        return database.serialize()


@cache
def _tables() -> bytes:
    """MLflow's tables, as MLflow makes them: in memory, once a process, for it needs seconds."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415 - a second, for a server's clients

    engine = SqlAlchemyStore("sqlite+pysqlite:///:memory:", _ARTIFACTS).engine  # type: ignore[no-untyped-call]
    with closing(engine.raw_connection()) as connection:
        content: bytes = cast(sqlite3.Connection, connection.driver_connection).serialize()
    engine.dispose()
    return content


@cache
def _migrations() -> "ScriptDirectory":
    """MLflow's history of its tables."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - as above

    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - no error for another user's folder, which may not be entered


def _value(database: sqlite3.Connection, query: str) -> object:
    row = database.execute(query).fetchone()
    return None if row is None else row[0]
