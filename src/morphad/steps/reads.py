"""Which settings each step reads: the one table behind dvc.yaml, and behind what a pipeline's run does anew.

DVC watches a parameter only where params.yaml writes it, and most settings stand nowhere: they come from a preset or a
default. So `morphad settings LINE` writes what each step would read now, a file a step, and a step's stage depends on
its file: it runs again when the value that it would get changes, wherever that comes from.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from morphad.base.files import remove_leftovers, write_json
from morphad.base.text import masked_settings
from morphad.settings import LineSettings
from morphad.settings.line_json import picked
from morphad.steps.paths import LinePaths

_DECODING = ("ingest.max_megapixels", "ingest.white_level")
_MADE_BY = ("ingest", "validate", "split", "train", "calibrate", "evaluate")  # what a detector and its figures are from

# Sections, single settings, or the seed.
READS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ingest": ("ingest",),
        "validate": ("validate", "split.calibration", "calibrate.false_reject_rate", *_DECODING),
        "split": ("seed", "split"),
        "train": ("seed", "train", *_DECODING),
        "calibrate": ("calibrate", *_DECODING),
        "evaluate": ("seed", *_MADE_BY),
        "register": ("seed", *_MADE_BY, "register", "promote"),
        "promote": ("seed", "register", "promote"),
    }
)


def read_by(step: str, settings: LineSettings, seed: int) -> dict[str, Any]:
    """The settings that a step reads, by name, with every password masked."""
    values = {"seed": seed, **picked(settings, READS[step])}
    masked: dict[str, Any] = masked_settings({name: values[name] for name in READS[step]})
    return masked


def write_settings(settings: LineSettings, paths: LinePaths, seed: int) -> None:
    """Write what each step reads to a file of the step's name in `paths.settings`."""
    for step in READS:
        file = paths.settings / f"{step}.json"
        remove_leftovers(file)
        write_json(file, read_by(step, settings, seed))
