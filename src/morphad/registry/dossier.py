"""The dossier of a version: one zip with all that was decided about it and on what, which can be checked by itself.

`morphad.registry.dossier_check` checks it. The trail in it is the text whose hashes make the chain, line by line, so a
reader needs nothing but `sha256sum`; docs/decisions/papers.md says what such a file proves and what it does not.
"""

import hashlib
import json
import shutil
import tempfile
import zipfile
from dataclasses import asdict, dataclass, field
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
from morphad.registry import changes, publishing, versions
from morphad.registry import trail as trails
from morphad.registry.connection import Connection
from morphad.registry.records import PREFIX, Actor, Version, model_name
from morphad.registry.trail import Entry, Trail
from morphad.registry.wording import concerns, printable, sentence, state

FORMAT = 1
README, FACTS, CARD, TRAIL, SUMS = "README.txt", "facts.json", "card.md", "trail.jsonl", "SHA256SUMS"
DECISIONS, REPORT, DATA, DETECTOR, MODEL = "decisions", "report", "data", "detector", "model"
DETECTOR_FILES = f"{DETECTOR}/files.json"

_TIME = (1980, 1, 1, 0, 0, 0)  # of every member: equal content gives equal bytes
_TEXT = {".html", ".json", ".csv", ".md", ".txt", ".svg", ".yaml"}


@dataclass(frozen=True)
class Facts:
    """What is known of a version, and of the dossier about it; text that is not known is "".

    Attributes:
        line: The product line.
        version: The version's number.
        model_uri: For `mlflow.pyfunc.load_model`.
        registry: Its address, without credentials.
        made_at: When the dossier was made, ISO 8601, UTC.
        made_by: Who made it.
        made_with: The morphad that made it.
        decisions: How many decisions the trail holds.
        trail_sha256: Hash of the last.
        about: Numbers of the decisions that are about the version.
        registered_at: When the version was registered, ISO 8601, UTC.
        registered_by: Who registered it.
        run_id: MLflow's run behind it.
        reason: Why it was trained.
        detector_hash: As of `detector_hash`.
        data_hash: Of the manifest that it was made from.
        data_version: The same as a version of the data registry.
        holdout_id: Of the frozen holdout.
        holdout_labels: Of that holdout's labels.
        guarantee: What its threshold promises.
        code_revision: Of the code that registered it.
        image_digest: Of the container image, as told.
        morphad: The morphad that registered it.
        missing: What the dossier should hold and does not, with the reason.
        masked: Files in which credentials were made unreadable; they differ from what was registered.
        differences: Where records and MLflow's aliases differed, in sentences.
        format: Of the dossier.
    """

    line: str
    version: int
    model_uri: str
    registry: str
    made_at: str
    made_by: str
    made_with: str
    decisions: int
    trail_sha256: str
    about: tuple[int, ...]
    registered_at: str = ""
    registered_by: str = ""
    run_id: str = ""
    reason: str = ""
    detector_hash: str = ""
    data_hash: str = ""
    data_version: str = ""
    holdout_id: str = ""
    holdout_labels: str = ""
    guarantee: str = ""
    code_revision: str = ""
    image_digest: str = ""
    morphad: str = ""
    missing: dict[str, str] = field(default_factory=dict)
    masked: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    format: int = FORMAT


@dataclass(frozen=True)
class Origin:
    """Where a version came from.

    Attributes:
        version: As the registry has it, or as its run tells once MLflow no longer has the version.
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
        write_text(folder / README, _readme(facts, found.trail))
        sums = sums_text({name: sha256_file(folder / name) for name in _names(folder)})
        write_text(folder / SUMS, sums)
        _write_zip(folder, out)
    return facts, hashlib.sha256(sums.encode()).hexdigest()


def decision_file(entry: Entry) -> str:
    """Where a decision is in a dossier, without its suffix."""
    return f"{DECISIONS}/{entry.number:06}-{entry.action.replace(' ', '-')}"


def sums_text(hashes: dict[str, str]) -> str:
    """SHA256SUMS, as `sha256sum -c` reads it."""
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))


def safe_name(name: str) -> bool:
    """Whether a member's name is one that may be unpacked anywhere: relative, posix, without `..`, printable."""
    parts = name.split("/")
    return len(name) <= 1000 and name.isprintable() and not {"", ".", ".."} & set(parts) and not {"\\", ":"} & set(name)


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
    text = trails.text_of(entry)
    if hashlib.sha256(text.encode()).hexdigest() != entry.sha256:
        raise CheckFailedError(
            f"line {line}: decision {entry.number} was written by a newer morphad, and this one does not know all that "
            "is in it; make the dossier with that one"
        )
    return text


