"""MLflow's server, with its records in a database and its artifacts in a bucket."""

import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from stack.database import Database
from stack.object_store import ObjectStore
from stack.ports import HOST, free_port
from stack.server import Server

BUCKET = "mlflow"


class TrackingServer(Server):
    """`mlflow server` of this Python, with PostgreSQL and S3 behind it; its clients need neither's credentials."""

    name = "mlflow"

    def __init__(self, folder: Path, database: Database, store: ObjectStore, port: int | None = None) -> None:
        """Choose folder, what it stores in, and the port; a free one where none is given."""
        super().__init__(folder, free_port() if port is None else port)
        self._database = database
        self._store = store

    @property
    def environment(self) -> dict[str, str]:
        """What MLflow's clients need."""
        return {
            "MLFLOW_TRACKING_URI": self.endpoint,
            # Files come through the server; else clients would go to S3 at the address that the server has for it.
            "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
            "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        }

    def prepare(self) -> None:
        """Make the folder and the bucket."""
        super().prepare()
        self._store.create_bucket(BUCKET)

    def command(self) -> list[str]:
        """One worker: for one machine, and half the memory of two."""
        return [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", HOST, "--port", str(self.port), "--workers", "1", "--serve-artifacts"),
        ]

    def settings(self) -> Mapping[str, str]:
        """Where records and artifacts go, with the keys to them."""
        return {
            "MLFLOW_BACKEND_STORE_URI": self._database.uri,
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/artifacts",
            "MLFLOW_S3_ENDPOINT_URL": self._store.endpoint,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves eight processes; morphad has no jobs for them
            "MLFLOW_DISABLE_TELEMETRY": "true",
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
