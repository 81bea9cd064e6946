"""`morphad pipeline`: what is wrong is told before anything runs."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from morphad.cli import main

REPO = Path(__file__).resolve().parents[2]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call morphad in a project of one line; give exit code, output and errors."""
    for code in ("components", "pipelines"):
        (tmp_path / code).symlink_to(REPO / code)
    YAML().dump({"lines": {"pcb": {"ingest": {"path": "camera"}}}}, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DOCKER_HOST", raising=False)

    def called(*arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(list(arguments))
            except SystemExit as ended:  # argparse's
                code = int(ended.code or 0)
        return code, out.getvalue(), err.getvalue()

    return called


def test_help_lists_the_verbs(call: Call) -> None:
    code, said, _ = call("pipeline", "--help")
    assert code == 0
    assert "run" in said
    code, said, _ = call("pipeline", "run", "--help")
    assert code == 0
    assert "{subprocess,docker}" in said


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["polish"], 2, "invalid choice: 'polish'"),
        (["run", "--runner", "kubernetes"], 2, "invalid choice: 'kubernetes'"),
        (["run", "--lines", "pcb,nobody"], 2, "'nobody'"),
        (["run", "--lines", ""], 2, "no line ''"),  # a variable of a script that is not set is not all lines
        (["submit", "--lines", ""], 2, "no line ''"),
        (["run", "--params", "gone.yaml"], 2, "gone.yaml: not found"),
        (["run", "--cluster", "gone.yaml"], 2, "gone.yaml: not found"),
        (["run", "--out", "params.yaml"], 2, "cannot write"),
    ],
)
def test_wrong_use_is_named(call: Call, arguments: list[str], code: int, told: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    ended, _, errors = call("pipeline", *arguments)
    assert ended == code
    assert told in errors
    assert "Traceback" not in errors
    assert sorted(tmp_path.iterdir()) == before


def test_an_engine_that_is_not_there_is_a_service_that_does_not_answer(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    code, _, errors = call("pipeline", "run", "--runner", "docker")
    assert code == 3
    assert f"{tmp_path}/nobody.sock: No such file or directory" in errors
    assert not (tmp_path / "pipeline-runs").exists()


def test_a_registry_that_does_not_answer_is_told_before_anything_runs(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, said, errors = call("pipeline", "run")
    assert code == 3
    assert "MLflow at http://127.0.0.1:9: Connection refused" in errors
    assert not said
    assert not (tmp_path / "pipeline-runs").exists()


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("register", {"tracking_uri": "postgresql://anna:hu/sh@db/mlflow"}),
        ("register", {"tracking_uri": "http://hush@mlflow.plant"}),
        ("register", {"tracking_uri": "https://mlflow.plant/?api_key=hush"}),
        ("ingest", {"source": "s3", "path": "s3://KEY:hush@bucket/x"}),
        ("ingest", {"path": "camera", "verdicts": "s3://bucket/v.csv?X-Amz-Signature=hush"}),
    ],
)
@pytest.mark.parametrize("command", [("run",), ("submit",), ("submit-batch", "pcb", "s3://bucket/x")])
def test_no_plan_and_no_run_has_a_secret_of_the_settings(
    call: Call, tmp_path: Path, section: str, values: dict[str, str], command: tuple[str, ...]
) -> None:
    YAML().dump({"lines": {"pcb": {"ingest": {"path": "camera"}, section: values}}}, tmp_path / "params.yaml")
    code, said, errors = call("pipeline", *command)
    assert code == 2
    assert f"lines.pcb.{section}.{list(values)[-1]}: holds a password" in errors
    assert "hush" not in said + errors and "hu/sh" not in said + errors


def test_a_password_in_the_settings_is_refused(call: Call, tmp_path: Path) -> None:
    register = {"tracking_uri": "postgresql://anna:hush@db/mlflow"}
    YAML().dump({"lines": {"pcb": {"ingest": {"path": "camera"}, "register": register}}}, tmp_path / "params.yaml")
    code, said, errors = call("pipeline", "run")
    assert code == 2
    assert "lines.pcb.register.tracking_uri: holds a password" in errors
    assert "hush" not in said + errors
