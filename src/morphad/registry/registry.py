"""The registry of a plant's models, one registered model a line."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from morphad.base.errors import BadInputError
from morphad.base.text import masked
from morphad.registry import changes, dossier, fetching, publishing, repairs, trail_store, versions
from morphad.registry import retention as retentions
from morphad.registry.account import authenticated_account
from morphad.registry.changes import Found
from morphad.registry.connection import Connection
from morphad.registry.decisions import Desk
from morphad.registry.dossier_format import Facts
from morphad.registry.records import CHALLENGER, Actor, DatasetFacts, Registration, Version
from morphad.registry.repairs import Repair
from morphad.registry.retention import Pruning, Retention
from morphad.registry.standing import Standing
from morphad.registry.trail import Entry, Trail, phrase
from morphad.settings import RegisterSettings


class Registry:
    """Versions of every line's model in MLflow, and which of them serves.

    Every method raises ServiceError, with address and remedy, if MLflow does not answer within the settings' time. Any
    number of processes may decide about a line at once: each decision is made whole, or refused with OvertakenError.

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
        card: str = "",
        actor: str = "unknown",
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
            card: The model card, Markdown: `report/card.md` of the run, and the version's description.
            actor: Who registers it.

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
            card=card,
            actor=actor,
        )

    def champion(self, line: str) -> Version | None:
        """The version in service, by the line's records; None if there is none.

        Raises:
            CheckFailedError: MLflow's alias says otherwise, or the records are not as they were written.
        """
        with self._connection.session() as client:
            number = changes.in_service(client, line).standing.champion
            return None if number is None else versions.one_version(client, line, number)

    def serving(self, line: str) -> Version:
        """The version in service, for those who cannot do without one.

        Raises:
            BadInputError: There is none; the message says why, and what to do.
            CheckFailedError: As of `champion`.
        """
        with self._connection.session() as client:
            now = changes.in_service(client, line).standing
            if now.champion is not None:
                return versions.one_version(client, line, now.champion)
        none = f"{line}: no champion at {self.uri}"
        if now.candidate is not None:
            raise BadInputError(f"{none}; version {now.candidate} awaits approval: morphad approve {line} --why ...")
        if now.since is not None:
            raise BadInputError(
                f"{none}: {now.since.by} {phrase(now.since)} at {now.since.at} "
                f"({' '.join(now.since.reasons)}); put an earlier one back (morphad rollback {line} --to VERSION "
                "--why ...) or promote another"
            )
        raise BadInputError(
            f"{none}; run `dvc repro`, or `morphad promote {line}` where a version is registered, or correct the "
            "line's name or MLFLOW_TRACKING_URI"
        )

    def challenger(self, line: str) -> Version | None:
        """The version that awaits a decision or was refused; None if there is none."""
        with self._connection.session() as client:
            number = versions.aliases(versions.registered(client, line)).get(CHALLENGER)
            return None if number is None else versions.one_version(client, line, number)

    def version(self, line: str, number: int) -> Version:
        """One version.

        Raises:
            BadInputError: There is no such version.
        """
        with self._connection.session() as client:
            return versions.one_version(client, line, number)

    def history(self, line: str) -> list[Version]:
        """All versions, oldest first, each with its aliases; see `trail` for the decisions."""
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
        return fetching.detector(self._connection, version, folder)

    def download_data(self, version: Version, folder: Path) -> Path | None:
        """Fetch the data that a version was made from, into `folder`, which appears whole or not at all.

        Returns:
            The manifest with roles, in that folder; None where the version was registered without it.
        """
        return fetching.data(self._connection, version, folder)

    def download_model(self, version: Version, folder: Path) -> Path:
        """Fetch a version as MLflow serves it, with its code; `folder` appears whole or not at all.

        Returns:
            `folder`, for `mlflow.pyfunc.load_model`.

        Raises:
            ServiceError: Its detector is not what was published, or its files are not those that were judged.
            BadInputError: `folder` cannot be written.
        """
        judged = self.trail(version.line).judged_model(version.number)
        return fetching.model(self._connection, version, folder, judged)

    def prepare(self, line: str) -> None:
        """Make what a line needs before its first version: experiment, registered model, audit trail.

        Not needed where everybody may do everything. Where accounts have roles, an approver does it once.
        """
        with self._connection.session(make=True) as client:
            self._connection.experiment_id()
            versions.ensure_registered(client, line)
            trail_store.ensure(client, self._connection, line)

    def standing(self, line: str) -> Standing:
        """What serves and what served before, by the line's records; a change that was cut off is finished first.

        Raises:
            CheckFailedError: Records and aliases differ, or the records are not as they were written.
        """
        with self._connection.session() as client:
            return changes.settled(client, line).standing

    def trail(self, line: str) -> Trail:
        """All decisions about a line, oldest first, their chain checked.

        Raises:
            CheckFailedError: The records are not as they were written.
        """
        with self._connection.session() as client:
            return trail_store.read(client, line)

    def overview(self) -> dict[str, Found]:
        """All lines that have a model or a trail, as records and aliases have them; nothing is compared or finished."""
        with self._connection.session() as client:
            return changes.read_lines(client)

    def document(self, line: str, entry: Entry) -> dict[str, Any]:
        """All that a decision rests on: reasons, figures, limits; {} where nothing was kept.

        Raises:
            CheckFailedError: It is not what was written.
        """
        with self._connection.session() as client:
            return trail_store.document(client, trail_store.read(client, line), entry)

    def promote(
        self, line: str, version: int, decision: dict[str, Any], actor: str, judged: Standing | None = None
    ) -> Version:
        """Make a version champion; the champion before it becomes `previous`.

        The decision is written first, then the aliases follow; called again after a kill, it completes. Where the
        version is champion already, nothing changes.

        Args:
            line: The product line.
            version: Version number.
            decision: The gate's decision, JSON-ready, its reasons under `reasons`; kept with the line's records.
            actor: Who or what decided.
            judged: The line when the decision was made; None: as it is now.

        Raises:
            BadInputError: There is no such version.
            OvertakenError: Another change came since `judged`.
            CheckFailedError: Records and aliases differ, or this very detector was taken out of service.
        """
        with self._desk(line, actor) as desk:
            desk.promote(version, decision, judged)
            return versions.one_version(desk.client, line, version)

    def propose(
        self, line: str, version: int, decision: dict[str, Any], actor: str, judged: Standing | None = None
    ) -> Version:
        """Let a version that passed the gate await approval, under the alias candidate. As `promote` otherwise."""
        with self._desk(line, actor) as desk:
            desk.propose(version, decision, judged)
            return versions.one_version(desk.client, line, version)

    def refuse(
        self,
        line: str,
        version: int,
        decision: dict[str, Any],
        actor: str = "morphad promote",
        judged: Standing | None = None,
    ) -> Version:
        """Record that the gate said no; what serves stays. The same decision is recorded once. As `promote` "
        "otherwise."""
        with self._desk(line, actor) as desk:
            desk.refuse(version, decision, judged)
            return versions.one_version(desk.client, line, version)

    def approve(self, line: str, why: str, actor: str, version: int | None = None) -> Version:
        """Put the candidate in service; that it can be loaded is made sure of first.

        Args:
            line: The product line.
            why: The reason, for the record.
            actor: Who decides.
            version: The one that was reviewed; None: whichever waits.

        Raises:
            CheckFailedError: There is none or another one, it was judged against another champion, or who approves has
                trained it.
            ServiceError: It cannot be loaded.
        """
        with self._desk(line, actor) as desk:
            return _champion(desk, desk.approve(why, self.check, version))

    def decline(self, line: str, why: str, actor: str, version: int | None = None) -> int:
        """Send the candidate away, and return its number; arguments as of `approve`.

        Raises:
            CheckFailedError: There is none, or another one.
        """
        with self._desk(line, actor) as desk:
            return desk.decline(why, version).version or 0

    def rollback(self, line: str, why: str, actor: str, to: int | None = None) -> Version:
        """Put an earlier champion back in service, and return it; that it can be loaded is made sure of first.

        Args:
            line: The product line.
            why: The reason, for the record.
            actor: Who decides.
            to: Which version; None: the one before. A second rollback has to name it.

        Raises:
            CheckFailedError: There is no champion before this one.
            BadInputError: `to` was never in service.
            ServiceError: The version cannot be loaded.
        """
        with self._desk(line, actor) as desk:
            return _champion(desk, desk.rollback(to, why, self.check))

    def withdraw(self, line: str, why: str, actor: str) -> int:
        """Take the champion out of service, and return its number; the line has none after it.

        Raises:
            CheckFailedError: It has none.
        """
        with self._desk(line, actor) as desk:
            return desk.withdraw(why).version or 0

    def plan_repair(self, line: str, *, accept: bool = False, to: int | None = None) -> Repair:
        """What would settle a difference between a line's records and MLflow's aliases; nothing is changed.

        Args:
            line: The product line.
            accept: Accept the version that the alias champion names now.
            to: Choose this version, of those that served before.
        """
        with self._connection.session() as client:
            return repairs.plan_repair(client, line, accept=accept, to=to)[1]

    def repair(self, line: str, why: str, actor: str, *, accept: bool = False, to: int | None = None) -> Repair:
        """Do what `plan_repair` plans, and put it on record."""
        with self._desk(line, actor) as desk:
            found, planned = repairs.plan_repair(desk.client, line, accept=accept, to=to)
            repairs.repair(desk, found, planned, why, self.check)
            return planned

    def plan_prune(self, line: str, retention: Retention) -> Pruning:
        """Which versions of a line would go for good; nothing is removed.

        Raises:
            CheckFailedError: Records and aliases of the line differ.
        """
        with self._connection.session() as client:
            found, there = changes.settled(client, line), versions.all_versions(client, line)
            return retentions.plan(found, there, retention, datetime.now(UTC))

    def prune(self, line: str, retention: Retention, why: str, actor: str) -> Pruning:
        """Remove what `plan_prune` plans, on record.

        Raises:
            OvertakenError: Somebody decided about the line in the meantime; nothing was removed.
            CheckFailedError: Records and aliases of the line differ.
        """
        with self._desk(line, actor) as desk:
            return retentions.prune(desk, retention, why, datetime.now(UTC))

    def dossier(
        self, line: str, number: int, out: Path, actor: str = "unknown", *, with_model: bool = False
    ) -> tuple[Facts, str]:
        """Write all that is known and was decided about a version into one zip, whole or not at all.

        A version that MLflow no longer has can still have one, as far as its decisions and its run go.

        Args:
            line: The product line.
            number: The version.
            out: The zip.
            actor: Who asks for it.
            with_model: The whole model as well, with its weights.

        Returns:
            What is known, and the SHA-256 of the dossier's SHA256SUMS: its fingerprint.

        Raises:
            BadInputError: There is no such version and no decision about it, or `out` cannot be written.
            CheckFailedError: The records, or the model, are not as they were written.
        """
        with self._connection.session():
            by = self._actor(actor)
        return dossier.make(self._connection, line, number, out, actor=by, with_model=with_model)

    def check(self, version: Version) -> None:
        """Make sure that a version can be had whole: its model, its code, its detector as published.

        Raises:
            ServiceError: Something of it is missing or damaged.
        """
        with tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
            self.download_model(version, Path(scratch) / "model")

    @contextmanager
    def _desk(self, line: str, name: str) -> Iterator[Desk]:
        with self._connection.session() as client:
            yield Desk(self._connection, client, line, self._actor(name))

    def _actor(self, name: str) -> Actor:
        """Who acts; within a session. The server says which account it is, where it has accounts."""
        return Actor(masked(name), authenticated_account(self._connection.uri))


def _champion(desk: Desk, entry: Entry) -> Version:
    return versions.one_version(desk.client, desk.line, entry.champion or 0)
