"""Whether a dossier is as it was written: its files, its trail, and that all of it is about the same version."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from morphad.base.errors import BadInputError, CheckFailedError, MorphadError
from morphad.base.wording import counted
from morphad.data.manifest import manifest_id, read_manifest
from morphad.data.split.holdout import FrozenHoldout
from morphad.registry import publishing
from morphad.registry.dossier_format import (
    CARD,
    DATA,
    DECISIONS,
    DETECTOR,
    DETECTOR_FILES,
    FACTS,
    FORMAT,
    MODEL,
    REPORT,
    SUMS,
    TRAIL,
    Facts,
    decision_file,
    sums_text,
)
from morphad.registry.dossier_zip import DAMAGED, SafeZip, WrongError, opened, short
from morphad.registry.records import Version
from morphad.registry.sentences import concerns, printable, sentence, state
from morphad.registry.trail import Entry, Trail, chained

CLOCKS = timedelta(minutes=1)  # by which clocks may differ

_NOT_AS_WRITTEN = (*DAMAGED, MorphadError, TypeError, KeyError, AttributeError, IndexError, OverflowError)


@dataclass(frozen=True)
class DossierFinding:
    """One check and its outcome.

    Attributes:
        what: What was checked.
        passed: None where it could not be checked.
        said: A sentence that names the file and what is wrong with it, or what was found right.
    """

    what: str
    passed: bool | None
    said: str


@dataclass
class Checked:
    """A dossier after its checks.

    Attributes:
        findings: In the order of the checks.
        facts: None where they cannot be read.
        entries: The trail, as far as its chain holds.
        fingerprint: SHA-256 of its SHA256SUMS; "" where there is none.
    """

    findings: list[DossierFinding] = field(default_factory=list)
    facts: Facts | None = None
    entries: tuple[Entry, ...] = ()
    fingerprint: str = ""

    @property
    def wrong(self) -> list[DossierFinding]:
        """The checks that failed."""
        return [finding for finding in self.findings if finding.passed is False]

    @property
    def state(self) -> list[str]:
        """Where the version stands by the trail of the dossier."""
        if self.facts is None:
            return []
        try:
            return [printable(said) for said in state(self.facts.version, self.entries)]
        except _NOT_AS_WRITTEN:
            return []


class _SkippedError(Exception):
    """A check that cannot be made."""


def verify(path: Path) -> Checked:
    """Check a dossier by itself, without a network.

    Raises:
        BadInputError: The file is no dossier, or no zip that is safe to read.
    """
    with opened(path) as archive:
        if not {SUMS, FACTS} & archive.names:
            raise BadInputError(
                f"{path}: a zip, but not a dossier of `morphad dossier`: it holds no {SUMS}, no {FACTS}"
            )
        return _Dossier(archive).checked()


def hold_against(checked: Checked, trail: Trail, version: Version | None) -> list[DossierFinding]:
    """Hold a dossier against the registry.

    Args:
        checked: The dossier.
        trail: The line's, as the registry has it now.
        version: The dossier's version, as the registry has it now; None where it no longer has it.

    Raises:
        BadInputError: The dossier is of another line.
    """
    facts = checked.facts
    if facts is None:
        return [DossierFinding("registry", None, f"{FACTS} cannot be read, so it is not known what to compare")]
    if facts.line != trail.line:
        raise BadInputError(f"the dossier is of line {facts.line}, not of {trail.line}; give that line with --against")
    return [
        _finding("registry's trail", lambda: _compare_trails(facts, checked.entries, trail.entries)),
        _finding("registry's version", lambda: _compare_versions(facts, version)),
    ]


class _Dossier:
    """An open dossier and what was found in it."""

    def __init__(self, archive: SafeZip) -> None:
        self._archive = archive
        self._names = archive.names
        self._hashes: dict[str, str] = {}
        self._facts: Facts | None = None
        self._entries: list[Entry] = []

    def checked(self) -> Checked:
        """All checks, in order."""
        checks: dict[str, Callable[[], str]] = {
            "facts": self._check_facts,
            "trail": self._check_trail,
            "decisions": self._check_decisions,
            "detector": self._check_detector,
            "data": self._check_data,
            "holdout": self._check_holdout,
            "report": self._check_report,
        }
        findings = self._check_files()
        findings += [_finding(what, function) for what, function in checks.items()]
        return Checked(findings, self._facts, tuple(self._entries), self._hashes.get(SUMS, ""))

    def _check_files(self) -> list[DossierFinding]:
        """Every file has the hash that it should have, and there is none too few or too many."""
        wrong = []
        for name in sorted(self._names):
            try:
                self._hashes[name] = self._archive.hash(name)
            except WrongError as error:
                wrong.append(str(error))
        try:
            rows = [row.split("  ", 1) for row in self._archive.text(SUMS).split("\n")[:-1]]
            listed = {name: digest for digest, name in rows}
        except (WrongError, ValueError) as error:
            return [_outcome("files", False, said) for said in [*wrong, f"{SUMS} cannot be read ({short(error)})"]]
        there = {name: digest for name, digest in self._hashes.items() if name != SUMS}
        wrong += [
            f"{name} is not as it was written: its SHA-256 is {there[name][:12]}, and {SUMS} says {listed[name][:12]}"
            for name in sorted(there.keys() & listed.keys())
            if there[name] != listed[name]
        ]
        wrong += [f"{name} is missing" for name in sorted(listed.keys() - self._names)]
        wrong += [f"{name} was added: {SUMS} does not list it" for name in sorted(there.keys() - listed.keys())]
        if not wrong and self._archive.text(SUMS) != sums_text(there):
            wrong.append(f"{SUMS} is not as it was written")
        if wrong:
            return [_outcome("files", False, said) for said in wrong]
        return [DossierFinding("files", True, f"all {len(there)} have the hashes of {SUMS}")]

    def _check_facts(self) -> str:
        values = self._archive.json(FACTS)
        if values["format"] != FORMAT:
            raise WrongError(f"{FACTS}: format {values['format']!r}, and this morphad knows {FORMAT}: use a newer one")
        lists = {name: tuple(values[name]) for name in ("about", "masked", "differences")}
        facts = Facts(**{**values, **lists, "missing": dict(values["missing"])})
        if type(facts.version) is not int or type(facts.decisions) is not int:
            raise WrongError(f"{FACTS}: version and decisions are whole numbers")
        self._facts = facts
        return f"line {facts.line}, version {facts.version}, made at {facts.made_at}"

    def _check_trail(self) -> str:
        facts = self._known()
        *texts, rest = self._archive.text(TRAIL).split("\n")
        try:
            for entry in chained(str(facts.line), texts):
                self._entries.append(entry)
        except CheckFailedError:
            raise WrongError(
                f"{TRAIL}: line {len(self._entries) + 1} is not the decision that was written, or not in its place"
            ) from None
        head = self._entries[-1].sha256 if self._entries else ""
        if rest or (len(self._entries), head) != (facts.decisions, facts.trail_sha256):
            raise WrongError(
                f"{TRAIL}: ends with decision {len(self._entries)} ({head[:12] or 'none'}); {FACTS} says "
                f"{facts.decisions} ({facts.trail_sha256[:12] or 'none'})"
            )
        about = tuple(entry.number for entry in self._entries if concerns(entry, facts.version))
        if about != facts.about:
            raise WrongError(f"{FACTS}: decisions about version {facts.version} are {about}, not {facts.about}")
        return f"{counted(len(self._entries), 'decision')}, each with the hash of the one before it"

    def _check_decisions(self) -> str:
        facts, count = self._known(), 0
        expected = set()
        for entry in self._entries:
            if entry.number not in facts.about:
                continue
            name = decision_file(entry)
            expected |= {f"{name}.txt", *([f"{name}.json"] if entry.document else [])}
            if not entry.document or (f"{name}.json" in facts.missing and f"{name}.json" not in self._names):
                continue
            if self._hashes.get(f"{name}.json") != entry.document_sha256:
                raise WrongError(f"{name}.json is not the document that decision {entry.number} in {TRAIL} names")
            count += 1
        if lacking := expected - self._names - facts.missing.keys():
            raise WrongError(f"{min(lacking)} is missing")
        if strange := {name for name in self._names if name.startswith(f"{DECISIONS}/")} - expected:
            raise WrongError(f"{min(strange)} belongs to no decision about version {facts.version}")
        if not facts.about:
            raise _SkippedError(f"no decision about version {facts.version} is on record")
        return f"{counted(count, 'document')} of {counted(len(facts.about), 'decision')}: hashes as in the trail"

    def _check_detector(self) -> str:
        facts = self._known()
        self._same("detector", facts.detector_hash, "detector")
        if DETECTOR in facts.missing and DETECTOR_FILES not in self._names:
            raise _SkippedError(facts.missing[DETECTOR])
        if not facts.detector_hash:
            raise _SkippedError("the version was registered without the hash of its detector")
        if self._hashes.get(DETECTOR_FILES) != facts.detector_hash:
            raise WrongError(f"{DETECTOR_FILES} is not of the detector {facts.detector_hash[:12]} of the trail")
        files = self._archive.json(DETECTOR_FILES)
        if self._hashes.get(f"{DETECTOR}/detector.json") != files["detector.json"]:
            raise WrongError(f"{DETECTOR}/detector.json is not that of the detector {facts.detector_hash[:12]}")
        calibration = self._archive.json(f"{DETECTOR}/detector.json").get("calibration") or {}
        if facts.guarantee and calibration.get("guarantee") != facts.guarantee:
            raise WrongError(f"{FACTS}: the guarantee is not that of {DETECTOR}/detector.json")
        root = f"{MODEL}/artifacts/detector/"
        model = {name.removeprefix(root): digest for name, digest in self._hashes.items() if name.startswith(root)}
        if not model:
            return (
                f"detector.json belongs to the detector {facts.detector_hash[:12]}; its weights are not in the dossier"
            )
        if model != files:
            raise WrongError(f"{root}: its files are not those of the detector {facts.detector_hash[:12]}")
        return f"detector.json and weights are those of the detector {facts.detector_hash[:12]}"

    def _check_data(self) -> str:
        facts, name = self._known(), f"{DATA}/{publishing.MANIFEST}"
        self._same("data", facts.data_hash, "data_hash")
        self._same("data version", facts.data_version, "data_version")
        self._there(name)
        with tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
            copy = Path(scratch) / publishing.MANIFEST
            copy.write_bytes(self._archive.read(name))
            rows = read_manifest(copy)
        if manifest_id(rows) != facts.data_hash:
            raise WrongError(f"{name}: its data hash is {manifest_id(rows)[:12]}, not {facts.data_hash[:12]}")
        if strange := set(rows["line"].unique()) - {facts.line}:
            raise WrongError(f"{name}: holds images of line {min(strange)}")
        return f"{len(rows):,} images of the manifest have the data hash {facts.data_hash[:12]}"

    def _check_holdout(self) -> str:
        facts, name = self._known(), f"{DATA}/{publishing.HOLDOUT}"
        self._same("holdout", facts.holdout_id, "holdout_id")
        self._there(name)
        frozen = FrozenHoldout.from_json(self._archive.json(name), name)
        if frozen.id != facts.holdout_id:
            raise WrongError(f"{name}: is holdout {frozen.id[:12]}, not {facts.holdout_id[:12]}")
        if facts.holdout_labels and frozen.labels_id != facts.holdout_labels:
            raise WrongError(f"{name}: its labels are not those that the version was registered with")
        return f"{len(frozen.images):,} images are the frozen holdout {facts.holdout_id[:12]}"

    def _check_report(self) -> str:
        facts, name = self._known(), f"{REPORT}/metrics.json"
        if CARD not in self._names and CARD not in facts.missing:
            raise WrongError(f"{CARD} is missing")
        if name not in self._names:
            raise _SkippedError(facts.missing.get(REPORT, f"there is no {name}"))
        metrics = self._archive.json(name)
        for key, expected in (("detector_hash", facts.detector_hash), ("holdout_id", facts.holdout_id)):
            if key in metrics and metrics[key] != expected:
                raise WrongError(f"{name}: its {key} is not that of the version")
        return f"its figures are of this detector and this holdout; page and {CARD} are held by {SUMS} alone"

    def _known(self) -> Facts:
        if self._facts is None:
            raise _SkippedError(f"{FACTS} cannot be read")
        return self._facts

    def _same(self, what: str, value: str, attribute: str) -> None:
        """Whether facts and all decisions about the version agree."""
        for entry in self._entries:
            said = getattr(entry, attribute)
            if entry.version == self._known().version and said and said != value:
                raise WrongError(
                    f"{FACTS}: the {what} is {value[:40] or 'not known'}, and decision {entry.number} rests "
                    f"on {said[:40]}"
                )

    def _there(self, name: str) -> None:
        missing = self._known().missing
        if name not in self._names and {name, DATA} & missing.keys():
            raise _SkippedError(printable(str(missing.get(name, missing.get(DATA)))))


def _finding(what: str, function: Callable[[], str]) -> DossierFinding:
    try:
        return _outcome(what, True, function())
    except WrongError as error:
        return _outcome(what, False, str(error))
    except _SkippedError as error:
        return _outcome(what, None, str(error))
    except _NOT_AS_WRITTEN as error:
        return _outcome(what, False, f"not as morphad writes it ({short(error)})")


def _outcome(what: str, passed: bool | None, said: str) -> DossierFinding:
    """A finding whose text cannot steer a terminal, whatever the dossier holds."""
    return DossierFinding(what, passed, printable(said))


def _compare_trails(facts: Facts, ours: tuple[Entry, ...], theirs: tuple[Entry, ...]) -> str:
    for mine, other in zip(ours, theirs, strict=False):
        if mine.sha256 != other.sha256:
            raise WrongError(f"decision {mine.number} of the dossier is not decision {other.number} of the registry")
    if len(ours) > len(theirs):
        raise WrongError(f"the dossier has {len(ours)} decisions, and the registry only {len(theirs)}")
    later = theirs[len(ours) :]
    made_at = datetime.fromisoformat(facts.made_at)
    if left_out := [entry for entry in later if datetime.fromisoformat(entry.at) < made_at - CLOCKS]:
        raise WrongError(
            f"the dossier ends with decision {len(ours)}, and the registry has {len(left_out)} more from before it was "
            f"made: {sentence(left_out[0])}"
        )
    about = [sentence(entry) for entry in later if concerns(entry, facts.version)]
    since = f"; since then {len(later)} more: none about version {facts.version}" if later else ""
    if about:
        since = f"; since then {len(later)} more, about version {facts.version}: {' '.join(about)}"
    return f"it begins with the {counted(len(ours), 'decision')} of the dossier{since}"


def _compare_versions(facts: Facts, version: Version | None) -> str:
    if version is None:
        raise _SkippedError(f"MLflow no longer has version {facts.version}")
    for name in ("detector_hash", "data_hash", "data_version", "holdout_id", "holdout_labels", "guarantee", "run_id"):
        if getattr(facts, name) != getattr(version, name):
            raise WrongError(f"{FACTS}: {name} is not that of version {facts.version} in the registry")
    return f"version {facts.version} has the same detector, data, holdout and guarantee there"
