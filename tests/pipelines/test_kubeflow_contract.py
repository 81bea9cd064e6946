"""What morphad sends, and what the test server answers, held against Kubeflow's published API contract.

Prism, a proxy from npm, stands between the two and refuses whatever the contract does not have.
"""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from fake_kubeflow import FakeKubeflow, serving

from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.compiling import TRAINING
from morphad.kubeflow.connection import Connection
from morphad.kubeflow.records import Trigger
from morphad.kubeflow.uploads import CompiledPipeline, make_experiment, upload

PRISM = "@stoplight/prism-cli@5.14.2"
CONTRACT = Path(__file__).resolve().parents[3] / "shared" / "kfp_api" / "kfp_api_v2beta1.prism.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "morphad" / "prism"


@pytest.fixture(scope="session")
def contract() -> Path:
    path = Path(os.environ.get("MORPHAD_KFP_CONTRACT", CONTRACT))
    if not path.is_file():
        pytest.skip(f"no contract of Kubeflow's API at {path}; set MORPHAD_KFP_CONTRACT to one edited for prism")
    return path


@pytest.fixture(scope="session")
def prism() -> Path:
    """The proxy's program, installed once into a cache folder."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: it brings prism, which knows the contract's language")
    CACHE.mkdir(parents=True, exist_ok=True)
    program = CACHE / "node_modules" / ".bin" / "prism"
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            done = subprocess.run(
                [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", CACHE, PRISM],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            if done.returncode != 0:
                pytest.skip(f"npm cannot install {PRISM}: {done.stderr.strip()[-300:]}")
    return program


def ask(address: str, path: str, body: object = None) -> int:
    """Status of a request that is not morphad's."""
    request = urllib.request.Request(  # noqa: S310 - an address of this machine
        f"{address}/apis/v2beta1{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"authorization": "Bearer x", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def between(
    contract: Path, prism: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FakeKubeflow, str]]:
    """The test server, and the address of the proxy before it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("prism") / "log"
    with serving() as fake, log.open("w") as stream:
        words = [prism, "proxy", "-h", "127.0.0.1", "-p", str(port), "--errors", contract, fake.address]
        process = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 60
            while "listening" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield fake, address
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def kubeflow(between: tuple[FakeKubeflow, str], monkeypatch: pytest.MonkeyPatch) -> Kubeflow:
    monkeypatch.setenv("KFP_TOKEN", "x")  # the contract asks for one
    monkeypatch.delenv("KFP_NAMESPACE", raising=False)
    return Kubeflow(Connection(between[1]))


def test_the_proxy_refuses_what_the_contract_does_not_have(between: tuple[FakeKubeflow, str]) -> None:
    fake, address = between
    assert ask(address, "/healthz") == 200
    assert ask(address, "/experiments", {"display_name": 7, "colour": "red"}) == 422
    assert fake.experiments == {}
    routes, FakeKubeflow._routes = FakeKubeflow._routes, (("GET", "/healthz", lambda *_, **__: {"multi_user": "so"}),)
    try:
        assert ask(address, "/healthz") == 500  # the answer breaks the contract
    finally:
        FakeKubeflow._routes = routes


def test_every_call_and_its_answer_keep_the_contract(
    between: tuple[FakeKubeflow, str], kubeflow: Kubeflow, compiled: Path
) -> None:
    fake, _ = between
    version, new = upload(kubeflow, CompiledPipeline(TRAINING, compiled, "1" * 64))
    assert new
    assert kubeflow.version(version.pipeline_id, version.name) == version
    experiment = make_experiment(kubeflow, "morphad")
    assert kubeflow.experiment_id("morphad") == experiment
    lines = [{"line": "pv-mono", "settings_json": "{}"}]
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    for start, end in ((None, None), (later, later + timedelta(days=9))):
        trigger = Trigger(
            "0 0 2 * * *",
            start,
            end,
            1,
            False,
            experiment,
            version.pipeline_id,
            version.id,
            {"lines": lines, "seed": 3},
        )
        made = kubeflow.create_recurring_run("pv-mono-nightly", "by hand", trigger, enabled=True)
        (found,) = (run for run in kubeflow.recurring_runs() if run.id == made)
        assert (found.trigger, found.enabled) == (trigger, True)
        kubeflow.disable_recurring_run(made)
        kubeflow.enable_recurring_run(made)
        kubeflow.delete_recurring_run(made)
        kubeflow.delete_recurring_run(made)  # that it is gone is what was wanted
        kubeflow.disable_recurring_run(made)
    run = kubeflow.create_run("pv-mono", experiment, version, {"lines": lines, "seed": 3})
    assert [found.id for found in kubeflow.runs()] == [run]
    assert [found.id for found in kubeflow.runs_under_way(experiment)] == [run]
    fake.work(run, [{"ingest": "SUCCEEDED", "train": "RUNNING"}], notify="")
    (task,) = (task for task in kubeflow.run(run).tasks if task.name == "train")
    assert (task.state, task.ended) == ("RUNNING", None)
    kubeflow.end_run(run)
    assert (kubeflow.run(run).state, kubeflow.run(run).stopped is None) == ("CANCELING", False)


def test_the_commands_keep_the_contract(
    between: tuple[FakeKubeflow, str], command: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, address = between
    monkeypatch.setenv("KFP_HOST", address)
    monkeypatch.setenv("KFP_TOKEN", "x")
    for run in fake.runs:
        fake.move(run, "SUCCEEDED")
    for words in (
        ("pipeline", "upload"),
        ("pipeline", "submit"),
        ("pipeline", "upload", "--pipeline", "batch-predict"),
        ("pipeline", "submit-batch", "pv-mono", "s3://camera/new"),
        ("pipeline", "status"),
        ("schedule", "plan"),
        ("schedule", "apply"),
        ("schedule", "plan", "--check"),
    ):
        code, said = command(*words)
        assert code == 0, said
    run = list(fake.runs)[-1]
    for words in (("pipeline", "status", run), ("pipeline", "end", run), ("pipeline", "again")):
        code, said = command(*words)
        assert code == 0, said
