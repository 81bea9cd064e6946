"""Whether a run of a line has anything to do: what the last decision rests on, and what the registry says."""

from pathlib import Path
from typing import Any

import pytest

from morphad.settings import LineSettings
from morphad.settings.reading import resolve
from morphad.steps.paths import ROLES, LinePaths
from morphad.steps.rerun import inputs_of, keep_decision, keep_roles, nothing_new

PROMOTED = {"version": 7, "outcome": "promoted", "champion_before": 6}


@pytest.fixture
def paths(tmp_path: Path) -> LinePaths:
    return LinePaths.pod("weave", str(tmp_path / "state"))


def line(**register: Any) -> LineSettings:
    quick = {"timeout_seconds": 1, "retries": 0, **register}
    return resolve({"lines": {"weave": {"ingest": {"path": "camera"}, "register": quick}}}).line("weave")


def silent() -> LineSettings:
    """A line whose registry does not answer."""
    return line(tracking_uri="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("decided", "told"),
    [
        (PROMOTED, "unchanged: version 7 stays"),
        ({**PROMOTED, "outcome": "refused"}, "unchanged: version 6 stays, version 7 was refused"),
        ({**PROMOTED, "outcome": "proposed"}, "unchanged: version 6 stays, version 7 awaits approval"),
        (
            {**PROMOTED, "outcome": "refused", "champion_before": None},
            "unchanged: no version is in service, version 7 was refused",
        ),
    ],
)
def test_without_an_answer_of_the_registry_the_last_record_holds(
    paths: LinePaths, decided: dict[str, Any], told: str
) -> None:
    inputs = inputs_of(silent(), 0, data="d", roles="r")
    assert nothing_new(silent(), paths, inputs) is None
    keep_decision(paths, decided, inputs, "r1")
    assert nothing_new(silent(), paths, inputs) == f"{told} (when it was judged: the registry does not answer now)"
    assert nothing_new(silent(), paths, inputs_of(silent(), 0, data="d", roles="other")) is None
    assert nothing_new(silent(), paths, inputs_of(silent(), 1, data="d", roles="r")) is None


def test_a_registry_that_is_not_there_has_everything_to_be_done(paths: LinePaths, tmp_path: Path) -> None:
    settings = line(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    inputs = inputs_of(settings, 0, data="d", roles="r")
    keep_decision(paths, PROMOTED, inputs, "r1")
    assert nothing_new(settings, paths, inputs) is None
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"inputs": 1, "version": "x"}'])
def test_a_record_that_cannot_be_read_holds_nothing_back(paths: LinePaths, text: str) -> None:
    paths.judged.parent.mkdir(parents=True)
    paths.judged.write_text(text)
    assert nothing_new(silent(), paths, inputs_of(silent(), 0, data="d", roles="r")) is None


def test_roles_lie_in_the_state_under_their_hash_and_only_the_last(paths: LinePaths, tmp_path: Path) -> None:
    def made(text: str) -> str:
        folder = tmp_path / "artifact"
        folder.mkdir(exist_ok=True)
        for name in ROLES.values():
            (folder / name).write_text(text)
        return keep_roles(folder, paths)

    first = made("a")
    assert made("a") == first
    second = made("b")
    assert second != first
    assert [folder.name for folder in paths.roles.iterdir()] == [second]
    found = LinePaths.pod("weave", str(tmp_path / "state"), roles=second)
    assert {file.read_text() for file in (found.split, found.holdout, found.rejects)} == {"b"}
