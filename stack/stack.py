"""The three servers as one: settings that outlive them, start in order, stop in order."""

import fcntl
import re
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from morphad.base.errors import BadInputError
from morphad.base.files import cannot_write, read_json
from morphad.settings.explaining import explain
from stack.access import ADMIN, Access
from stack.database import Database
from stack.object_store import ObjectStore
from stack.private import write_exports, write_private
from stack.server import Server
from stack.tracking import TrackingServer, client_environment

Tell = Callable[[str], object]

_ACCOUNT = "morphad"  # of whoever has the folder: may do all that the verbs of `morphad` do


def _secret() -> str:
    return secrets.token_hex(20)


class StackSettings(BaseModel):
    """Ports and credentials; drawn at the first start and kept, since the data are of no use without them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Below the ports that outgoing connections use on Linux, as are SeaweedFS's others, up to 10003 above.
    postgres_port: int = Field(default=15432, ge=1024, le=65535, description="port of PostgreSQL")
    s3_port: int = Field(default=18333, ge=1024, le=55532, description="first port of the S3 server")
    mlflow_port: int = Field(default=15000, ge=1024, le=65535, description="port of MLflow")
    postgres_password: str = Field(default_factory=_secret, pattern="^[A-Za-z0-9]+$")
    s3_access_key: str = Field(default_factory=_secret, min_length=1)
    s3_secret_key: str = Field(default_factory=_secret, min_length=1)
    mlflow_secret_key: str = Field(default_factory=_secret, min_length=1)
    mlflow_admin_password: str = Field(default_factory=_secret, min_length=12)
    mlflow_password: str = Field(default_factory=_secret, min_length=12)


class Stack:
    """PostgreSQL, the S3 server and MLflow, with all that they keep in one folder.

    Attributes:
        database: PostgreSQL.
        store: The S3 server.
        tracking: MLflow.
    """

    def __init__(self, folder: Path, settings: StackSettings) -> None:
        """Choose the folder and the settings; nothing is started."""
        self.folder = folder.absolute()
        self._settings = settings
        self.database = Database(self.folder / "postgres", settings.postgres_port, settings.postgres_password)
        self.store = ObjectStore(self.folder / "s3", settings.s3_port, settings.s3_access_key, settings.s3_secret_key)
        self.tracking = TrackingServer(
            self.folder / "mlflow",
            self.database,
            self.store,
            settings.mlflow_port,
            secret_key=settings.mlflow_secret_key,
            admin_password=settings.mlflow_admin_password,
        )

    @classmethod
    def open(cls, folder: Path, ports: dict[str, int] | None = None) -> Self:
        """The stack of a folder, with the settings that are kept there; those of a new folder are drawn.

        Args:
            folder: Where everything is kept.
            ports: Other ports than those of last time, by the names of `StackSettings`.

        Raises:
            BadInputError: The settings file is damaged, or a port is out of range.
        """
        path = _settings_file(folder)
        kept = read_json(path) if path.exists() else {}
        if not isinstance(kept, dict):
            raise BadInputError(f"{path}: expected a mapping of settings; bring back the file that was there")
        try:
            settings = StackSettings.model_validate({**kept, **(ports or {})})
        except ValidationError as error:
            key = str(error.errors()[0]["loc"][-1])  # of a credential, explain would print the value
            why = explain(error, StackSettings) if key.endswith("_port") else f"{key}: not what was written here"
            raise BadInputError(f"{path}: {why}") from None
        return cls(folder, settings)

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers in the order in which they can be started."""
        return (self.database, self.store, self.tracking)

    @property
    def environment(self) -> dict[str, str]:
        """What clients need: MLflow's address and an account; the AWS_ variables are for reading images from S3."""
        account = client_environment(self.tracking.endpoint, _ACCOUNT, self._settings.mlflow_password)
        return {**account, **self.store.environment}

    @property
    def environment_file(self) -> Path:
        """A file of export lines, to be sourced by a shell."""
        return self.folder / "env"

    def up(self, tell: Tell, seconds: float = 120.0) -> None:
        """Start what is not running; what was started is stopped where one of the three does not come up.

        Args:
            tell: Gets a line about each server.
            seconds: How long to wait for each server.

        Raises:
            BadInputError: A program is not installed, or the folder is of no use.
            ServiceError: A port is in use, or a server does not come up in time.
        """
        started: list[Server] = []

        def start(server: Server) -> None:
            begin = time.monotonic()
            if server.start(seconds):
                started.append(server)
                tell(f"{server.name}: started in {time.monotonic() - begin:.1f} s, {server.endpoint}")
            else:
                tell(f"{server.name}: already running, {server.endpoint}")

        with self._lock():
            for server in self.servers:
                server.check()
            # Now, before there are data that are of no use without them.
            write_private(_settings_file(self.folder), self._settings.model_dump_json(indent=2) + "\n")
            write_exports(self.environment_file, self.environment)
            admin = client_environment(self.tracking.endpoint, ADMIN, self._settings.mlflow_admin_password)
            write_exports(account_file(self.folder, ADMIN), admin)
            try:
                with ThreadPoolExecutor() as both:
                    list(both.map(start, (self.database, self.store)))
                start(self.tracking)
                self.tracking.access.prepare()
                self.tracking.access.set_account(_ACCOUNT, self._settings.mlflow_password, "approver")
            except BaseException:
                for server in reversed(started):
                    server.stop()
                    tell(f"{server.name}: stopped again")
                raise

    def down(self, tell: Tell) -> None:
        """Stop what is running, those first that need the others; data stay."""
        with self._lock():
            tracking = self.tracking.stop()
            tell(f"{self.tracking.name}: {'stopped' if tracking else 'was not running'}")
            with ThreadPoolExecutor() as both:
                servers = (self.database, self.store)
                for server, stopped in zip(servers, both.map(Server.stop, servers), strict=True):
                    tell(f"{server.name}: {'stopped' if stopped else 'was not running'}")

    @classmethod
    def of_running(cls, folder: Path) -> Self:
        """The stack of a folder for stopping it, which needs its pid files only: damaged settings are no hindrance."""
        return cls(folder, StackSettings())

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One at a time in a folder; the others wait."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stream = (self.folder / "lock").open("w")
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _settings_file(folder: Path) -> Path:
    return folder / "settings.json"


def account_file(folder: Path, account: str) -> Path:
    """Where an account's name and password are kept, as export lines for a shell."""
    return folder / f"env.{account}"


def make_account(access: Access, uri: str, account: str, role: str, folder: Path) -> Path:
    """Give somebody an account of an MLflow server, with a random password that is kept in a file.

    An account that is there gets the role, and keeps the password that the file has.

    Returns:
        The file, of export lines; without the keys of S3, which would let change every file behind MLflow's back.

    Raises:
        BadInputError: The name cannot be an account's, or the folder cannot be written.
        ServiceError: The server does not answer or refuses.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", account) or account in {ADMIN, _ACCOUNT}:
        raise BadInputError(
            f"account {account!r}: expected letters, digits and . _ @ - (64 at most), and another name than {ADMIN} "
            f"and {_ACCOUNT}, which are there already"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    path = account_file(folder, account)
    kept = re.search(r"(?m)^export MLFLOW_TRACKING_PASSWORD=(\w+)$", path.read_text()) if path.is_file() else None
    password = kept[1] if kept else _secret()
    access.prepare()
    access.set_account(account, password, role)
    write_exports(path, client_environment(uri, account, password))
    return path
