"""The dossier of a version: one zip with all that was decided about it and on what, which can be checked by itself.

`morphad.registry.dossier_check` checks it. The trail in it is the text whose hashes make the chain, line by line, so a
reader needs nothing but `sha256sum`; docs/decisions/papers.md says what such a file proves and what it does not.
"""

import hashlib
import json
import shutil
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import mlflow
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

import morphad
from morphad.base.errors import BadInputError, CheckFailedError
from morphad.base.files import atomic_file, check_writable, sha256_file, write_json, write_text
from morphad.base.text import masked
from morphad.model.saved import detector_files, detector_hash
from morphad.registry import changes, publishing, trail_store, versions
from morphad.registry.connection import Connection
from morphad.registry.dossier_format import (
    CARD,
    DATA,
    DETECTOR,
    DETECTOR_FILES,
    FACTS,
    MODEL,
    README,
    REPORT,
    SUMS,
    TRAIL,
    Facts,
    decision_file,
    decision_text,
    readme_text,
    safe_name,
    sums_text,
)
from morphad.registry.records import PREFIX, Actor, Version, model_name
from morphad.registry.sentences import concerns
from morphad.registry.trail import Entry, Trail, document_text, text_of

_TIME = (1980, 1, 1, 0, 0, 0)  # of every member: equal content gives equal bytes
_TEXT = {".html", ".json", ".csv", ".md", ".txt", ".svg", ".yaml"}


@dataclass(frozen=True)
class Origin:
    """Where a version came from.

    Attributes:
        version: As the registry has it, or as its run says once MLflow no longer has the version.
        model_id: Of MLflow's logged model; "" where it is not known.
    """

    version: Version
    model_id: str


def make(
    connection: Connection, line: str, number: int, out: Path, *, actor: Actor, with_model: bool = False
) -> tuple[Facts, str]:
    """See `Registry.dossier`."""
    check_writable(out)
    made_at = _now()  # before the trail is read: no older decision is left out
    with connection.session() as client, tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
        found = changes.read_line(client, line)
        changes.check_anchor(line, found)
        missing: dict[str, str] = {}
        origin = _origin(client, connection, found.trail, number, missing)
        folder = Path(scratch) / "dossier"
        folder.mkdir()
        about = [entry for entry in found.trail.entries if concerns(entry, number)]
        write_text(folder / TRAIL, "".join(f"{_text(line, entry)}\n" for entry in found.trail.entries))
        for entry in about:
            _put_decision(client, found.trail, entry, folder, missing)
        _put_run(client, origin.version.run_id, folder, Path(scratch) / "run", missing)
        _put_detector(client, origin, folder, Path(scratch) / "model", missing, with_model=with_model)
        version, head = origin.version, found.trail.head
        facts = Facts(
            line=line,
            version=number,
            model_uri=version.model_uri,
            registry=connection.shown_uri,
            made_at=made_at,
            made_by=str(actor),
            made_with=morphad.__version__,
            decisions=len(found.trail.entries),
            trail_sha256="" if head is None else head.sha256,
            about=tuple(entry.number for entry in about),
            registered_at=version.created_at,
            registered_by=str(version.trained_by) if version.trained_by.name else "",
            run_id=version.run_id,
            reason=version.tags.get(f"{PREFIX}reason", ""),
            detector_hash=version.detector_hash,
            data_hash=version.data_hash,
            data_version=version.data_version,
            holdout_id=version.holdout_id,
            holdout_labels=version.holdout_labels,
            guarantee=version.guarantee,
            code_revision=version.code_revision,
            image_digest=version.tags.get("image_digest", ""),
            morphad=version.tags.get(f"{PREFIX}version", ""),
            missing=missing,
            masked=_mask(folder),
            differences=tuple(changes.differences(client, line, found)) if found.trail.unfinished is None else (),
        )
        write_json(folder / FACTS, asdict(facts))
        write_text(folder / README, readme_text(facts, found.trail))
        sums = sums_text({name: sha256_file(folder / name) for name in _names(folder)})
        write_text(folder / SUMS, sums)
        _write_zip(folder, out)
    return facts, hashlib.sha256(sums.encode()).hexdigest()


def _origin(client: MlflowClient, connection: Connection, trail: Trail, number: int, missing: dict[str, str]) -> Origin:
    """The version, from its run where MLflow no longer has it.

    Raises:
        BadInputError: There is no such version, and no decision about one.
    """
    line = trail.line
    entries = trail.of_version(number)
    if versions.exists(client, line, number):
        version = versions.one_version(client, line, number)
        source = str(client.get_model_version(model_name(line), str(number)).source)
        return Origin(version, source.removeprefix("models:/") if source.startswith("models:/m-") else "")
    if not entries:
        versions.one_version(client, line, number)  # raises, with those there are
    missing["version"] = f"MLflow no longer has version {number} of {model_name(line)}"
    last = entries[-1]
    identity = {f"{PREFIX}line": line, f"{PREFIX}detector_hash": last.detector, f"{PREFIX}data_hash": last.data_hash}
    clause = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
    experiment = connection.experiment_id()
    wanted = f"attributes.status = 'FINISHED' and {clause}"
    runs = client.search_runs([experiment], wanted, run_view_type=ViewType.ALL) if last.detector else []
    if not runs:
        known = {f"{PREFIX}detector_hash": last.detector, f"{PREFIX}data_hash": last.data_hash}
        missing["run"] = "no run of this version is in the experiment; what is known of it is from its decisions"
        known |= {f"{PREFIX}data_version": last.data_version, f"{PREFIX}holdout_id": last.holdout_id}
        return Origin(Version(model_name(line), number, "", "", (), known), "")
    run = runs[0]
    models = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run.info.run_id}'")
    version = Version(model_name(line), number, str(run.info.run_id), "", (), dict(run.data.tags))
    return Origin(version, str(models[0].model_id) if models else "")


