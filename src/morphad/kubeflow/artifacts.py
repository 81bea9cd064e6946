"""What runs left in Kubeflow's artifact store, read straight from its bucket where Kubeflow's API has it no longer."""

import os
from collections.abc import Iterator

from morphad.base.text import masked
from morphad.kubeflow.compiling import NAMES
from morphad.kubeflow.nodes import Pod
from morphad.kubeflow.records import Run

VARIABLE = "KFP_ARTIFACTS"

_ROOT = "v2/artifacts"  # of Kubeflow's own manifests
_MOST_BYTES = 50_000_000


class ArtifactStore:
    """The bucket of Kubeflow's artifacts; the environment's AWS_* lead there.

    Args:
        url: s3://bucket, or s3://bucket/root where the pipelines' root is another than v2/artifacts.
        namespace: Of the profile, which newer versions of Kubeflow have in the keys.

    Raises:
        BadInputError: It is no such address, or there are no credentials.
    """

    def __init__(self, url: str, namespace: str | None) -> None:
        from morphad.data.source.s3 import Bucket, prefix_of, split_url  # noqa: PLC0415 - boto3 takes half a second

        name, root = split_url(url)
        self._bucket = Bucket(name, patience_seconds=20)
        private = f"private-artifacts/{namespace or 'kubeflow'}/"
        self._roots = (prefix_of(root),) if root.strip("/") else (f"{_ROOT}/", f"{private}{_ROOT}/")
        self._logs = ("artifacts/", private)

    def table(self, run: Run, pipeline: str) -> str | None:
        """The table of step `notify`; None: there is none."""
        return next(self._ending(run, pipeline, "notify", "/summary"), None)

    def log(self, run: Run, pipeline: str, step: str, workflow: str, pod: Pod) -> str | None:
        """What a pod wrote; None: nothing is there.

        Argo keeps logs under the pod's name. Kubeflow's launcher keeps that of a step under the step's: with several
        lines in a run nobody knows whose it is, so it counts only where there is one.
        """
        for prefix in self._logs:
            for found in self._bucket.list(f"{prefix}{workflow}/"):
                if found.key.endswith(tuple(f"/{name}/main.log" for name in pod.names)):
                    return self._text(found.key)
        logs = list(self._ending(run, pipeline, step, "/executor-logs"))
        return logs[0] if len(logs) == 1 else None

    def _ending(self, run: Run, pipeline: str, step: str, end: str) -> Iterator[str]:
        for root in self._roots:
            for found in self._bucket.list(f"{root}{NAMES[pipeline]}/{run.id}/{step}/"):
                if found.key.endswith(end):
                    yield self._text(found.key)

    def _text(self, key: str) -> str:
        return masked(self._bucket.read(key, _MOST_BYTES).decode(errors="replace"))


def open_store(url: str | None, namespace: str | None) -> ArtifactStore | None:
    """The artifact store that a verb's option or the environment's KFP_ARTIFACTS names; None: neither does."""
    url = url or os.environ.get(VARIABLE) or None
    return None if url is None else ArtifactStore(url, namespace)
