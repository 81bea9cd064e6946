"""`morphad pipeline compile`: render the pipelines that a cluster runs, equal settings to equal bytes."""

import argparse
import tempfile
from pathlib import Path

from kfp import compiler

from morphad.base.errors import CheckFailedError
from morphad.base.files import write_text
from morphad.base.verbs import Verbs
from morphad.kubeflow.cluster import load_cluster
from morphad.kubeflow.project import COMPILED, project_file
from pipelines import prediction, training

HEADER = "# Rendered from components/ and pipelines/: change those, then run `morphad pipeline compile`.\n"
TRAINING, BATCH = "training", "batch-predict"
PIPELINES = {TRAINING: training.training_pipeline, BATCH: prediction.prediction_pipeline}
NAMES = {TRAINING: training.PIPELINE, BATCH: prediction.PIPELINE}  # in Kubeflow


def add_verbs(verbs: Verbs) -> None:
    """Add `pipeline compile`."""
    parser = verbs.add("compile", _compile, "render the pipelines that a cluster runs", "--check")
    parser.add_argument(
        "--cluster", type=Path, default=project_file("cluster.yaml"), metavar="FILE", help="what pods get"
    )
    parser.add_argument("--pipeline", choices=PIPELINES, default=TRAINING, help="the one that --out is for")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"only this pipeline; default: all of them to {COMPILED}"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file is stale")


def _compile(options: argparse.Namespace) -> None:
    files = {options.pipeline: options.out} if options.out else {name: COMPILED / f"{name}.yaml" for name in PIPELINES}
    for name, file in files.items():
        rendered = render(options.cluster, name)
        if not options.check:
            write_text(file, rendered)
        elif not file.exists() or file.read_text(encoding="utf-8") != rendered:
            raise CheckFailedError(f"{file}: stale; run `morphad pipeline compile` and commit it")


def render(cluster: Path, name: str) -> str:
    """A pipeline as YAML: the pipeline spec and the Kubernetes platform spec. It holds no line: a run brings them.

    Args:
        cluster: File of what pods get.
        name: Which, one of `PIPELINES`.

    Raises:
        BadInputError: The file is wrong.
    """
    pipeline = PIPELINES[name](load_cluster(cluster))
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(package))
        text = package.read_text(encoding="utf-8")
    # kfp begins with a comment that lists the defaults, in another order each time.
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    return HEADER + body
