"""MLflow: runs, versions, aliases, rollback and the audit trail of a line's models.

The only part of morphad that imports mlflow. Nothing here assumes a kind of backend: a local SQLite file, a database or
a tracking server are all the one address `register.tracking_uri`, or MLFLOW_TRACKING_URI in the environment.
"""

from morphad.registry.records import DatasetFacts, Registration, Version, code_revision, detector_hash
from morphad.registry.registry import Registry

__all__ = ["DatasetFacts", "Registration", "Registry", "Version", "code_revision", "detector_hash"]
