"""The verb `serve`: the champion over HTTP, from the process that a container runs."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphad.base.errors import ServiceError
from morphad.cli import main
from morphad.data.images import decode
from morphad.model.detector import Detector
from morphad.registry import Registration, Registry, Version, serving
from morphad.settings import RegisterSettings


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def champion(
    registry: Registry,
    settings: RegisterSettings,
    line: str,
    publish: Callable[..., Registration],
    monkeypatch: pytest.MonkeyPatch,
) -> Version:
    """The champion of `line`, in the registry that the environment names."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri)
    return registry.promote(line, publish().version, {"reasons": ["first"]}, "test")


def _picture() -> bytes:
    grey = np.random.default_rng(3).normal(120, 10, (32, 32)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    return buffer.getvalue()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{url}/ping", timeout=2).close()  # noqa: S310
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no answer:\n{log.read_text()}")
            time.sleep(0.3)


def test_champion_answers_until_a_signal_and_leaves_nothing_behind(
    champion: Version, line: str, tiny_detector: Path, tmp_path: Path
) -> None:
    picture = _picture()
    port = _free_port()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    command = [sys.executable, "-m", "morphad.cli", "serve", line, "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}", process, tmp_path / "log")
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            data=json.dumps(
                {"dataframe_split": {"columns": ["image"], "data": [[base64.b64encode(picture).decode()]]}}
            ).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            answer = json.load(response)["predictions"][0]
        expected = next(iter(Detector.load(tiny_detector).predict([decode(picture, name="x").pixels])))
        assert answer["score"] == pytest.approx(expected.score, rel=1e-4)
        assert answer["rejected"] == expected.rejected
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
    assert f"{line}: version {champion.number} of sqlite:" in (tmp_path / "log").read_text()
    assert not list(scratch.glob("morphad-serve-*"))


def test_a_line_without_champion_is_named(
    settings: RegisterSettings,
    line: str,
    publish: Callable[..., Registration],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish()  # a challenger is no champion
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri)
    assert main(["serve", line]) == 2
    assert f"{line}: no champion at sqlite:" in capsys.readouterr().err


def test_an_address_where_nobody_answers_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{_free_port()}")
    assert main(["serve", "any"]) == 3
    assert "Connection refused" in capsys.readouterr().err


def test_a_taken_port_is_told_before_anything_is_fetched(
    champion: Version, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", line, "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen at 127.0.0.1:" in capsys.readouterr().err


def test_a_damaged_model_is_not_served(
    registry: Registry, store: Path, line: str, publish: Callable[..., Registration], tmp_path: Path
) -> None:
    others = set((store / "mlartifacts").rglob("scorer.safetensors"))
    version = registry.promote(line, publish().version, {"reasons": ["first"]}, "test")
    (scorer,) = set((store / "mlartifacts").rglob("scorer.safetensors")) - others
    whole = scorer.read_bytes()
    scorer.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ServiceError, match="damaged"):
        registry.download_model(version, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_a_model_that_was_pickled_is_not_served(pickled: tuple[Path, Path]) -> None:
    model, ran = pickled
    server = Path(serving.__file__).with_name("server.py")
    done = subprocess.run(
        [sys.executable, "-P", server, model.parent, "127.0.0.1", str(_free_port())],
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "Deserializing model using pickle is disallowed" in done.stderr
    assert not ran.exists()
