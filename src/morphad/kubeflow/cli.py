"""The verbs of `morphad pipeline` and `morphad schedule`."""

from morphad.base.verbs import Parser, Verbs
from morphad.kubeflow import again, compiling, inspecting, remote, run, schedule


def main(arguments: list[str]) -> int:
    """Run one command and give the exit code: 0 done, 1 a check said no, 2 wrong use or bad input, 3 no service.

    Args:
        arguments: The words after `morphad`, the first `pipeline` or `schedule`.

    Raises:
        MorphadError: What went wrong and what to do, for the command line to show.
    """
    options = _parser().parse_args(arguments)
    return int(options.verb(options) or 0)


def _parser() -> Parser:
    parser = Parser(prog="morphad", description=__doc__)
    groups = Verbs(parser)
    # A module with verbs has one function, add_verbs; what it imports beside kfp waits until the verb runs.
    pipeline = groups.group("pipeline", "the pipelines, on this machine or in Kubeflow", "run --lines pv-mono")
    for module in (run, compiling, remote, inspecting, again):
        module.add_verbs(pipeline)
    schedule.add_verbs(groups.group("schedule", "the recurring runs in Kubeflow", "plan"))
    return parser
