"""What comes back from MLflow: a version's detector, its data, its model as it is served, each checked on arrival."""

from pathlib import Path

import mlflow

from morphad.base.errors import ServiceError
from morphad.base.files import atomic_directory
from morphad.model.saved import detector_hash
from morphad.registry import publishing
from morphad.registry.connection import Connection
from morphad.registry.records import Version, model_sha256


def detector(connection: Connection, version: Version, folder: Path) -> Path:
    """See `Registry.download`."""
    with atomic_directory(folder) as temporary:
        fetched = _fetch(connection, f"{version.model_uri}/artifacts/detector", temporary)
        _check(connection, version, fetched)
        _lift(fetched, temporary)
    return folder


def data(connection: Connection, version: Version, folder: Path) -> Path | None:
    """See `Registry.download_data`."""
    with connection.session() as client:
        kept = client.list_artifacts(version.run_id, publishing.DATA)
        if not kept:
            return None
        root = client.get_run(version.run_id).info.artifact_uri
    with atomic_directory(folder) as temporary:
        _lift(_fetch(connection, f"{root}/{publishing.DATA}", temporary), temporary)
    return folder / publishing.MANIFEST


def model(connection: Connection, version: Version, folder: Path, judged: str) -> Path:
    """See `Registry.download_model`; `judged` is the hash of the files when they were judged, "" if they never were."""
    with atomic_directory(folder) as temporary:
        fetched = _fetch(connection, version.model_uri, temporary)
        _check(connection, version, fetched / "artifacts" / "detector")
        if judged and model_sha256(fetched) != judged:
            raise ServiceError(
                f"{version.model_uri}: the files in MLflow at {connection.shown_uri} are not those that were judged; "
                "somebody changed its code or its settings. Roll back or train anew, and see who may write to "
                "MLflow's files"
            )
    return folder


def _fetch(connection: Connection, uri: str, folder: Path) -> Path:
    with connection.session():
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def _check(connection: Connection, version: Version, detector: Path) -> None:
    found = detector_hash(detector)
    if version.detector_hash and found != version.detector_hash:
        raise ServiceError(
            f"{version.model_uri}: the detector in MLflow at {connection.shown_uri} is damaged (hash {found[:12]}, "
            f"published as {version.detector_hash[:12]}); publish it again or promote another version"
        )


def _lift(fetched: Path, to: Path) -> None:
    """Move what was fetched up into the folder that was asked for, and remove the emptied ones on the way."""
    for entry in sorted(fetched.iterdir()):
        entry.rename(to / entry.name)
    while fetched != to:
        fetched.rmdir()
        fetched = fetched.parent
