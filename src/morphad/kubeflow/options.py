"""What the verbs that talk to Kubeflow share: their options, and the way there."""

import argparse
from pathlib import Path

from morphad.base.verbs import Verb, Verbs
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.connection import HOST_VARIABLE, NAMESPACE_VARIABLE, TOKEN_VARIABLE, Connection
from morphad.kubeflow.project import COMPILED, project_file
from morphad.kubeflow.uploads import CompiledPipeline, read_compiled


def add_remote(verbs: Verbs, name: str, verb: Verb, about: str, example: str) -> argparse.ArgumentParser:
    """Add a verb that talks to Kubeflow."""
    parser = verbs.add(name, verb, about, example)
    parser.epilog = (
        f"{parser.epilog}\n\nA token, if Kubeflow wants one, is taken from the environment's {TOKEN_VARIABLE}."
    )
    parser.add_argument("--host", metavar="URL", help=f"Kubeflow Pipelines' API; default: {HOST_VARIABLE}")
    parser.add_argument("--namespace", metavar="NAME", help=f"of your profile; default: {NAMESPACE_VARIABLE}, or none")
    return parser


def add_sources(parser: argparse.ArgumentParser, lines: bool = True) -> None:
    """Give a verb the options for its compiled pipeline, what that is compiled from, and a run's lines.

    `pipeline` says which one it is.
    """
    if lines:
        params = Path("params.yaml")
        parser.add_argument("--params", type=Path, default=params, metavar="FILE", help="lines and settings")
    parser.add_argument(
        "--cluster", type=Path, default=project_file("cluster.yaml"), metavar="FILE", help="what pods get"
    )
    parser.add_argument(
        "--compiled", type=Path, metavar="FILE", help="the compiled pipeline; default: in pipelines/compiled"
    )


def open_kubeflow(options: argparse.Namespace) -> Kubeflow:
    """Connect to the Kubeflow that a verb's options name."""
    return Kubeflow(Connection(options.host, options.namespace))


def open_compiled(options: argparse.Namespace) -> CompiledPipeline:
    """The compiled pipeline that a verb's options name; it must not be stale."""
    path = options.compiled or COMPILED / f"{options.pipeline}.yaml"
    return read_compiled(options.pipeline, path, options.cluster)