def _put_decision(client: MlflowClient, trail: Trail, entry: Entry, folder: Path, missing: dict[str, str]) -> None:
    """A decision in words, and its document as it is hashed."""
    name = decision_file(entry)
    write_text(folder / f"{name}.txt", _decision_text(trail.line, entry))
    if not entry.document:
        return
    if entry.document not in {there.path for there in client.list_artifacts(trail.run_id, "decisions")}:
        missing[f"{name}.json"] = f"{entry.document} is no longer among the artifacts of the trail's run {trail.run_id}"
        return
    write_text(folder / f"{name}.json", trails.document_text(trails.document(client, trail, entry)))


def _decision_text(line: str, entry: Entry) -> str:
    rows = {
        "holdout": entry.holdout_id,
        "data": entry.data_hash,
        "data version": entry.data_version,
        "detector": entry.detector,
        "in service after it": "no version" if entry.champion is None else f"version {entry.champion}",
        "guarantee": entry.guarantee,
        "code revision": entry.code_revision,
        "SHA-256 of the decision": entry.sha256,
        "SHA-256 of its document": entry.document_sha256,
    }
    said = [f"Line {line}, decision {entry.number}", "", sentence(entry), "", "Reasons:"]
    said += [f"- {reason}" for reason in entry.reasons] or ["- none were given"]
    said += ["", *(f"{name}: {value}" for name, value in rows.items() if value)]
    return "".join(f"{printable(row)}\n" for row in said)


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


def _readme(facts: Facts, trail: Trail) -> str:
    rows = [
        f"Dossier of line {facts.line}, version {facts.version}",
        f"Made at {facts.made_at} by {facts.made_by} with morphad {facts.made_with} from {facts.registry}.",
        "",
        *state(facts.version, trail.entries),
    ]
    if facts.guarantee:
        rows.append(f"Its threshold: {facts.guarantee}.")
    rows += [f"Not as it should be: {told}." for told in facts.differences]
    rows += ["", "Decisions:"]
    rows += [f"{entry.number:>6}  {sentence(entry)}" for entry in trail.entries if entry.number in facts.about]
    rows += [] if facts.about else ["        none"]
    if facts.missing:
        rows += ["", "Missing:", *(f"- {what}: {why}." for what, why in facts.missing.items())]
    if facts.masked:
        rows += ["", f"Credentials were made unreadable in: {', '.join(facts.masked)}."]
    return "".join(f"{printable(row)}\n" for row in rows) + _GUIDE


_GUIDE = f"""
What is here
  {CARD:<24} what the model is good for, what it rests on, where it is blind
  {DECISIONS + "/":<24} each decision about the version: in words (.txt), and with all its figures (.json)
  {TRAIL:<24} every decision about the line up to now, a line each
  {REPORT + "/":<24} the page and its figures as they were registered
  {DATA + "/":<24} which images it was made from, with their hashes and roles; the frozen holdout
  {DETECTOR + "/":<24} the detector's description, and the hashes of all its files
  {MODEL + "/":<24} the model itself, if it was asked for
  {FACTS:<24} version, hashes, who made this and when, and what is missing
  {SUMS:<24} the hash of every other file

How to check it
  With morphad:     morphad verify FILE.zip
                    morphad verify FILE.zip --against LINE     (holds it against the registry as well)
  Without morphad:  unzip FILE.zip, then in the folder: sha256sum -c {SUMS}
    A decision's document is what the trail says it is: sha256sum {DECISIONS}/*.json gives document_sha256 of its line
    in {TRAIL}. Each line of {TRAIL} holds, as "before", the hash of the line above it, without its line feed:
      sed -n 1p {TRAIL} | tr -d '\\n' | sha256sum
    The detector's hash in the trail is that of one file: sha256sum {DETECTOR_FILES}

What it does not prove
  Whoever can write the zip can write it anew from end to end. Note the hash of {SUMS} where others can see it, or hold
  the dossier against the registry. A trail that was cut short is noticed only there.
"""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
