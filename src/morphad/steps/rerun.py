"""What a run of a line has to do: nothing, where nothing is new since the last decision, or what is new alone.

A decision rests on the images with their roles and on the settings that the steps read. All of it is kept as hashes in
the line's state when the gate has decided. A run that finds the same ends after `split`. Otherwise each step that
Kubeflow caches gets the hash of the roles and its own part of the settings: what did not change has the same inputs as
before, and its result is there already. `READS` says what a step reads, here as for DVC.
"""

import shutil
from pathlib import Path
from typing import Any

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.files import atomic_directory, read_json, sha256_file, sha256_json, write_json
from morphad.settings import LineSettings
from morphad.settings.line_json import line_to_json
from morphad.steps.common import Figures
from morphad.steps.paths import ROLES, LinePaths
from morphad.steps.reads import READS, read_by

Inputs = dict[str, Any]


def part_of(step: str, settings: LineSettings) -> str:
    """The settings that a step reads, as `line_from_json` takes them; all others read as their defaults."""
    return line_to_json(settings, READS[step])


def keep_roles(roles: Path, paths: LinePaths) -> str:
    """Put what `split` made where later steps of the run read it, and give its hash.

    Args:
        roles: Folder of the files of `ROLES`.
        paths: Of the line. Only these roles are kept: one run of a line at a time is at work.
    """
    digest = sha256_json({name: sha256_file(roles / name) for name in ROLES.values()})[:32]
    place = paths.roles / digest
    if not place.is_dir():
        with atomic_directory(place) as folder:
            for name in ROLES.values():
                shutil.copyfile(roles / name, folder / name)
    for other in paths.roles.iterdir():
        if other != place:
            shutil.rmtree(other, ignore_errors=True)
    return digest


def inputs_of(settings: LineSettings, seed: int, *, data: str, roles: str) -> Inputs:
    """What a decision rests on: hashes of the data, of the roles, and of the settings that each step reads."""
    steps = {step: sha256_json(read_by(step, settings, seed)) for step in READS}
    return {"data": data, "roles": roles, "settings": steps}


def keep_decision(paths: LinePaths, decided: Figures, inputs: Inputs, run: str) -> None:
    """Keep what the gate decided, and on what it rests, for the line's next run."""
    champion = decided["version"] if decided["outcome"] == "promoted" else decided["champion_before"]
    known = {"version": decided["version"], "outcome": decided["outcome"], "champion": champion, "run": run}
    write_json(paths.judged, {**known, "inputs": inputs})


def nothing_new(settings: LineSettings, paths: LinePaths, inputs: Inputs) -> str | None:
    """That nothing is new since the last decision, in words; None: there is something to do.

    The registry is asked, because people decide there too. Where it does not know the version that was judged, there is
    all to do; where it does not answer, the last run's record holds.
    """
    if not paths.judged.exists():
        return None
    try:
        known = read_json(paths.judged)
        if known["inputs"] != inputs:
            return None
        version, outcome, champion = int(known["version"]), str(known["outcome"]), known["champion"]
    except (BadInputError, KeyError, TypeError, ValueError):  # of another version of morphad, or damaged
        return None
    from morphad.registry import Registry  # noqa: PLC0415 - mlflow takes seconds, and most runs have something to do

    registry, waits = Registry(settings.register_), outcome == "proposed"
    try:
        registry.version(paths.line, version)
        standing = registry.standing(paths.line)
        champion, waits, when = standing.champion, standing.candidate == version, ""
    except BadInputError:  # no such version, or no registry
        return None
    except ServiceError:
        when = " (when it was judged: the registry does not answer now)"
    stays = "no version is in service" if champion is None else f"version {champion} stays"
    if version != champion:
        what = "awaits approval" if waits else "was refused" if outcome == "refused" else "is not in service"
        stays = f"{stays}, version {version} {what}"
    return f"unchanged: {stays}{when}"
