"""Experiments that DVC runs aside, in a folder that it deletes afterwards: `dvc exp run --temp` and `--queue`.

Several may run at once, of settings that are only tried. They must not change which version serves, so they go as far
as `evaluate`; `register` and `promote` write what DVC waits for, and say that nothing was registered. Who wants one of
them brings it into the project (`dvc exp apply`) and runs `dvc repro`, which registers it and lets the gate decide.
"""

import os
from pathlib import Path

from morphad.base.files import write_json
from morphad.data.manifest import read_manifest, write_manifest
from morphad.steps.paths import LinePaths


def aside() -> bool:
    """Whether this process is a step of such an experiment: DVC names the project, and the folder is another one."""
    project = os.environ.get("DVC_ROOT", "")
    return bool(project) and Path.cwd().is_relative_to(Path(project).resolve() / ".dvc" / "tmp" / "exps")


def leave_unregistered(place: LinePaths) -> str:
    """Write a registration that names no version; say so."""
    write_json(place.registration, {"version": None, "experiment": _name()})
    return f"not registered: {_in_words()}"


def leave_undecided(place: LinePaths) -> str:
    """Write a decision that promotes nothing; say so."""
    if not place.reference.exists():  # an output of the stage: it is always there
        write_manifest(read_manifest(place.split).iloc[:0], place.reference)
    sentence = f"Not decided: {_in_words()}"
    write_json(place.decision, {"promote": False, "version": None, "experiment": _name(), "reasons": [sentence]})
    return sentence


def _name() -> str:
    return os.environ.get("DVC_EXP_NAME", "")


def _in_words() -> str:
    name = _name() or "NAME"
    return (
        f"experiment {name} ran aside, and no version comes of it; `dvc exp apply {name}`, then `dvc repro` has it "
        "registered and decided on"
    )
