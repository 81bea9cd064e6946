"""`python -m pipelines.compile`: render the pipelines that a cluster runs, equal settings to equal bytes."""

import argparse
import sys
import tempfile
from pathlib import Path

from kfp import compiler

from morphad.base.errors import CheckFailedError, MorphadError
from morphad.base.files import write_text
from morphad.settings.reading import load_settings
from pipelines import prediction, training
from pipelines.cluster import CLUSTER_FILE, load_cluster

HEADER = "# Rendered from components/, pipelines/ and params.yaml: change those, then run `make compile`.\n"
TRAINING, BATCH = "training", "batch-predict"
PIPELINES = {TRAINING: training.training_pipeline, BATCH: prediction.prediction_pipeline}
NAMES = {TRAINING: training.PIPELINE, BATCH: prediction.PIPELINE}  # in Kubeflow
FOLDER = Path(__file__).with_name("compiled")


def main(arguments: list[str] | None = None) -> int:
    """Compile, or check that what is compiled is still true; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.compile", description=__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="lines and settings")
    parser.add_argument("--cluster", type=Path, default=CLUSTER_FILE, metavar="FILE", help="what pods get")
    parser.add_argument("--pipeline", choices=PIPELINES, default=TRAINING, help="the one that --out is for")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"only this pipeline; default: all of them to {FOLDER}"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file is stale")
    options = parser.parse_args(arguments)
    files = {options.pipeline: options.out} if options.out else {name: FOLDER / f"{name}.yaml" for name in PIPELINES}
    try:
        for name, file in files.items():
            rendered = render(options.params, options.cluster, name)
            if not options.check:
                write_text(file, rendered)
            elif not file.exists() or file.read_text(encoding="utf-8") != rendered:
                raise CheckFailedError(f"{file}: stale; run `make compile` and commit it")
    except MorphadError as error:
        print(f"compile: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def render(params: Path, cluster: Path, name: str) -> str:
    """A pipeline as YAML: the pipeline spec and the Kubernetes platform spec.

    Args:
        params: File of lines and settings.
        cluster: File of what pods get.
        name: Which, one of `PIPELINES`.

    Raises:
        BadInputError: One of the two files is wrong.
    """
    pipeline = PIPELINES[name](load_cluster(cluster), load_settings(params))
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(package))
        text = package.read_text(encoding="utf-8")
    # kfp begins with a comment that lists the defaults, in another order each time.
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    return HEADER + body


if __name__ == "__main__":
    sys.exit(main())
