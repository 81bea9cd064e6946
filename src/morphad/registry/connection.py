"""The conversation with MLflow: bounded in time, quiet, without telemetry, its failures in one sentence."""

import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read by mlflow when it is imported
import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from morphad.base.errors import BadInputError, OutageError, ServiceError
from morphad.base.text import has_secret, masked
from morphad.registry.local import LocalRegistry
from morphad.settings import RegisterSettings

_SERVERS = {"http", "https"}
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
# Which one an address means that names none: the first that is installed. SQLAlchemy knows one only.
_DRIVERS = {"postgresql": ("psycopg2", "psycopg"), "mysql": ("pymysql", "mysqldb")}

# The first call shows whether anybody is there; it waits less than a call that moves data may.
_CONTACT_TIMEOUT_SECONDS = 15
_CONTACT_RETRIES = 2

# What MLflow says of a server that does not answer, starts, or has lost its database; not of one that says no.
_AWAY = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}
_REFUSED = r"error code 4(?!08|29)\d\d\b"

# Files come and go through the server, unless the environment says otherwise. Left to itself, a client that finds S3
# behind its server goes to S3 at the address that the server has for it, which it may not reach, for minutes.
_PAST_THE_SERVER = ("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD")

_EXPECTED = (
    "expected http://HOST:PORT, https://HOST, sqlite:///FILE or postgresql://USER@HOST/NAME (MLflow no longer keeps a "
    "registry in plain files); correct it, or MLFLOW_TRACKING_URI in the environment"
)
_UNFIT = (
    "user or password hold a sign that an address cannot hold; write / as %2F, @ as %40, : as %3A, a blank as %20, or "
    "give them in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
)
_START = (
    "start the server or correct `register.tracking_uri` (MLFLOW_TRACKING_URI in the environment wins), then run again"
)


# So that MLflow's pages show an experiment's runs; left to themselves, they begin with traces of language models.
_KIND = {"mlflow.experimentKind": "custom_model_development"}


class Connection:
    """An MLflow backend that is talked to in sessions.

    MLflow keeps address, time limits and verbosity in the process: a session sets them and puts them back, so that
    other code in the process keeps its own. Not for several threads at once.
    """

    def __init__(self, settings: RegisterSettings) -> None:
        given = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
        self._settings = settings
        self._scheme, self.uri, self._local = _checked(given or settings.tracking_uri)
        self.shown_uri = masked(self.uri) if self._local is None else self._local.shown_uri
        self._reached = False
        self._client: MlflowClient | None = None

    @contextmanager
    def session(self, *, make: bool = False) -> Iterator[MlflowClient]:
        """Give a client that works within the settings' limits.

        Args:
            make: Make a local registry that is not there yet. Only for what puts something into it.

        Raises:
            BadInputError: There is no local registry, or its file is none.
            ServiceError: MLflow did not answer in time, or refused; the message names the address and the remedy.
        """
        with _environment(self._limits(contact=False)), _silence():
            # set_tracking_uri writes the environment too; _environment puts that back.
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            try:
                yield self._reach(make=make)
            except MlflowException as error:
                raise self._in_words(error) from None
            except (SQLAlchemyError, OSError) as error:
                kind = OutageError if self._local is None else ServiceError
                raise kind(f"MLflow at {self.shown_uri}: {_cause(str(error))}; {self._remedy()}") from None
            finally:
                mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # the way to unset it
                mlflow.set_registry_uri(None)  # type: ignore[arg-type]

    def hurry(self) -> None:
        """Within a session that fails: let what must still be said to the server be tried once, briefly."""
        os.environ.update({"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"})

    def experiment_id(self) -> str:
        """Within a session: the experiment of the settings, made if need be."""
        client, name = self._reach(), self._settings.experiment
        found = client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage != "active":
            raise BadInputError(
                f"MLflow at {self.shown_uri}: experiment {name!r} is deleted; restore it "
                f"(mlflow experiments restore -x {found.experiment_id}) or set another `register.experiment`"
            )
        if found is None:
            try:
                place = self.artifact_location(name)
                return str(client.create_experiment(name, artifact_location=place, tags=_KIND))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return self.experiment_id()  # another process was faster
        return str(found.experiment_id)

    def _reach(self, *, make: bool = False) -> MlflowClient:
        """The client, once somebody has answered at the address."""
        if self._client is None:
            self._knock()
            if self._local is not None:
                self._local.open(make=make)
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        if not self._reached:
            with _environment(self._limits(contact=True)):
                self._client.get_experiment_by_name(self._settings.experiment)
            self._reached = True
        return self._client

    def _knock(self) -> None:
        """Fail early at a database server that is not there: MLflow itself would try for 100 s."""
        if self._scheme not in _DATABASE_PORTS:
            return
        address = make_url(self.uri)
        host = str(address.host or address.query.get("host", ""))
        if not host or host.startswith("/") or "," in host:
            return  # a local socket, or several servers
        named = str(address.port or address.query.get("port", ""))
        port = int(named) if named.isdecimal() else _DATABASE_PORTS[self._scheme]
        try:
            socket.create_connection((host, port), timeout=_CONTACT_TIMEOUT_SECONDS).close()
        except OSError as error:
            raise OutageError(f"MLflow database at {self.shown_uri}: {error.strerror or error}; {_START}") from None

    def _limits(self, *, contact: bool) -> dict[str, str | None]:
        timeout, retries = self._settings.timeout_seconds, self._settings.retries
        if contact:
            timeout, retries = min(timeout, _CONTACT_TIMEOUT_SECONDS), min(retries, _CONTACT_RETRIES)
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_REGISTRY_URI": self.uri,
            "MLFLOW_RUN_ID": None,  # would make every new run continue that one
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # a model is never code that unpickling runs
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
            "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            **{name: os.environ.get(name, "false") for name in _PAST_THE_SERVER},
        }

    def artifact_location(self, experiment: str) -> str | None:
        """Where a new experiment keeps files: a server decides for itself, a local database has them beside it."""
        if self._scheme in _SERVERS:
            return None
        folder = Path.cwd() / "mlartifacts" if self._local is None else self._local.artifacts
        # One folder, whatever the name: with / or .. in it, files would be elsewhere.
        return (folder / re.sub(r"[^\w ().+-]|^\.+", "_", experiment)).as_uri()

    def _in_words(self, error: MlflowException) -> ServiceError:
        text = _cause(str(error.message or error))
        denied = error.error_code in {"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"}
        if denied or re.search(r"error code 40[13]\b", text):
            remedy = (
                "give MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, of an account "
                "that may write (an approver makes a new line ready: morphad registry prepare LINE), and see that the "
                "server allows this host name (--allowed-hosts)"
            )
        else:
            remedy = self._remedy()
        away = not denied and self._local is None and error.error_code in _AWAY and not re.search(_REFUSED, text)
        return (OutageError if away else ServiceError)(f"MLflow at {self.shown_uri}: {text}; {remedy}")

    def _remedy(self) -> str:
        if self._local is not None:
            files = f"{self._local.path.name} and {self._local.artifacts.name} in {self._local.artifacts.parent}"
            return f"see that {files} are whole, may be read and written, and that the disk is not full, then run again"
        return "see the server's log, then run again" if self._reached else _START


