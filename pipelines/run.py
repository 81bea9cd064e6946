"""`python -m pipelines.run`: the training pipeline on this machine, each task a process of this environment.

It is no verb of `morphad` because that package does not import kfp.
"""

import argparse
import sys
import warnings
from pathlib import Path

from kfp import local

from morphad.errors import MorphadError
from morphad.settings import load_settings
from pipelines.cluster import CLUSTER_FILE, load_cluster
from pipelines.training import line_items, training_pipeline


def main(arguments: list[str] | None = None) -> int:
    """Run the pipeline and give the exit code: 0 when every line came to its end, 1 when one did not."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.run", description=__doc__)
    parser.add_argument("--runner", choices=("subprocess",), default="subprocess", help="how tasks are run")
    parser.add_argument("--lines", metavar="a,b", help="only these lines of the settings")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="lines and settings")
    parser.add_argument("--cluster", type=Path, default=CLUSTER_FILE, metavar="FILE", help="what pods get")
    parser.add_argument("--out", type=Path, default=Path("pipeline-runs"), metavar="FOLDER", help="artifacts of runs")
    parser.add_argument("--state", type=Path, default=None, metavar="FOLDER", help="lasting state; default: OUT/state")
    options = parser.parse_args(arguments)
    try:
        project = load_settings(options.params)
        lines = line_items(project, options.lines.split(",") if options.lines else None)
        pipeline = training_pipeline(load_cluster(options.cluster).for_one_machine(), project)
    except MorphadError as error:
        print(f"run: {error}", file=sys.stderr)
        return error.exit_code
    state = options.state or options.out / "state"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that limits of pods have no effect here
        local.init(
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=str(options.out.resolve()),
            enable_caching=False,
        )
        try:
            pipeline(lines=lines, seed=project.seed, state_root=str(state.resolve()))
        except RuntimeError as error:  # what kfp.local raises when a task failed
            print(f"run: {error}\nThe table above says how each line ended.", file=sys.stderr)
            return 1
    print(f"Every step's outputs are in the newest folder under {options.out}; iteration 0 is {lines[0]['line']}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
