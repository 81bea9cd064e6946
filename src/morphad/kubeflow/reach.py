"""Paths in the settings that tasks read, and whether pods find them."""

from collections.abc import Iterable
from typing import NamedTuple

from morphad.base.errors import BadInputError
from morphad.base.text import has_secret
from morphad.kubeflow.cluster import ClusterSettings, Step
from morphad.settings import LineSettings, ProjectSettings

# The steps after `ingest` that read the line's images.
_OPEN_PICTURES: tuple[Step, ...] = ("validate", "train", "calibrate", "evaluate", "promote")


class TaskPath(NamedTuple):
    """A path outside of artifacts and state.

    Attributes:
        step: The step that reads it.
        key: The setting that names it, within the line.
        path: Of a file or folder, as the setting has it.
    """

    step: Step
    key: str
    path: str


def task_paths(line: LineSettings) -> list[TaskPath]:
    """The files and folders that the steps of a line read where they lie; not what is in a bucket or a package."""
    found = []
    if line.ingest.source in {"folder", "listing"}:
        found.append(TaskPath("ingest", "ingest.path", line.ingest.path))
    if line.ingest.in_place:
        found += [TaskPath(step, "ingest.path", line.ingest.path) for step in _OPEN_PICTURES]
    if line.ingest.verdicts and not _in_a_bucket(line.ingest.verdicts):
        found.append(TaskPath("ingest", "ingest.verdicts", line.ingest.verdicts))
    if line.train.weights not in {"packaged", "none"}:
        found.append(TaskPath("train", "train.weights", line.train.weights))
    return found


def check_lines(project: ProjectSettings, names: Iterable[str], cluster: ClusterSettings) -> None:
    """See that pods find what the settings of lines name.

    Raises:
        BadInputError: A path lies on no volume of the step that reads it; names line, key, path and step.
    """
    for name in names:
        for step, key, path in task_paths(project.line(name)):
            _check(f"lines.{name}.{key} = {path!r}", step, path, cluster)


def check_batch(images: str, root: str, cluster: ClusterSettings) -> None:
    """See that the pods of a batch prediction find its images.

    Args:
        images: A folder, s3://bucket/prefix, or a table of paths.
        root: Where the paths of a table begin; "": the table's folder.
        cluster: What pods get.

    Raises:
        BadInputError: One of the two lies on no volume of the steps that read it, or holds credentials.
    """
    if has_secret(images) or has_secret(root):
        raise BadInputError(
            "images or --root: holds credentials, and everybody who sees the run would see them; leave them out and "
            "give pods the secret of step batch_predict in pipelines/cluster.yaml"
        )
    _check(f"images {images!r}", "batch_plan", images, cluster)
    _check(f"--root {root!r}" if root else f"images {images!r}", "batch_predict", root or images, cluster)


def _check(what: str, step: Step, path: str, cluster: ClusterSettings) -> None:
    volumes = cluster.mounted(step)
    if _in_a_bucket(path) or any(volume.holds(path) for volume in volumes):
        return
    raise BadInputError(
        f"{what}: pods of step {step} have a volume at {', '.join(volume.mount for volume in volumes)} only; give a "
        f"path there, or name its claim under `volumes` and `steps.{step}.volumes` in pipelines/cluster.yaml"
    )


def _in_a_bucket(path: str) -> bool:
    return path.startswith("s3://")
