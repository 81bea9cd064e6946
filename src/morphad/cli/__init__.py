"""`morphad VERB`: a thin face of the steps. Heavy imports wait until a verb needs them."""

import argparse
import os
import sys

from morphad import __version__
from morphad.base.errors import MorphadError
from morphad.base.verbs import Parser, Verbs
from morphad.cli import (
    bucket,
    check,
    cluster,
    data_versions,
    decisions,
    history,
    papers,
    regions,
    results,
    start,
    steps,
)

EPILOG = """\
The steps of a line, in order: ingest, validate, split, train, calibrate, evaluate, register, promote.
`dvc repro` runs those that are needed, for every line of params.yaml.

exit codes: 0 done, 1 a gate or check said no, 2 wrong use or bad input, 3 a service did not answer
"""


# Packages that come with an extra, and with which.
EXTRAS = {
    **dict.fromkeys(
        ("boto3", "botocore", "contourpy", "great_expectations", "matplotlib", "mlflow", "sklearn"), "pipeline"
    ),
    **dict.fromkeys(("docker", "kfp", "kfp_server_api", "psutil"), "kubeflow"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and give the exit code."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()  # here, because at the interpreter's end it is too late to catch what it raises
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    try:
        if name in cluster.WORDS:
            return cluster.run(arguments)
        options = _parser().parse_args(arguments)
        name = options.name
        return int(options.verb(options) or 0)
    except MorphadError as error:
        print(f"morphad {name}: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f'morphad {name}: needs {error.name}; run: pip install "morphad[{extra}]"', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"morphad {name}: interrupted; run it again to go on", file=sys.stderr)
        return 130


def _parser() -> Parser:
    parser = Parser(
        prog="morphad",
        description="From a folder of good pictures to a promoted, explainable inspection model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"morphad {__version__}")
    verbs = Verbs(parser)
    for module in (start, regions, steps, results, decisions, history, papers, check, data_versions, bucket):
        module.add_verbs(verbs)
    for word, about in cluster.WORDS.items():
        verbs.list_only(word, about)
    return parser
