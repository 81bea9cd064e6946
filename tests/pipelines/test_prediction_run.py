"""The batch prediction pipeline on this machine, on real images: what the verb gives, to the byte."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")
pytest.importorskip("elpv_dataset", reason="the demonstration images are not installed: pip install 'morphad[demo]'")

from morphad.registry import Registry
from morphad.settings import RegisterSettings
from tiny import hardly_trained

REPO = Path(__file__).resolve().parents[2]
LINE = "pv-mono"
VERBS = ("ingest", "validate", "split", "train", "calibrate", "evaluate", "register", "promote")
RUN = """
import sys, warnings
from pathlib import Path
from kfp import local
from morphad.kubeflow.processes import processes
from morphad.settings.reading import load_settings
from morphad.kubeflow.cluster import load_cluster
from morphad.kubeflow.lines import line_items
from pipelines.prediction import prediction_pipeline
warnings.simplefilter("ignore", UserWarning)
pipeline = prediction_pipeline(load_cluster().for_one_machine())
(item,) = line_items(load_settings(Path("params.yaml")), [sys.argv[2]])
with processes() as runner:
    local.init(runner=runner, pipeline_root=sys.argv[1], enable_caching=False)
    pipeline(**item, images=sys.argv[3], shards=2)
"""

pytestmark = pytest.mark.slow


def python(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = str(REPO)
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, text=True, capture_output=True, check=False
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a champion, and its images with two that cannot be read in `incoming`."""
    folder = tmp_path_factory.mktemp("project")
    settings = hardly_trained(YAML().load(REPO / "params.yaml"))
    YAML().dump(settings, folder / "params.yaml")
    further = {"register": ["--reason", "drift: brightness"]}
    calls = [[verb, LINE, *further.get(verb, ())] for verb in VERBS]
    done = python(folder, "-c", f"from morphad.cli import main\nfor call in {calls}:\n    assert main(call) == 0, call")
    assert done.returncode == 0, done.stdout + done.stderr
    incoming = Path(shutil.copytree(folder / "data" / LINE / "images", folder / "incoming"))
    (incoming / "2025-03").mkdir()
    (incoming / "2025-03" / "empty.png").write_bytes(b"")
    (incoming / "2025-03" / "note.jpg").write_text("not an image")
    return folder


def test_the_registry_knows_why_a_version_was_made(project: Path) -> None:
    registry = Registry(RegisterSettings(tracking_uri=f"sqlite:///{project / 'mlflow.db'}"))
    assert registry.version(LINE, 1).tags["morphad.reason"] == "drift: brightness"


def test_the_pipeline_gives_the_table_of_the_verb(project: Path) -> None:
    incoming = str(project / "incoming")
    verb = python(project, "-m", "morphad.cli", "batch-predict", LINE, incoming, "--out", "t.parquet", "--shards", "2")
    assert verb.returncode == 0, verb.stdout + verb.stderr
    assert verb.stderr == ""
    run = python(project, "-c", RUN, "out", LINE, incoming)
    assert run.returncode == 0, run.stdout + run.stderr
    (table,) = (project / "out").glob("*/batch-merge/predictions/predictions.parquet")
    assert table.read_bytes() == (project / "t.parquet").read_bytes()

    predictions = pd.read_parquet(table)
    assert len(predictions) == 82
    assert set(predictions["model"]) == {f"models:/morphad-{LINE}/1"}
    assert predictions.loc[predictions["error"] != "", "path"].tolist() == ["2025-03/empty.png", "2025-03/note.jpg"]
    counted = predictions["rejected"].value_counts()
    told = f"82 images: {counted[True]} rejected, {counted[False]} accepted, 2 unreadable"
    assert verb.stdout == f"{LINE}: {told} by models:/morphad-{LINE}/1: t.parquet\n"
    (summary,) = (project / "out").glob("*/batch-merge/summary")
    assert summary.read_text() == f"**{LINE}**: {told}.\n"
    shards = [
        json.loads(path.read_text())["artifacts"]["predictions"]["artifacts"][0]["metadata"]["images"]
        for path in (project / "out").glob("*/*/batch-predict/executor_output.json")
    ]
    assert len(shards) == 2
    assert sum(shards) == 82


def test_what_cannot_be_done_ends_the_first_step_with_a_sentence(project: Path) -> None:
    run = python(project, "-c", RUN, "out-poly", "pv-poly", str(project / "incoming"))
    assert run.returncode != 0
    assert "morphad batch-predict pv-poly: pv-poly: no champion at sqlite:///" in run.stdout + run.stderr
    assert list((project / "out-poly").glob("*/*/batch-predict")) == []
