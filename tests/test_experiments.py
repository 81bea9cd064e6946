"""Experiments that DVC runs aside register and promote nothing."""

import json
from pathlib import Path

import pandas as pd
import pytest

from morphad.cli import main
from morphad.data.manifest import SCHEMA, read_manifest, write_manifest
from morphad.steps import experiments
from morphad.steps.paths import LinePaths


def write_split(place: LinePaths) -> None:
    row = {field.name: "x" if field.type == "string" else 0 for field in SCHEMA}
    write_manifest(pd.DataFrame([{**row, "role": "train"}]).convert_dtypes(dtype_backend="pyarrow"), place.split)


@pytest.mark.parametrize(
    ("project", "folder", "aside"),
    [
        ("project", "project", False),  # dvc repro, and dvc exp run in the project itself
        ("project", "project/part", False),
        ("project", "project/.dvc/tmp/exps/standalone/tmp1", True),  # --temp
        ("project", "project/.dvc/tmp/exps/tmp2/part", True),  # --queue, the project below the repository's root
        ("link", "project/.dvc/tmp/exps/tmp2", True),
        ("", "project/.dvc/tmp/exps/tmp2", False),  # by hand
    ],
)
def test_only_an_experiment_in_a_folder_of_its_own_runs_aside(
    project: str, folder: str, aside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "project")
    monkeypatch.chdir(tmp_path / folder)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / project) if project else "")
    assert experiments.aside() is aside


def test_register_and_promote_say_that_nothing_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".dvc" / "tmp" / "exps" / "tmp1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_EXP_NAME", "wary-ant")
    (folder / "params.yaml").write_text("lines: {pcb: {ingest: {source: folder, path: x}}}")
    place = LinePaths.checkout(folder, "pcb")
    write_split(place)
    assert main(["register", "pcb"]) == 0
    assert main(["promote", "pcb", "--record"]) == 0
    told = capsys.readouterr().out
    assert "pcb: not registered: experiment wary-ant ran aside" in told
    assert "pcb: Not decided: experiment wary-ant ran aside" in told
    assert json.loads(place.registration.read_text())["version"] is None
    assert json.loads(place.decision.read_text())["promote"] is False
    assert len(read_manifest(place.reference)) == 0
    assert not (folder / "mlflow.db").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_the_champions_data_stay(tmp_path: Path) -> None:
    place = LinePaths.checkout(tmp_path, "pcb")
    write_split(place)
    place.reference.write_bytes(place.split.read_bytes())
    experiments.leave_undecided(place)
    assert place.reference.read_bytes() == place.split.read_bytes()
