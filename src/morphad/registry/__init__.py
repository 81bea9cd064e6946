"""MLflow: runs, versions, aliases, rollback and the audit trail of a line's models.

The only part of morphad that imports mlflow. Nothing here assumes a kind of backend: a local SQLite file, a database or
a tracking server are all the one address `register.tracking_uri`, or MLFLOW_TRACKING_URI in the environment.
"""

from morphad.model.saved import detector_hash
from morphad.registry.decisions import blocked
from morphad.registry.local import NoRegistryError
from morphad.registry.records import Actor, DatasetFacts, Registration, Version, code_revision, model_sha256
from morphad.registry.registry import Registry
from morphad.registry.retention import Pruning, Retention
from morphad.registry.standing import Standing
from morphad.registry.trail import Entry, OvertakenError, Trail

__all__ = [
    "Actor",
    "DatasetFacts",
    "Entry",
    "NoRegistryError",
    "OvertakenError",
    "Pruning",
    "Registration",
    "Registry",
    "Retention",
    "Standing",
    "Trail",
    "Version",
    "blocked",
    "code_revision",
    "detector_hash",
    "model_sha256",
]
