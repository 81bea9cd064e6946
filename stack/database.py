"""A PostgreSQL server with one database, from the machine's own packages."""

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import psycopg2

from morphad.base.errors import BadInputError, ServiceError
from stack.ports import HOST, free_port
from stack.server import Server

_DEBIAN = Path("/usr/lib/postgresql")
_NAME = "mlflow"  # of the user and of the database
_ROOTS_STAND_IN = "postgres"  # PostgreSQL refuses to run as root; Debian's package makes this user


class Database(Server):
    """PostgreSQL on TCP loopback with a password (SCRAM); where root starts it, it runs as user `postgres`."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": open transactions are rolled back, clients are not waited for

    def __init__(self, folder: Path, port: int | None = None, password: str | None = None) -> None:
        """Choose folder, port and password; a free port and a random password where none are given."""
        super().__init__(folder, free_port() if port is None else port)
        self._password = password or secrets.token_hex(20)

    @property
    def endpoint(self) -> str:
        """Where clients go, without the password."""
        return f"postgresql://{_NAME}@{HOST}:{self.port}/{_NAME}"

    @property
    def uri(self) -> str:
        """SQLAlchemy's address of the database; holds the password."""
        return f"postgresql+psycopg2://{_NAME}:{self._password}@{HOST}:{self.port}/{_NAME}"

    @property
    def user(self) -> str | None:
        """`postgres` where root starts the server."""
        return _ROOTS_STAND_IN if os.geteuid() == 0 else None

    def prepare(self) -> None:
        """Make the database cluster, whole or not at all."""
        if (self.data / "PG_VERSION").is_file():
            return
        initdb = self._program("initdb")
        self._check_reach()
        unfinished = self.folder / "data.unfinished"
        password_file = self.folder / "password.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file.unlink(missing_ok=True)
        try:
            unfinished.mkdir(mode=0o700)
            password_file.touch(mode=0o600)
            password_file.write_text(self._password, encoding="ascii")
            if self.user is not None:
                shutil.chown(unfinished, self.user, self.user)
                shutil.chown(password_file, self.user, self.user)
            done = self._run(
                [
                    initdb,
                    f"--pgdata={unfinished}",
                    f"--username={_NAME}",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--no-instructions",
                ]
            )
            if done.returncode != 0:
                raise ServiceError(f"postgres: initdb failed:\n{done.stderr.strip()}")
            unfinished.rename(self.data)
        finally:
            password_file.unlink(missing_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)

    def command(self) -> list[str]:
        """The server itself in the foreground; its socket is TCP on loopback only."""
        return [
            self._program("postgres"),
            f"-D{self.data}",
            f"-p{self.port}",
            f"-clisten_addresses={HOST}",
            "-cunix_socket_directories=",
        ]

    def settings(self) -> Mapping[str, str]:
        """Nothing: the password lies hashed in its own tables."""
        return {}

    def answers(self) -> bool:
        """Whether the database answers a query; it is made at the first chance.

        Raises:
            ServiceError: The data were made with another password.
        """
        try:
            with closing(self._connect("postgres")) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_NAME,))
                    if cursor.fetchone() is None:
                        cursor.execute(f'CREATE DATABASE "{_NAME}"')
            self._connect(_NAME).close()
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise ServiceError(
                    f"postgres: {self.data} was made with another password; bring back the settings that belong to it, "
                    "or remove the folder with all that is in the database"
                ) from error
            return False
        return True

    def _connect(self, database: str) -> psycopg2.extensions.connection:
        return psycopg2.connect(
            host=HOST, port=self.port, user=_NAME, password=self._password, dbname=database, connect_timeout=5
        )

    def _program(self, name: str) -> str:
        """The program of the version that the data are of, or of the newest one that is installed.

        Raises:
            BadInputError: It is not installed, or the user whom root needs is not there.
        """
        if self.user is not None:
            try:
                pwd.getpwnam(self.user)
            except KeyError as error:
                raise BadInputError(
                    f"postgres: PostgreSQL does not run as root, and there is no user {self.user}; start as another "
                    "user, or install the package: apt-get install postgresql"
                ) from error
        version_file = self.data / "PG_VERSION"
        version = version_file.read_text(encoding="ascii").strip() if version_file.is_file() else ""
        found = programs(name)
        if not found or (version and version not in found):
            package = f"postgresql-{version}" if version else "postgresql"
            there = f"; installed: {', '.join(sorted(found))}" if found else ""
            what = f"PostgreSQL {version}, which {self.data} is of," if version else "PostgreSQL"
            raise BadInputError(
                f"postgres: {what} is not installed{there}; on Debian and Ubuntu: apt-get install {package}"
            )
        return str(found[version or max(found, key=float)])

    def _check_reach(self) -> None:
        """Raises BadInputError if the user whom the server runs as cannot enter the folder, such as one below /root."""
        if self.user is None or self._run(["test", "-x", str(self.folder)]).returncode == 0:
            return
        raise BadInputError(
            f"postgres: PostgreSQL does not run as root, and user {self.user}, whom it runs as, cannot enter "
            f"{self.folder}; choose a folder that others may enter (chmod o+x), or start as another user"
        )

    def _run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd="/",
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else (),
            capture_output=True,
            text=True,
            check=False,
        )


def programs(name: str) -> dict[str, Path]:
    """Where a program of PostgreSQL is, by major version: in Debian's folders, which no PATH holds, and in PATH."""
    found = {path.parent.parent.name: path for path in _DEBIAN.glob(f"*/bin/{name}")}
    if elsewhere := shutil.which(name):
        answer = subprocess.run([elsewhere, "--version"], capture_output=True, text=True, check=False).stdout
        if version := re.search(r"\d+", answer):
            found.setdefault(version[0], Path(elsewhere))
    return found
