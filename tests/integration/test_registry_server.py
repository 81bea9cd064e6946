"""The registry against a real MLflow server, and its model in a process that has never heard of this repository."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exhaustive import minutes_long
from morphad.base.errors import ServiceError
from morphad.base.patience import wait_out
from morphad.model.detector import Detector
from morphad.registry import DatasetFacts, Registration, Registry, detector_hash
from morphad.registry.account import authenticated_account
from morphad.registry.connection import Connection
from morphad.registry.publishing import REQUIREMENTS
from morphad.settings import Decoding, RegisterSettings

LINE = "bracket"
TWELVE_BITS = Decoding(white_level=4095)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)  # the server and its worker, a group of their own
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with _serving(tmp_path_factory.mktemp("server"), _free_port()) as server:
        yield server


@contextmanager
def _serving(folder: Path, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """MLflow on a port, with its files in a folder, for a block."""
    uri = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=2).close()  # noqa: S310
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"mlflow server did not start:\n{(folder / 'log').read_text()}")
                time.sleep(0.3)
        yield uri, process
    finally:
        _end(process)


@pytest.fixture(scope="module")
def registry(server: tuple[str, subprocess.Popen[bytes]]) -> Registry:
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Registry(RegisterSettings(tracking_uri=server[0]))


def test_server_without_accounts_knows_nobody(
    server: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")  # which proves nothing
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    connection = Connection(RegisterSettings(tracking_uri=server[0]))
    with connection.session():
        assert authenticated_account(connection.uri) is None


@pytest.fixture(scope="module")
def detector_folder(tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of a 12-bit camera."""
    detector = Detector.load(tiny_detector)
    detector.decoding = TWELVE_BITS
    folder = tmp_path_factory.mktemp("detector") / "detector"
    detector.save(folder)
    return folder


