"""Files of the project that say what Kubeflow gets, and the packaged ones where it has none."""

from importlib.resources import files
from pathlib import Path

COMPILED = Path("pipelines") / "compiled"


def project_file(name: str) -> Path:
    """pipelines/NAME of the project in the current folder, else the packaged one."""
    own = Path("pipelines") / name
    return own if own.is_file() else Path(str(files("pipelines"))) / name
