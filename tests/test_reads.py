"""The table of what each step reads is what each step reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from morphad.settings import LineSettings
from morphad.settings.line_json import line_from_json
from morphad.settings.reading import resolve
from morphad.steps.calibrate import calibrate
from morphad.steps.evaluate import evaluate
from morphad.steps.ingest import ingest
from morphad.steps.paths import LinePaths
from morphad.steps.promote import promote
from morphad.steps.reads import READS, read_by, write_settings
from morphad.steps.register import register
from morphad.steps.rerun import inputs_of, part_of
from morphad.steps.split import split
from morphad.steps.train import train
from morphad.steps.validate import validate
from tiny import TRAIN

REPO = Path(__file__).resolve().parents[1]
STEPS: dict[str, Callable[..., Any]] = {
    "ingest": ingest, "validate": validate, "split": split, "train": train, "calibrate": calibrate,
    "evaluate": evaluate, "register": register, "promote": promote,
}  # fmt: skip


class Watched:
    """Settings that note what is read of them, by the names of params.yaml."""

    def __init__(self, settings: BaseModel, noted: set[str], place: str = "") -> None:
        self._settings, self._noted, self._place = settings, noted, place

    def __getattr__(self, name: str) -> Any:
        field = type(self._settings).model_fields.get(name)
        value = getattr(self._settings, name)
        if field is None:  # a method or a property: it may read all
            if name == "decoding":
                self._noted |= {"ingest.max_megapixels", "ingest.white_level"}
            else:
                self._noted.add(self._place or "everything")
            return value
        place = ".".join(filter(None, (self._place, field.alias or name)))
        if isinstance(value, BaseModel):
            return Watched(value, self._noted, place)
        self._noted.add(place)
        return value


def covered(name: str, table: tuple[str, ...]) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in table)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, make_set: Callable[..., Path]) -> LineSettings:
    root = tmp_path_factory.mktemp("reads")
    line = {
        "ingest": {"path": str(make_set(root / "camera", good=40, test_good=4, defects=4))},
        "train": TRAIN,
        "calibrate": {"false_reject_rate": 0.2},
        "evaluate": {"bootstrap": 100},
        "promote": {"bootstrap": 100, "min_auroc": 0.5},
        "register": {"tracking_uri": f"sqlite:///{root / 'mlflow.db'}"},
    }
    return resolve({"lines": {"weave": line}}).line("weave")


def test_every_step_reads_what_the_table_says(settings: LineSettings, tmp_path: Path) -> None:
    paths = LinePaths.checkout(tmp_path, "weave")
    for name, step in STEPS.items():
        noted: set[str] = set()
        more = {"actor": "test"} if name == "promote" else {}
        step(Watched(settings, noted), paths, 0, **more)
        table = READS[name]
        if "everything" in noted:
            whole = {field.alias or key for key, field in LineSettings.model_fields.items()}
            assert whole <= set(table), name
            noted.discard("everything")
        assert {key for key in noted if not covered(key, table)} == set(), name


def test_a_setting_changes_the_files_of_the_steps_that_read_it(settings: LineSettings, tmp_path: Path) -> None:
    paths = LinePaths.checkout(tmp_path, "weave")

    def written(line: LineSettings, seed: int = 0) -> dict[str, str]:
        write_settings(line, paths, seed)
        return {file.stem: file.read_text() for file in paths.settings.iterdir()}

    def changed(section: str, **values: Any) -> set[str]:
        part = getattr(settings, section)
        after = written(settings.model_copy(update={section: part.model_copy(update=values)}))
        return {step for step, text in after.items() if text != before[step]}

    before = written(settings)
    assert set(before) == set(STEPS)
    assert changed("calibrate", false_reject_rate=0.1) == {"validate", "calibrate", "evaluate", "register"}
    assert changed("promote", max_escape=0.1) == {"register", "promote"}
    assert changed("ingest", white_level=4095) == {"ingest", "validate", "train", "calibrate", "evaluate", "register"}
    assert {step for step, text in written(settings, seed=1).items() if text != before[step]} == {
        "split", "train", "evaluate", "register", "promote"
    }  # fmt: skip


def test_a_step_in_a_pod_gets_other_settings_when_its_file_would_change(settings: LineSettings) -> None:
    """So Kubeflow's cache misses where DVC would run a step again, and hits elsewhere."""

    def both(line: LineSettings) -> list[tuple[str, Any, str]]:
        return [(step, read_by(step, line, 0), part_of(step, line)) for step in ("train", "calibrate", "evaluate")]

    changes: list[tuple[str, dict[str, Any]]] = [
        ("ingest", {"path": "elsewhere"}), ("ingest", {"white_level": 4095}), ("ingest", {"max_rejects": 3}),
        ("validate_", {"min_good": 7}), ("split", {"holdout": 0.3}), ("train", {"backbone_rate": 0.2}),
        ("calibrate", {"confidence": 0.8}), ("evaluate", {"bootstrap": 123}),
        ("register_", {"experiment": "other"}), ("promote", {"max_escape": 0.1}),
    ]  # fmt: skip
    for section, values in changes:
        part = getattr(settings, section)
        after = settings.model_copy(update={section: part.model_copy(update=values)})
        for (step, file, text), (_, other_file, other_text) in zip(both(settings), both(after), strict=True):
            assert (file == other_file) == (text == other_text), (step, section, values)


def test_a_pod_reads_the_same_of_its_part_as_of_all_settings(settings: LineSettings) -> None:
    for step in ("train", "calibrate", "evaluate"):
        assert read_by(step, line_from_json(part_of(step, settings)), 0) == read_by(step, settings, 0)


def test_what_a_decision_rests_on_names_the_steps_that_dvc_has(settings: LineSettings) -> None:
    stages = YAML(typ="safe").load(REPO / "dvc.yaml")["stages"]
    inputs = inputs_of(settings, 0, data="d", roles="r")
    assert set(inputs["settings"]) == set(stages) - {"settings"}
    assert inputs_of(settings, 0, data="d", roles="r") == inputs
    for other in (
        inputs_of(settings, 1, data="d", roles="r"), inputs_of(settings, 0, data="e", roles="r"),
        inputs_of(settings, 0, data="d", roles="s"),
    ):  # fmt: skip
        assert other != inputs


def test_dvc_watches_the_file_of_every_step() -> None:
    stages = YAML(typ="safe").load(REPO / "dvc.yaml")["stages"]
    assert set(stages) == {"settings", *STEPS}
    for name in STEPS:
        assert f"data/${{key}}/settings/{name}.json" in stages[name]["do"]["deps"]
        assert "params" not in stages[name]["do"]