def _cause(text: str) -> str:
    """The first line of a message, or the system's own words where they are buried in it; credentials masked."""
    for pattern in (r"\[Errno -?\d+\] ([^'\")\]]+)", r"(?i)((?:read|connection) (?:to \S+ )?timed out)"):
        if buried := re.search(pattern, text):
            return masked(buried.group(1))
    return masked((text.strip() or "no reason given").splitlines()[0])


def _checked(uri: str) -> tuple[str, str, LocalRegistry | None]:
    """Scheme, address for MLflow, and the file if it is one."""
    scheme = uri.split(":", 1)[0].split("+", 1)[0].lower() if ":" in uri else ""
    try:
        if _is_misread(uri, scheme):
            raise ValueError(_UNFIT)
        if scheme in _SERVERS:
            parts = urlsplit(uri)
            if not parts.hostname or parts.port == 0:
                raise ValueError("names no host or port")
            return scheme, uri, None
        if scheme in _DATABASE_PORTS:
            return scheme, _with_driver(uri, scheme), None
        if scheme == "sqlite":
            path = make_url(uri).database
            if not path or path == ":memory:" or path.startswith("file:"):
                raise ValueError("names no file")
            local = LocalRegistry(Path(path), query=uri.partition("?")[2])
            return scheme, local.uri, local
    except (ValueError, ArgumentError) as error:
        raise BadInputError(f"register.tracking_uri = {masked(uri)!r}: {masked(str(error))}; {_EXPECTED}") from None
    raise BadInputError(f"register.tracking_uri = {masked(uri)!r}: not an address that MLflow can use; {_EXPECTED}")


def _with_driver(uri: str, scheme: str) -> str:
    """The address of a database, with a driver that is installed.

    Raises:
        BadInputError: There is none.
    """
    bare = uri[: len(scheme)].lower() == scheme and uri.startswith("://", len(scheme))
    for driver in _DRIVERS.get(scheme, ("",)) if bare else ("",):
        chosen = f"{scheme}+{driver}{uri[len(scheme) :]}" if driver else uri
        try:
            make_url(chosen).get_dialect().import_dbapi()
        except ModuleNotFoundError as error:
            missing = error.name
        else:
            return chosen
    raise BadInputError(
        f"register.tracking_uri = {masked(uri)!r}: its driver {missing} is not installed; run: pip install {missing}, "
        f"or name another one: {scheme}+DRIVER://..."
    )


def _is_misread(uri: str, scheme: str) -> bool:
    """Whether a client would read a part of the password as the host, and show it."""

    def host(address: str) -> str | None:
        return urlsplit(address).hostname if scheme in _SERVERS else make_url(address).host

    try:
        return has_secret(uri) and host(uri) != host(masked(uri))
    except (ValueError, ArgumentError):
        return True


@contextmanager
def _environment(values: dict[str, str | None]) -> Iterator[None]:
    """Set environment variables for a block (None: unset), then put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    _set_environment(values)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _silence() -> Iterator[None]:
    """Keep MLflow, its migrations and its HTTP client off the terminal for a block; failures arrive as exceptions."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
