"""Uploaded versions of the compiled pipeline, each named after its content."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from morphad import __version__
from morphad.base.errors import BadInputError, CheckFailedError
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.compiling import NAMES, render
from morphad.kubeflow.connection import AlreadyThereError
from morphad.kubeflow.records import PipelineVersion


@dataclass(frozen=True)
class CompiledPipeline:
    """A compiled pipeline on disk.

    Args:
        pipeline: Which, one of `compile.PIPELINES`.
        path: The file.
        sha256: Of the file's bytes.
    """

    pipeline: str
    path: Path
    sha256: str

    @property
    def version(self) -> str:
        """The name of the version that has this content."""
        return f"{NAMES[self.pipeline]}-{self.sha256[:12]}"


def read_compiled(pipeline: str, path: Path, cluster: Path) -> CompiledPipeline:
    """The compiled pipeline, which must be what its sources would be compiled to now.

    Args:
        pipeline: Which it is to be, one of `compile.PIPELINES`.
        path: The file.
        cluster: File of what pods get.

    Raises:
        BadInputError: The file cannot be read, is another pipeline, or one of the sources is wrong.
        CheckFailedError: The file is stale.
    """
    remedy = (
        f"run `morphad pipeline compile`, or `morphad pipeline compile --pipeline {pipeline} --out {path}` if it is "
        "elsewhere"
    )
    rendered = render(cluster, pipeline)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error
    for other, name in NAMES.items():
        if other != pipeline and f"\n  name: {name}\n".encode() in content:
            raise BadInputError(f"{path}: is the pipeline {other}, expected {pipeline}")
    if content != rendered.encode():
        raise CheckFailedError(
            f"{path}: stale: components, {cluster} and MORPHAD_IMAGE give another pipeline now; {remedy}"
        )
    return CompiledPipeline(pipeline, path, hashlib.sha256(content).hexdigest())


def upload(kubeflow: Kubeflow, compiled: CompiledPipeline) -> tuple[PipelineVersion, bool]:
    """Upload a compiled pipeline unless a version has its content; give the version and whether it is new.

    Interrupted at any point, or done by two at once, it can be done again.
    """
    name = NAMES[compiled.pipeline]
    pipeline_id = kubeflow.pipeline_id(name)
    if pipeline_id is None:
        try:
            pipeline_id = kubeflow.create_pipeline(name, "Inspection models of product lines (morphad)")
        except AlreadyThereError:  # another was faster
            pipeline_id = kubeflow.pipeline_id(name)
            if pipeline_id is None:
                raise
    found = kubeflow.version(pipeline_id, compiled.version)
    if found is not None:
        return found, False
    description = f"morphad {__version__}, sha256 {compiled.sha256}"
    try:
        return kubeflow.upload_version(pipeline_id, compiled.version, compiled.path, description), True
    except AlreadyThereError:
        found = kubeflow.version(pipeline_id, compiled.version)
        if found is None:
            raise
        return found, False


def find_version(kubeflow: Kubeflow, pipeline: str, name: str) -> PipelineVersion:
    """An uploaded version of a pipeline.

    Args:
        kubeflow: Where.
        pipeline: Of which, one of `compile.PIPELINES`.
        name: The version's.

    Raises:
        BadInputError: There is no such version.
    """
    pipeline_id = kubeflow.pipeline_id(NAMES[pipeline])
    found = None if pipeline_id is None else kubeflow.version(pipeline_id, name)
    if found is None:
        raise BadInputError(
            f"{kubeflow.connection.host}: pipeline {NAMES[pipeline]} has no version {name}; run `morphad pipeline "
            f"upload --pipeline {pipeline}`, or name an uploaded version"
        )
    return found


def make_experiment(kubeflow: Kubeflow, name: str) -> str:
    """The identifier of an experiment, which is made if it is not there."""
    found = kubeflow.experiment_id(name)
    if found is not None:
        return found
    try:
        return kubeflow.create_experiment(name)
    except AlreadyThereError:  # another was faster
        found = kubeflow.experiment_id(name)
        if found is None:
            raise
        return found
