"""The registry of a plant's models, one registered model a line."""

from pathlib import Path
from typing import Any

import mlflow

from morphad.errors import ServiceError
from morphad.files import atomic_directory
from morphad.registry import promotion, publishing, versions
from morphad.registry.connection import Connection
from morphad.registry.records import CHALLENGER, CHAMPION, DatasetFacts, Registration, Version, detector_hash
from morphad.settings import RegisterSettings


class Registry:
    """Versions of every line's model in MLflow, and which of them serves.

    Every method raises ServiceError, with address and remedy, if MLflow does not answer within the settings' time. One
    process at a time may change a line; MLflow offers no locks.

    Args:
        settings: Address, experiment and time limits. MLFLOW_TRACKING_URI in the environment wins over the address.

    Raises:
        BadInputError: The address is none that MLflow can use.
    """

    def __init__(self, settings: RegisterSettings) -> None:
        self._connection = Connection(settings)

    @property
    def uri(self) -> str:
        """The address in use, without credentials."""
        return self._connection.shown_uri

    def publish(
        self,
        line: str,
        detector_folder: Path,
        report_folder: Path,
        *,
        params: dict[str, Any],
        metrics: dict[str, float],
        tags: dict[str, str],
        dataset: DatasetFacts,
    ) -> Registration:
        """Log a run and register the detector as a version with the alias challenger.

        The same detector made from the same data is registered once: a second call, or a call after one that was killed
        half-way, ends with the same single version.

        Args:
            line: The product line.
            detector_folder: A saved detector, with its threshold.
            report_folder: Page, pictures and figures of the evaluation; all of it becomes `report/` of the run.
            params: Settings, nested as they are; logged with dotted names.
            metrics: Figures by name.
            tags: Further tags of run and version, such as the image digest.
            dataset: Where the images came from and how many they were.

        Raises:
            BadInputError: A folder is missing or holds no detector; the experiment is deleted.
        """
        return publishing.publish(
            self._connection,
            line,
            detector_folder,
            report_folder,
            params=params,
            metrics=metrics,
            tags=tags,
            dataset=dataset,
        )

    def champion(self, line: str) -> Version | None:
        """The version in service; None if there is none."""
        return self._aliased(line, CHAMPION)

    def challenger(self, line: str) -> Version | None:
        """The version that awaits a decision or was refused; None if there is none."""
        return self._aliased(line, CHALLENGER)

    def version(self, line: str, number: int) -> Version:
        """One version.

        Raises:
            BadInputError: There is no such version.
        """
        with self._connection.session() as client:
            return versions.one_version(client, line, number)

    def history(self, line: str) -> list[Version]:
        """All versions, oldest first, each with its aliases and decisions."""
        with self._connection.session() as client:
            return versions.all_versions(client, line)

    def download(self, version: Version, folder: Path) -> Path:
        """Fetch a version's detector; `folder` appears whole or not at all.

        Returns:
            `folder`, for `Detector.load`.

        Raises:
            ServiceError: What came is not what was published.
            BadInputError: `folder` cannot be written.
        """
        with atomic_directory(folder) as temporary:
            fetched = self._fetch(f"{version.model_uri}/artifacts/detector", temporary)
            self._check(version, fetched)
            for entry in sorted(fetched.iterdir()):
                entry.rename(temporary / entry.name)
            _remove_empty(fetched, temporary)
        return folder

    def download_model(self, version: Version, folder: Path) -> Path:
        """Fetch a version as MLflow serves it, with its code; `folder` appears whole or not at all.

        Returns:
            `folder`, for `mlflow.pyfunc.load_model`.

        Raises:
            ServiceError: Its detector is not what was published.
            BadInputError: `folder` cannot be written.
        """
        with atomic_directory(folder) as temporary:
            self._check(version, self._fetch(version.model_uri, temporary) / "artifacts" / "detector")
        return folder

    def promote(self, line: str, version: int, decision: dict[str, Any], actor: str) -> Version:
        """Make a version champion; the champion before it becomes `previous`.

        A champion is there at every moment, and calling it again after a kill completes it. Where the version is
        champion already, nothing changes.

        Args:
            line: The product line.
            version: Version number.
            decision: The gate's decision, JSON-ready, its reasons under `reasons`; kept as decision.json of the run.
            actor: Who or what decided.

        Raises:
            BadInputError: There is no such version.
        """
        with self._connection.session() as client:
            return promotion.promote(client, line, version, decision, actor)

    def refuse(self, line: str, version: int, decision: dict[str, Any], actor: str = "morphad promote") -> Version:
        """Record that the gate said no; aliases stay. The same decision is recorded once.

        Raises:
            BadInputError: There is no such version.
        """
        with self._connection.session() as client:
            return promotion.refuse(client, line, version, decision, actor)

    def rollback(self, line: str, why: str, actor: str) -> Version:
        """Put the previous champion back in service, and return it.

        The alias `previous` is gone after it: a rollback that is repeated does not bring the bad version back.

        Raises:
            CheckFailedError: There is no champion, or none before it.
        """
        with self._connection.session() as client:
            return promotion.rollback(client, line, why, actor)

    def _fetch(self, uri: str, folder: Path) -> Path:
        with self._connection.session():
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))

    def _check(self, version: Version, detector: Path) -> None:
        found = detector_hash(detector)
        if version.detector_hash and found != version.detector_hash:
            raise ServiceError(
                f"{version.model_uri}: the detector in MLflow at {self.uri} is damaged (hash {found[:12]}, "
                f"published as {version.detector_hash[:12]}); publish it again or promote another version"
            )

    def _aliased(self, line: str, alias: str) -> Version | None:
        with self._connection.session() as client:
            number = versions.aliases(versions.registered(client, line)).get(alias)
            return None if number is None else versions.one_version(client, line, number)


def _remove_empty(folder: Path, stop: Path) -> None:
    """Remove emptied folders upward, to below `stop`."""
    while folder != stop:
        folder.rmdir()
        folder = folder.parent