def _text(line: str, entry: Entry) -> str:
    """The text whose hash is the entry's.

    Raises:
        CheckFailedError: This morphad does not know all that is in it.
    """
    text = text_of(entry)
    if hashlib.sha256(text.encode()).hexdigest() != entry.sha256:
        raise CheckFailedError(
            f"line {line}: decision {entry.number} was written by a newer morphad, and this one does not know all that "
            "is in it; make the dossier with that one"
        )
    return text


def _put_decision(client: MlflowClient, trail: Trail, entry: Entry, folder: Path, missing: dict[str, str]) -> None:
    """A decision in words, and its document as it is hashed."""
    name = decision_file(entry)
    write_text(folder / f"{name}.txt", decision_text(trail.line, entry))
    if not entry.document:
        return
    if entry.document not in {there.path for there in client.list_artifacts(trail.run_id, "decisions")}:
        missing[f"{name}.json"] = f"{entry.document} is no longer among the artifacts of the trail's run {trail.run_id}"
        return
    write_text(folder / f"{name}.json", document_text(trail_store.document(client, trail, entry)))


def _put_run(client: MlflowClient, run_id: str, folder: Path, scratch: Path, missing: dict[str, str]) -> None:
    """Report, card and data as they were registered."""
    location = _run_location(client, run_id)
    for part in (REPORT, DATA):
        if location is None:
            missing[part] = f"MLflow no longer has the run {run_id}" if run_id else "its run is not known"
        elif not client.list_artifacts(run_id, part):
            missing[part] = f"there is none among the artifacts of run {run_id}"
        else:
            shutil.move(_download(f"{location}/{part}", scratch), folder / part)
    for name in (f"{DATA}/{publishing.MANIFEST}", f"{DATA}/{publishing.HOLDOUT}"):
        if DATA not in missing and not (folder / name).is_file():
            missing[name] = f"it is not among the artifacts of run {run_id}"
    if (folder / REPORT / publishing.CARD).is_file():
        (folder / REPORT / publishing.CARD).rename(folder / CARD)
    else:
        missing[CARD] = "the version was registered without a card"


def _run_location(client: MlflowClient, run_id: str) -> str | None:
    """Where a run keeps its files; None where there is no such run."""
    if not run_id:
        return None
    try:
        return str(client.get_run(run_id).info.artifact_uri)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _put_detector(
    client: MlflowClient, origin: Origin, folder: Path, scratch: Path, missing: dict[str, str], *, with_model: bool
) -> None:
    """The detector's description and the hashes of its files; the whole model where it is wanted.

    Raises:
        CheckFailedError: It is not the one that was published.
    """
    location, version = _model_location(client, origin.model_id), origin.version
    if location is None:
        missing[DETECTOR] = "MLflow no longer has the model of this version"
        return
    if with_model:
        shutil.move(_download(location, scratch), folder / MODEL)
        detector = folder / MODEL / "artifacts" / "detector"
    else:
        detector = _download(f"{location}/artifacts/detector", scratch)
    if not (detector / "detector.json").is_file():
        missing[DETECTOR] = "the model of this version holds no detector"
        return
    if version.detector_hash and detector_hash(detector) != version.detector_hash:
        raise CheckFailedError(
            f"{version.model_uri}: the detector in MLflow is not the one that was published "
            f"({version.detector_hash[:12]}); restore the artifact store from a backup"
        )
    (folder / DETECTOR).mkdir()
    shutil.copyfile(detector / "detector.json", folder / DETECTOR / "detector.json")
    # The very text that the detector's hash is of.
    write_text(folder / DETECTOR_FILES, json.dumps(detector_files(detector), sort_keys=True, separators=(",", ":")))


def _model_location(client: MlflowClient, model_id: str) -> str | None:
    """Where a logged model keeps its files; None where there is none, or it has none."""
    if not model_id:
        return None
    try:
        location = str(client.get_logged_model(model_id).artifact_location)
        return location if client.list_logged_model_artifacts(model_id, "artifacts") else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _download(uri: str, scratch: Path) -> Path:
    scratch.mkdir(exist_ok=True)
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(scratch)))


def _mask(folder: Path) -> tuple[str, ...]:
    """Make credentials in report and card unreadable, which an earlier morphad may have left there."""
    changed = []
    for name in _names(folder):
        path = folder / name
        if name != CARD and not (name.startswith(f"{REPORT}/") and path.suffix in _TEXT):
            continue
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        if masked(text) != text:
            path.write_bytes(masked(text).encode())
            changed.append(name)
    return tuple(changed)


def _names(folder: Path) -> list[str]:
    """The files of the dossier, sorted.

    Raises:
        BadInputError: MLflow has one whose name is not fit for a zip.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in names:
        if not safe_name(name):
            raise BadInputError(
                f"{name!a}: not a name for a file in a zip; remove that artifact from the run in MLflow"
            )
    return names


def _write_zip(folder: Path, out: Path) -> None:
    with (
        atomic_file(out) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive,
    ):
        for name in _names(folder):
            member = zipfile.ZipInfo(name, _TIME)
            member.create_system, member.external_attr = 3, 0o100644 << 16  # a plain file, on any system
            member.compress_type, member.file_size = zipfile.ZIP_DEFLATED, (folder / name).stat().st_size
            with (folder / name).open("rb") as source, archive.open(member, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
