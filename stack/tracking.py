"""MLflow's server, with its records and accounts in a database, its artifacts in a bucket."""

import base64
import hashlib
import importlib.util
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from morphad.base.errors import BadInputError
from stack.access import ADMIN, Access
from stack.database import Database
from stack.object_store import ObjectStore
from stack.ports import HOST, free_port
from stack.private import write_private
from stack.server import Server

BUCKET = "mlflow"

# mlflow_access.py lies where docker/mlflow.Dockerfile copies it from.
_RULES = Path(__file__).resolve().parents[1] / "docker"
# Passwords are hashed with care, some 60 ms each, and MLflow hashes several times a request: it may remember for a
# minute who gave the right one.
_BASIC_AUTH = """[mlflow]
default_permission = READ
database_uri = {uri}
authorization_function = mlflow_access:authenticate
auth_cache_ttl_seconds = 60
"""


class TrackingServer(Server):
    """`mlflow server` of this Python, with PostgreSQL and S3 behind it; its clients need neither's credentials."""

    name = "mlflow"

    def __init__(
        self,
        folder: Path,
        database: Database,
        store: ObjectStore,
        port: int | None = None,
        *,
        secret_key: str,
        admin_password: str,
    ) -> None:
        """Choose folder, what it stores in, the port (a free one where none is given) and its own secrets."""
        super().__init__(folder, free_port() if port is None else port)
        self._database = database
        self._store = store
        self._secret_key = secret_key
        self._admin_password = admin_password

    @property
    def access(self) -> Access:
        """Its accounts."""
        return Access(self.endpoint, self._admin_password)

    def prepare(self) -> None:
        """Make the folder, the bucket, and the settings of the accounts, which hold the database's password."""
        super().prepare()
        self._store.create_bucket(BUCKET)
        write_private(self._auth_file, _BASIC_AUTH.format(uri=self._database.uri))

    def command(self) -> list[str]:
        """One worker: for one machine, and half the memory of two."""
        if importlib.util.find_spec("flask_wtf") is None:
            raise BadInputError("mlflow: for its accounts Flask-WTF is missing; install it: pip install flask-wtf")
        return [
            *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"),
            *("--host", HOST, "--port", str(self.port), "--workers", "1", "--serve-artifacts"),
        ]

    def settings(self) -> Mapping[str, str]:
        """Where records and artifacts go, with the keys to them, and who is administrator."""
        return {
            "MLFLOW_BACKEND_STORE_URI": self._database.uri,
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/artifacts",
            "MLFLOW_S3_ENDPOINT_URL": self._store.endpoint,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves eight processes; morphad has no jobs for them
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_AUTH_CONFIG_PATH": str(self._auth_file),
            "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self._admin_password,  # counts at the first start only
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self._secret_key,
            "PYTHONPATH": str(_RULES),
            **_webhooks(self._secret_key),
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            **self._store.environment,
        }

    def answers(self) -> bool:
        """Whether it says that it is healthy."""
        try:
            with urllib.request.urlopen(f"{self.endpoint}/health", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    @property
    def _auth_file(self) -> Path:
        return self.folder / "basic_auth.ini"


def client_environment(uri: str, account: str = "", password: str = "") -> dict[str, str]:
    """What a client of an MLflow server needs; with name and password where an account is given."""
    return {
        "MLFLOW_TRACKING_URI": uri,
        **({"MLFLOW_TRACKING_USERNAME": account, "MLFLOW_TRACKING_PASSWORD": password} if account else {}),
        # Files come through the server; else clients would go to S3 at the address that the server has for it.
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }


def _webhooks(secret_key: str) -> dict[str, str]:
    """Only the administrator makes webhooks; on one machine they go to loopback, which MLflow refuses by default."""
    key = base64.urlsafe_b64encode(hashlib.sha256(secret_key.encode()).digest()).decode()
    return {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key,  # drawn anew at every start, it could not read what is there
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "5",  # seconds until a new webhook is heard of; MLflow's default is a minute
    }
