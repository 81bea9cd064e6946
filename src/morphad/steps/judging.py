"""The gate at work: the registered challenger and the registered champion, scored on the same frozen holdout.

Nothing but the registry's own versions is judged, with their own code, threshold and rules of decoding, so what is
promoted is what was measured. Files of the project only say which version is meant and which images are frozen; where
they do not belong together, nothing is decided.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from morphad.base.errors import BadInputError
from morphad.base.files import read_json, sha256_file
from morphad.data.split.holdout import FrozenHoldout
from morphad.decision.gate import Evidence, decide
from morphad.inspection import score_files
from morphad.model.saved import detector_hash
from morphad.registry import Registry, Standing, Version, blocked, model_sha256
from morphad.registry.published import PublishedModel
from morphad.settings import PromoteSettings
from morphad.steps.paths import LinePaths

Record = dict[str, Any]

# What follows from the gate's word and the line's mode.
_ACTS: dict[tuple[bool, str], tuple[str, Callable[..., Version]]] = {
    (True, "automatic"): ("promoted", Registry.promote),
    (True, "four-eyes"): ("proposed", Registry.propose),
    (False, "automatic"): ("refused", Registry.refuse),
    (False, "four-eyes"): ("refused", Registry.refuse),
}


def registered_version(registry: Registry, line: str, registration: Path, detector: Path) -> Version:
    """The version that the project means, after making sure that it is the one that was registered.

    Args:
        registry: Where it should be.
        line: The line's name.
        registration: What `register` wrote, JSON.
        detector: The detector that was registered.

    Raises:
        BadInputError: The registration is of another registry, or the detector was made anew after it.
    """
    known = read_json(registration)
    remedy = f"run `morphad register {line}`, then `morphad promote {line}`"
    try:
        number, run_id, registered_hash = int(known["version"]), str(known["run_id"]), str(known["detector_hash"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{registration}: not as this morphad writes it ({error}); {remedy}") from error
    here = detector_hash(detector)
    if here != registered_hash:
        raise BadInputError(
            f"{detector}: not the detector that was registered as version {number} (hash {here[:12]} here, "
            f"{registered_hash[:12]} in {registration}); {remedy}"
        )
    version = registry.version(line, number)
    if (version.run_id, version.detector_hash) != (run_id, registered_hash):
        raise BadInputError(
            f"{registration}: version {number} was registered at {known.get('registry', 'another registry')}; version "
            f"{number} at {registry.uri} is another one; {remedy}"
        )
    return version


def check_holdout(version: Version, holdout: FrozenHoldout, line: str) -> None:
    """Whether a version was made with this holdout; otherwise it may have been trained on its images.

    Raises:
        BadInputError: It was made with another one, or its labels have changed since.
    """
    if version.holdout_id != holdout.id:
        raise BadInputError(
            f"version {version.number} of {line} was made with holdout {version.holdout_id[:12] or 'unknown'}, and "
            f"the frozen holdout is {holdout.id[:12]} now, whose images it may have been trained on; train and "
            f"register anew: dvc repro promote@{line}"
        )
    if version.holdout_labels and version.holdout_labels != holdout.labels_id:
        raise BadInputError(
            f"version {version.number} of {line} was registered with other labels of holdout {holdout.id[:12]}; "
            f"evaluate and register anew: dvc repro promote@{line}"
        )


def judge(
    registry: Registry,
    version: Version,
    settings: PromoteSettings,
    paths: LinePaths,
    seed: int,
    *,
    rows: pd.DataFrame,
    holdout: FrozenHoldout,
    actor: str,
) -> Record:
    """Hold a version against the champion, and act on it in the registry.

    Args:
        registry: Where both are.
        version: The challenger.
        settings: Margins, limits and mode.
        paths: Where the line's images are.
        seed: Of the bootstrap.
        rows: The frozen holdout, one row an image.
        holdout: The frozen holdout.
        actor: Who decides.

    Returns:
        version, champion_before, outcome (promoted, proposed, refused), promote (what the gate says), reasons, figures,
        holdout_id.

    Raises:
        OvertakenError: Another version became champion while this one was judged.
        CheckFailedError: Records and aliases of the line differ.
        ServiceError: MLflow did not answer, or a version cannot be loaded.
    """
    line = paths.line
    standing = registry.standing(line)
    record: Record = {
        "version": version.number,
        "champion_before": standing.champion,
        "figures": {},
        "holdout_id": holdout.id,
    }
    decided = _decided_already(registry, line, version, standing)
    if decided is not None:
        return record | decided
    if reason := blocked(standing, version):
        return record | {"promote": False, "outcome": "refused", "reasons": [f"Refused: {reason}"]}
    check_holdout(version, holdout, line)

    files = _frozen_files(rows, paths)

    judged: dict[str, str] = {}

    def evidence(of: Version, who: str) -> Evidence:
        with tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
            folder = registry.download_model(of, Path(scratch) / "model")
            judged[who] = model_sha256(folder)
            with PublishedModel(folder, of.model_uri) as model:
                scores = score_files(model, files, f"scoring the {who} of {line}")
        return Evidence(rows["label"].tolist(), scores, model.threshold, holdout.id, kinds=rows["defect"].tolist())

    challenger = evidence(version, "challenger")
    measure = _measure(registry, line, standing)
    if measure is None and (reason := _refused_before(registry, line, version)):
        return record | {"promote": False, "outcome": "refused", "reasons": [f"Refused: {reason}"]}
    champion, remarks = None, []
    if measure is not None:
        champion = evidence(measure, "champion")
        if measure.holdout_id != holdout.id:
            remarks.append(
                f"The champion (version {measure.number}) was made with another holdout and may have been trained on "
                "images of this one, which favours it."
            )
        if standing.champion is None:
            remarks.append(f"No version is in service; version {measure.number}, the last one, was compared with.")
    outcome = decide(challenger, champion, settings, seed)
    record |= {**outcome.to_json(), "reasons": [*outcome.reasons, *remarks]}
    record["model_sha256"] = judged["challenger"]
    name, act = _ACTS[outcome.promote, settings.mode]
    record["outcome"] = name
    act(registry, line, version.number, record, actor, standing)
    return record


def _decided_already(registry: Registry, line: str, version: Version, standing: Standing) -> Record | None:
    """What was decided stands: the command was killed after the decision, or is repeated."""
    if version.number == standing.champion and standing.since is not None:
        entry, outcome = standing.since, "promoted"
    elif standing.proposal is not None and version.number == standing.candidate:
        entry, outcome = standing.proposal, "proposed"
        if entry.champion != standing.champion:
            return None
    else:
        return None
    whole = registry.document(line, entry)
    return {
        "promote": True,
        "outcome": outcome,
        "reasons": list(entry.reasons),
        "champion_before": entry.replaced,
        "figures": whole.get("figures", {}),
        "holdout_id": entry.holdout_id,
    }


def _measure(registry: Registry, line: str, standing: Standing) -> Version | None:
    """The version to compare with: the champion, or the last one where the line was taken out of service."""
    number = standing.champion
    if number is None and standing.since is not None:
        number = standing.since.version if standing.since.version in standing.served else None
    return None if number is None else registry.version(line, number)


def _refused_before(registry: Registry, line: str, version: Version) -> str | None:
    """Why a version may not be a first champion: it did not hold up against one that is gone now."""
    for entry in registry.trail(line).entries:
        if entry.action == "refused" and entry.detector == version.detector_hash and entry.champion is not None:
            return (
                f"this detector was refused against version {entry.champion} at {entry.at}, and nothing is in "
                "service now that it could be held against again; train and register a new version, or put an "
                f"earlier one back in service: morphad rollback {line} --to VERSION --why ..."
            )
    return None


def _frozen_files(rows: pd.DataFrame, paths: LinePaths) -> list[Path]:
    """The files of the holdout, after making sure that they hold what was frozen.

    Raises:
        BadInputError: A file is missing or holds other bytes.
    """
    pictures = paths.pictures
    files = [pictures.image(str(row.path), str(row.sha256)) for row in rows[["path", "sha256"]].itertuples()]
    for file, digest in zip(files, rows["sha256"], strict=True):
        try:
            same = sha256_file(file) == digest
        except OSError as error:
            raise BadInputError(f"{file}: {error.strerror or error} {pictures.remedy}") from error
        if not same:
            raise BadInputError(f"{file}: not the image that was frozen in the holdout, {pictures.remedy}")
    return files
