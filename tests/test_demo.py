"""The demonstration from a bucket: its images go there once, the settings say so, and the data are the same."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from morphad.cli import main
from morphad.data.source.s3 import Bucket
from morphad.settings.reading import load_settings

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip(
        "elpv_dataset", reason="the demonstration images are not installed: pip install 'morphad[demo]'"
    )
    yaml = YAML()
    settings = yaml.load(PARAMS)
    settings["defaults"]["ingest"]["limit"] = 12
    yaml.dump(settings, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def data_hash(text: str) -> str:
    return text.split("data ")[1][:12]


def test_the_demonstration_moves_to_a_bucket(project: Path, s3_bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", "pv-mono"]) == 0
    packaged = data_hash(said(capsys))
    url = f"s3://{s3_bucket}/demo"
    assert main(["demo", "--source", f"{url}/"]) == 0
    assert "pv-mono: 24 of 24 images sent; params.yaml now reads them from the bucket" in said(capsys)
    ingest = load_settings(project / "params.yaml").lines["pv-mono"].ingest
    assert (ingest.source, ingest.path, ingest.limit) == ("s3", f"{url}/pv-mono", 12)
    assert "# Solar cells of the package elpv-dataset" in (project / "params.yaml").read_text()
    assert len(list(Bucket(s3_bucket).list("demo/pv-poly/test/defective/"))) == 12
    assert main(["ingest", "pv-mono"]) == 0
    told = said(capsys)
    assert data_hash(told) == packaged
    assert "CC BY-NC-SA 4.0" in told
    # Once more changes nothing; another bucket finds no line to move.
    before = (project / "params.yaml").read_bytes()
    assert main(["demo", "--source", url]) == 0
    assert (project / "params.yaml").read_bytes() == before
    assert main(["demo", "--source", f"s3://{s3_bucket}/elsewhere"]) == 2
    assert "no line has the demonstration's images" in capsys.readouterr().err


def test_upload_sends_page_and_detector(
    project: Path, s3_bucket: str, tiny_detector: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["upload", "pv-mono", f"s3://{s3_bucket}/plant/"]
    assert main(arguments) == 2
    assert "run `dvc repro` first" in capsys.readouterr().err
    (project / "reports/pv-mono").mkdir(parents=True)
    (project / "reports/pv-mono/index.html").write_text("<html>")
    (project / "models/pv-mono").mkdir(parents=True)
    (project / "models/pv-mono/detector").symlink_to(tiny_detector)
    assert main(arguments) == 0
    assert f"1 of 1 files sent to s3://{s3_bucket}/plant/pv-mono/report" in said(capsys)
    assert main(arguments) == 0
    assert "0 of 1 files sent" in said(capsys)
    keys = {listed.key for listed in Bucket(s3_bucket).list("")}
    assert {"plant/pv-mono/report/index.html", "plant/pv-mono/detector/detector.json"} <= keys
