"""Step `promote`: challenger against champion."""

from morphad.base.files import write_json
from morphad.data.manifest import read_manifest, write_manifest
from morphad.data.split.holdout import frozen_rows
from morphad.registry import Registry
from morphad.settings import LineSettings
from morphad.steps.common import Figures, frozen_holdout
from morphad.steps.judging import judge, registered_version
from morphad.steps.paths import LinePaths
from morphad.steps.reference import no_reference


def promote(settings: LineSettings, paths: LinePaths, seed: int, *, actor: str) -> Figures:
    """Hold the challenger against the champion, both scored now on the same frozen holdout, and act on it.

    Both are the registry's versions, with their own code and their own rules of decoding. The data of a version that
    becomes champion become the reference of the data contract.

    Returns:
        The decision: outcome (promoted, proposed, refused), promote (what the gate says), reasons, figures, version. A
        refusal is recorded and returned, not raised.

    Raises:
        BadInputError: Registration, detector, split and holdout do not belong together.
        CheckFailedError: The line's records and MLflow's aliases differ, or somebody else decided in the meantime.
        ServiceError: MLflow did not answer.
    """
    registry = Registry(settings.register_)
    version = registered_version(registry, paths.line, paths.registration, paths.detector)
    frozen = frozen_holdout(paths.holdout)
    rows = frozen_rows(read_manifest(paths.split), frozen, paths.split, paths.line)
    record = judge(registry, version, settings.promote, paths, seed, rows=rows, holdout=frozen, actor=actor)
    _settle(record, paths)
    return record


def _settle(record: Figures, paths: LinePaths) -> None:
    """Write the decision, and before it what follows from it: killed between them, the same call comes here again."""
    if record["outcome"] == "promoted":
        write_manifest(read_manifest(paths.split), paths.reference)
    elif not paths.reference.exists():
        no_reference(paths.reference)  # an output of the stage in dvc.yaml: it is always there
    write_json(paths.decision, record)
