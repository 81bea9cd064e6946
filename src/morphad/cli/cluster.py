"""The verbs for Kubeflow. Their code is in the project's folder `pipelines/`: morphad itself does not import kfp."""

import importlib
import importlib.util
import sys
from pathlib import Path

from morphad.base.errors import BadInputError

WORDS = {
    "pipeline": "run the pipeline here in containers or processes, or upload, submit and watch it in Kubeflow",
    "schedule": "hold the recurring runs in Kubeflow to pipelines/schedules.yaml",
}


def run(arguments: list[str]) -> int:
    """Hand a command that begins with one of `WORDS` to the project in the current folder; give the exit code.

    Raises:
        BadInputError: The current folder has no pipelines, or kfp is not installed.
    """
    project = Path.cwd()
    if not (project / "pipelines" / "cli.py").is_file():
        raise BadInputError(f"{project}: has no folder pipelines/; run it in the project's folder")
    if importlib.util.find_spec("kfp") is None:
        raise BadInputError("kfp is not installed; install morphad with its extra `kubeflow`")
    if str(project) not in sys.path:
        sys.path.insert(0, str(project))
    face = importlib.import_module("pipelines.cli")
    return int(face.main(arguments))