@pytest.fixture(scope="module")
def published(registry: Registry, detector_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Registration:
    report = tmp_path_factory.mktemp("report")
    (report / "index.html").write_text("<h1>report</h1>")
    return _publish(registry, detector_folder, report)


def _publish(registry: Registry, detector: Path, report: Path) -> Registration:
    facts = DatasetFacts(Path("data/bracket/manifest.parquet"), "a" * 64, "f" * 64, {"train": 20})
    tags = {"image_digest": ""}
    return registry.publish(
        LINE, detector, report, params={"seed": 0}, metrics={"auroc": 1.0}, tags=tags, dataset=facts
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Encoded images of several kinds: grey PNG, colour JPEG, 16-bit PNG."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(1)
    grey = random.normal(120, 10, (40, 48)).clip(0, 255).astype(np.uint8)
    Image.fromarray(grey).save(folder / "0.png")
    Image.fromarray(np.dstack([grey, grey, 255 - grey])).save(folder / "1.jpg", quality=95)
    Image.fromarray(grey.astype(np.uint16) * 16).save(folder / "2.png")
    return sorted(folder.iterdir())


def test_whole_life_of_a_version(
    registry: Registry, published: Registration, detector_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("again")
    assert _publish(registry, detector_folder, tmp_path).created is False
    registry.refuse(LINE, published.version, {"reasons": ["too few images"]})
    registry.promote(LINE, published.version, {"reasons": ["enough now"]}, "anna")
    champion = registry.champion(LINE)
    assert champion is not None
    assert [entry.action for entry in registry.trail(LINE).entries] == ["refused", "promoted"]
    assert detector_hash(registry.download(champion, tmp_path / "champion")) == detector_hash(detector_folder)


FRESH = """
import sys
sys.path = [entry for entry in sys.path if not entry.startswith(sys.argv[3])]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import base64, json
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
import mlflow
import pandas as pd
from fastapi.testclient import TestClient
from mlflow.pyfunc import scoring_server
from packaging.requirements import Requirement

assert "morphad" not in sys.modules

# From here on, only what the model says it requires, and what that requires, can be imported.
allowed, todo = set(), [Requirement(line).name for line in Path(sys.argv[4]).read_text().split()]
while todo:
    name = todo.pop().lower().replace("_", "-")
    if name not in allowed:
        allowed.add(name)
        try:
            todo += [Requirement(r).name for r in distribution(name).requires or [] if "extra ==" not in r]
        except PackageNotFoundError:
            pass
owners = packages_distributions()

class OnlyRequired:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        own = {owner.lower().replace("_", "-") for owner in owners.get(name.split(".")[0], [])} - {"morphad"}
        return None if own and not own & allowed else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path = [OnlyRequired(finder) for finder in sys.meta_path]
model = mlflow.pyfunc.load_model(sys.argv[1])
images = [Path(name).read_bytes() for name in json.loads(sys.argv[2])]
frame = model.predict(pd.DataFrame({"image": images}), params={"heatmap": True})
plain = model.predict(pd.DataFrame({"image": images}))
refused = []
for bad in ("/etc/hostname", b"no image at all"):
    try:
        model.predict(pd.DataFrame({"image": [images[0], bad]}))
    except mlflow.exceptions.MlflowException as error:
        refused.append([error.error_code, str(error)])

http = TestClient(scoring_server.init(model))
encoded = [[base64.b64encode(image).decode()] for image in images]
split = {"dataframe_split": {"columns": ["image"], "data": encoded}}
answer = http.post("/invocations", json={**split, "params": {"heatmap": True}})
path = http.post("/invocations", json={"dataframe_split": {"columns": ["image"], "data": [["/etc/hostname"]]}})

print(json.dumps({
    "code": sys.modules["morphad"].__file__,
    "columns": list(plain.columns),
    "types": [str(kind) for kind in frame.dtypes],
    "scores": frame["score"].tolist(),
    "p_values": frame["p_value"].tolist(),
    "rejected": frame["rejected"].tolist(),
    "thresholds": frame["threshold"].tolist(),
    "heatmaps": [base64.b64encode(png).decode() for png in frame["heatmap"]],
    "refused": refused,
    "http": [answer.status_code, answer.json()],
    "http_path": [path.status_code, path.text],
}))
"""


@pytest.fixture(scope="module")
def fresh(
    server: tuple[str, subprocess.Popen[bytes]],
    registry: Registry,
    published: Registration,
    pictures: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What a new process makes of the champion: in another folder, without this repository or unstated requirements."""
    registry.promote(LINE, published.version, {"reasons": []}, "test")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    source = Path(__file__).resolve().parents[2] / "src"
    requirements = elsewhere / "requirements.txt"
    requirements.write_text("\n".join(REQUIREMENTS))
    names = json.dumps([str(path) for path in pictures])
    uri = f"models:/morphad-{LINE}@champion"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server[0], "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", FRESH, uri, names, str(source), str(requirements)],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_fresh_process_scores_like_this_one(fresh: dict[str, Any], detector_folder: Path, pictures: list[Path]) -> None:
    from morphad.data.images import decode

    assert "/code/morphad/" in fresh["code"]
    assert fresh["columns"] == ["score", "rejected", "p_value", "threshold"]
    assert fresh["types"] == ["float64", "bool", "float64", "float64", "object"]
    detector = Detector.load(detector_folder)
    assert detector.calibration_ is not None
    here = list(detector.predict(decode(path, TWELVE_BITS).pixels for path in pictures))
    assert fresh["scores"] == pytest.approx([prediction.score for prediction in here], rel=1e-6)
    assert fresh["rejected"] == [prediction.rejected for prediction in here]
    assert fresh["p_values"] == pytest.approx([prediction.p_value for prediction in here])
    assert fresh["thresholds"] == pytest.approx([detector.calibration_.threshold] * 3)


def test_heatmap_is_a_png_of_the_images_size(fresh: dict[str, Any]) -> None:
    for encoded in fresh["heatmaps"]:
        picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (48, 40))


def test_paths_and_junk_are_refused_by_row(fresh: dict[str, Any]) -> None:
    (path_code, path), (junk_code, junk) = fresh["refused"]
    assert path_code == junk_code == "INVALID_PARAMETER_VALUE"
    assert "row 1" in path and "Paths are not read" in path
    assert "row 1" in junk
    status, text = fresh["http_path"]
    assert status == 400
    assert "row 0" in text or "image" in text


def test_invocations_answer_in_json(fresh: dict[str, Any]) -> None:
    status, answer = fresh["http"]
    assert status == 200
    rows = answer["predictions"]
    assert [row["score"] for row in rows] == pytest.approx(fresh["scores"])
    assert base64.b64decode(rows[0]["heatmap"]) == base64.b64decode(fresh["heatmaps"][0])


def test_server_that_dies_midway_is_told(
    server: tuple[str, subprocess.Popen[bytes]], registry: Registry, published: Registration
) -> None:
    """Last in this module: it ends the server."""
    assert registry.version(LINE, published.version).number == published.version
    _end(server[1])
    start = time.monotonic()
    with pytest.raises(ServiceError, match=server[0]):
        registry.champion(LINE)
    assert time.monotonic() - start < 20


@pytest.mark.slow
@minutes_long
def test_a_server_that_is_away_for_a_while_is_waited_for(
    detector_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    report, port, published = tmp_path / "report", _free_port(), threading.Event()
    report.mkdir()
    (report / "index.html").write_text("<h1>report</h1>")
    with _serving(tmp_path, port) as (uri, _):
        registry = Registry(RegisterSettings(tracking_uri=uri))
        first = _publish(registry, detector_folder, report)

    def come_back() -> None:
        time.sleep(20)
        with _serving(tmp_path, port):
            published.wait(120)

    back = threading.Thread(target=come_back)
    back.start()
    try:
        again = wait_out(lambda: _publish(registry, detector_folder, report), f"register {LINE}", 3)
        assert registry.champion(LINE) is None
    finally:
        published.set()
        back.join()
    assert again.version == first.version  # the same detector, found again
    assert "next try in 5 s" in capfd.readouterr().err
