"""A project folder with one line, used by its commands as a person would."""

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from morphad.cli import main
from morphad.registry import Registry
from morphad.settings.reading import load_settings
from morphad.steps.paths import LinePaths
from tiny import TRAIN

VERBS = ("ingest", "validate", "split", "train", "calibrate", "evaluate", "register", "promote")
LINE = "weave"


@dataclass
class Project:
    """A project folder with one line."""

    root: Path

    @property
    def place(self) -> LinePaths:
        return LinePaths.checkout(self.root, LINE)

    @property
    def camera(self) -> Path:
        return self.root / "camera"

    @property
    def registry(self) -> Registry:
        return Registry(load_settings(self.root / "params.yaml").line(LINE).register_)

    def configure(self, **sections: dict[str, Any]) -> None:
        """Write params.yaml; sections of the line over small and fast ones."""
        base: dict[str, dict[str, Any]] = {
            "ingest": {"path": str(self.camera)},
            "train": TRAIN,
            "calibrate": {"false_reject_rate": 0.1},
            "evaluate": {"bootstrap": 100},
            "promote": {"bootstrap": 100, "min_auroc": 0.5},
            "register": {
                "tracking_uri": f"sqlite:///{self.root / 'mlflow.db'}", "timeout_seconds": 1, "retries": 0
            },
        }  # fmt: skip
        own = {name: {**base.get(name, {}), **sections.get(name, {})} for name in {*base, *sections}}
        YAML().dump({"lines": {LINE: own}}, self.root / "params.yaml")

    def run(self, verb: str, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a verb."""
        out, err = io.StringIO(), io.StringIO()
        line = [] if verb in {"summary", "status"} else [LINE]
        with contextlib.chdir(self.root), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*verb.split(), *line, *arguments, "--params", str(self.root / "params.yaml")])
        return code, out.getvalue(), err.getvalue()

    def done(self, *verbs: str) -> None:
        for verb in verbs:
            code, out, err = self.run(verb)
            assert code == 0, out + err


def untimed(said: str) -> str:
    """What a step said, without the seconds that it took."""
    return re.sub(r" \(\d+\.\d s\)\n\Z", "\n", said)


def assert_told(outcome: tuple[int, str, str], code: int, *told: str) -> None:
    """The exit code, and an error of a sentence or two, that starts with the verb and is no traceback."""
    assert outcome[0] == code, outcome
    assert outcome[2].startswith("morphad ")
    assert "Traceback" not in outcome[2]
    for words in told:
        assert words in outcome[2], outcome[2]
