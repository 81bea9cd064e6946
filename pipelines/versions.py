"""Uploaded versions of the compiled pipeline, each named after its content."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from morphad import __version__
from morphad.errors import BadInputError, CheckFailedError
from pipelines.client import AlreadyThereError, Kubeflow, PipelineVersion
from pipelines.compile import render
from pipelines.training import PIPELINE


@dataclass(frozen=True)
class CompiledPipeline:
    """A compiled pipeline on disk.

    Args:
        path: The file.
        sha256: Of the file's bytes.
    """

    path: Path
    sha256: str

    @property
    def version(self) -> str:
        """The name of the version that has this content."""
        return f"{PIPELINE}-{self.sha256[:12]}"


def read_compiled(path: Path, params: Path, cluster: Path) -> CompiledPipeline:
    """The compiled pipeline, which must be what its sources would be compiled to now.

    Raises:
        BadInputError: The file cannot be read, or one of the sources is wrong.
        CheckFailedError: The file is stale.
    """
    remedy = f"run `make compile`, or `python -m pipelines.compile --out {path}` if it is no file of this repository"
    rendered = render(params, cluster)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error
    if content != rendered.encode():
        raise CheckFailedError(
            f"{path}: stale: components, {params}, {cluster} and MORPHAD_IMAGE give another pipeline now; {remedy}"
        )
    return CompiledPipeline(path, hashlib.sha256(content).hexdigest())


def upload(kubeflow: Kubeflow, compiled: CompiledPipeline) -> tuple[PipelineVersion, bool]:
    """Upload a compiled pipeline unless a version has its content; give the version and whether it is new.

    Interrupted at any point, or done by two at once, it can be done again.
    """
    pipeline_id = kubeflow.pipeline_id(PIPELINE)
    if pipeline_id is None:
        try:
            pipeline_id = kubeflow.create_pipeline(PIPELINE, "Inspection models of product lines (morphad)")
        except AlreadyThereError:  # another was faster
            pipeline_id = kubeflow.pipeline_id(PIPELINE)
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


def find_version(kubeflow: Kubeflow, name: str) -> PipelineVersion:
    """An uploaded version.

    Raises:
        BadInputError: There is no such version.
    """
    pipeline_id = kubeflow.pipeline_id(PIPELINE)
    found = None if pipeline_id is None else kubeflow.version(pipeline_id, name)
    if found is None:
        raise BadInputError(
            f"{kubeflow.connection.host}: pipeline {PIPELINE} has no version {name}; run `morphad pipeline upload`, "
            "or name an uploaded version"
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
