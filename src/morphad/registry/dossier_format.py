"""What a dossier is made of: its files, their names, what is known of the version, and the texts for people.

`morphad.registry.dossier` makes one, `morphad.registry.dossier_check` checks one.
"""

from dataclasses import dataclass, field

from morphad.registry.sentences import printable, sentence, state
from morphad.registry.trail import Entry, Trail

FORMAT = 1
README, FACTS, CARD, TRAIL, SUMS = "README.txt", "facts.json", "card.md", "trail.jsonl", "SHA256SUMS"
DECISIONS, REPORT, DATA, DETECTOR, MODEL = "decisions", "report", "data", "detector", "model"
DETECTOR_FILES = f"{DETECTOR}/files.json"


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
        image_digest: Of the container image, as the environment names it.
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


def decision_text(line: str, entry: Entry) -> str:
    """A decision in words."""
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


def readme_text(facts: Facts, trail: Trail) -> str:
    """What a person reads first, with how to check the rest."""
    rows = [
        f"Dossier of line {facts.line}, version {facts.version}",
        f"Made at {facts.made_at} by {facts.made_by} with morphad {facts.made_with} from {facts.registry}.",
        "",
        *state(facts.version, trail.entries),
    ]
    if facts.guarantee:
        rows.append(f"Its threshold: {facts.guarantee}.")
    rows += [f"Not as it should be: {said}." for said in facts.differences]
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
