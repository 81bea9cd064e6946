"""The images, built and run. Minutes and gigabytes, so only where it is asked for:

MORPHAD_TEST_IMAGES="cpu serve" pytest tests/docker/test_built_images.py    # or cuda as well

with docker or podman, the base image and what IMAGE_BUILD_ARGS says; layers that are there already are not made again.
"""

import base64
import io
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np
import pytest
from PIL import Image

from morphad.registry import DatasetFacts, Registry
from morphad.settings import RegisterSettings

ROOT = Path(__file__).parents[2]
ASKED = os.environ.get("MORPHAD_TEST_IMAGES", "").split()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ASKED, reason='minutes and gigabytes: MORPHAD_TEST_IMAGES="cpu serve" builds and runs them'),
]

# What Kubeflow gives a component's pod to run, its file made by kfp from a component that imports what steps import.
COMPONENT = """
from kfp import dsl
from kfp.dsl import *

def probe(line: str, out: Output[Model]):
    import pandas, mlflow, great_expectations, torchvision
    from pathlib import Path
    from morphad.steps import calibrate, evaluate, ingest, promote, register, split, train, validate
    Path(out.path).write_text(line)
"""
RUN_COMPONENT = """
folder=$(mktemp -d)
printf "%s" "$0" > "$folder/ephemeral_component.py"
_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path "$folder/ephemeral_component.py" "$@"
"""
# A user that the image has never heard of, as OpenShift gives one, and nothing writable but /tmp.
RESTRICTED = ("--read-only", "--tmpfs=/tmp", "--user=1234567:0", "--cap-drop=all")


@pytest.fixture(scope="module")
def engine() -> str:
    for candidate in (os.environ.get("CONTAINER_ENGINE"), "docker", "podman"):
        if not candidate or not shutil.which(candidate):
            continue
        if subprocess.run([candidate, "info"], capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip("neither docker nor podman answers")


@pytest.fixture(scope="module", params=("cpu", "cuda", "serve"))
def target(request: pytest.FixtureRequest) -> str:
    if request.param not in ASKED:
        pytest.skip(f"MORPHAD_TEST_IMAGES does not name {request.param}")
    return str(request.param)


@pytest.fixture(scope="module")
def build(engine: str) -> Callable[[str], str]:
    def call(target: str) -> str:
        environment = {**os.environ, "CONTAINER_ENGINE": engine, "TARGETS": target}
        done = subprocess.run([ROOT / "docker/build"], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.splitlines()[-1].split()[0]

    return call


@pytest.fixture(scope="module")
def image(build: Callable[[str], str], target: str) -> str:
    return build(target)


@pytest.fixture
def run(engine: str, image: str) -> Callable[..., str]:
    def call(*command: str, options: tuple[str, ...] = RESTRICTED) -> str:
        done = subprocess.run(
            [engine, "run", "--rm", *options, image, *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    return call


def test_a_component_runs_under_any_user_on_a_read_only_system(run: Callable[..., str], tmp_path: Path) -> None:
    tmp_path.chmod(0o777)  # the mount of an artifact
    given = {
        "inputs": {"parameterValues": {"line": "pcb"}},
        "outputs": {
            "artifacts": {
                "out": {
                    "artifacts": [
                        {
                            "name": "out",
                            "uri": f"{tmp_path}/out",
                            "type": {"schemaTitle": "system.Model"},
                            "metadata": {},
                        }
                    ]
                }
            },
            "outputFile": f"{tmp_path}/executor_output.json",
        },
    }
    told = ("--executor_input", json.dumps(given), "--function_to_execute", "probe")
    run("sh", "-ec", RUN_COMPONENT, COMPONENT, *told, options=(*RESTRICTED, "--volume", f"{tmp_path}:{tmp_path}"))
    assert (tmp_path / "out").read_text() == "pcb"


def test_the_image_s_own_user_is_not_root_and_may_write_to_the_workspace(run: Callable[..., str]) -> None:
    assert run("sh", "-ec", "touch /workspace/x; id -u; id -g", options=()).split() == ["10001", "0"]


def test_nothing_of_the_build_is_left(run: Callable[..., str]) -> None:
    tools = run("sh", "-c", "for tool in gcc cc g++ make uv; do command -v $tool; done; true")
    assert not tools
    assert not run("sh", "-c", "python -m pip 2>/dev/null && echo pip; ls -d /wheels /build 2>/dev/null; true")
    caches = "find / -xdev ( -path */.cache/pip -o -path */.cache/uv -o -path */torch/include ) -print"
    assert not run(*caches.split(), options=("--user=0",))


def test_every_package_is_pinned(run: Callable[..., str]) -> None:
    pins = {_name(line): line for line in (ROOT / "constraints.txt").read_text().split()}
    there = run("cat", "/opt/venv/requirements.txt").split()
    changed = [line for line in there if pins.get(_name(line), "").partition("==")[2] != line.partition("==")[2]]
    # A build for CPUs, or another release that the build was told to take.
    assert {_name(line) for line in changed} <= {"torch", "torchvision"}


def test_labels_and_revision(engine: str, image: str, run: Callable[..., str]) -> None:
    facts = json.loads(subprocess.check_output([engine, "image", "inspect", image]))[0]["Config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in facts["Labels"].items()}
    assert image.partition(":")[2].partition("-")[0] == labels["version"]
    assert labels["licenses"] == "Apache-2.0"
    assert not {"source", "url", "documentation"} & set(labels)
    revision = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    dirty = subprocess.check_output(["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT)
    assert labels["revision"] == revision + ("-dirty" if dirty else "")  # of now, although layers come from a cache
    told = run("python", "-c", "from morphad.registry import code_revision; print(code_revision())")
    assert told.strip() == labels["revision"]


def test_torch_is_of_the_right_kind(target: str, run: Callable[..., str]) -> None:
    told = run("python", "-c", "import torch; print(torch.version.cuda, torch.cuda.is_available())")
    names = [
        word for name in ("libcu*.so*", "libnv*.so*", "libnccl*", "libtorch_cuda*") for word in ("-o", "-name", name)
    ]
    libraries = run("find", "/", "-xdev", "(", *names[1:], ")", options=("--user=0",))
    if target == "cuda":
        assert not told.startswith("None") and "libcudart" in libraries  # and it ran, with a device or without
    else:
        assert told.startswith("None") and not libraries


class TestServe:
    """The champion of a line in a container, from a real MLflow on this machine."""

    @pytest.fixture(scope="class")
    def served(self, build: Callable[[str], str]) -> str:
        if "serve" not in ASKED:
            pytest.skip("MORPHAD_TEST_IMAGES does not name serve")
        return build("serve")

    @pytest.fixture(scope="class")
    def store(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Where MLflow keeps everything: one folder that is mounted at the same place."""
        return tmp_path_factory.mktemp("mlflow")

    @pytest.fixture(scope="class")
    def uri(self, store: Path, tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
        report = tmp_path_factory.mktemp("report")
        (report / "index.html").write_text("<h1>report</h1>")
        uri = f"sqlite:///{store / 'mlflow.db'}"
        registry = Registry(RegisterSettings(tracking_uri=uri))
        facts = DatasetFacts(Path("manifest.parquet"), "a" * 64, "f" * 64, {"train": 20})
        made = registry.publish("pcb", tiny_detector, report, params={}, metrics={}, tags={}, dataset=facts)
        registry.promote("pcb", made.version, {"reasons": ["first"]}, "test")
        for path in [store, *store.parents[:3], *store.rglob("*")]:
            path.chmod(path.stat().st_mode | (0o777 if path.is_dir() else 0o666))
        return uri

    @pytest.fixture
    def start(self, engine: str, served: str, store: Path) -> Iterator[Callable[..., str]]:
        started: list[str] = []

        def call(*options: str) -> str:
            command = [engine, "run", "--detach", *RESTRICTED, "--volume", f"{store}:{store}", *options, served]
            started.append(subprocess.check_output(command, text=True).strip())
            return started[-1]

        yield call
        for name in started:
            subprocess.run([engine, "rm", "--force", name], capture_output=True, check=False)

    @staticmethod
    def end(engine: str, name: str) -> tuple[int, str]:
        """Exit code and log of a container that ends by itself."""
        code = int(subprocess.check_output([engine, "wait", name], text=True, timeout=180))
        log = subprocess.run([engine, "logs", name], capture_output=True, text=True, check=True)
        return code, log.stdout + log.stderr

    def test_champion_answers_and_is_healthy(self, engine: str, start: Callable[..., str], uri: str) -> None:
        with closing(socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = ("--env", "LINE=pcb", "--env", f"MLFLOW_TRACKING_URI={uri}", "--publish", f"127.0.0.1:{port}:8080")
        name = start(*options, "--health-interval", "2s")
        buffer = io.BytesIO()
        Image.fromarray(np.full((32, 32), 120, np.uint8)).save(buffer, format="PNG")
        body = {"dataframe_split": {"columns": ["image"], "data": [[base64.b64encode(buffer.getvalue()).decode()]]}}
        answer = _ask(f"http://127.0.0.1:{port}/invocations", body, seconds=180)
        assert set(answer["predictions"][0]) == {"score", "rejected", "p_value", "threshold"}
        if Path(engine).name == "podman":  # which leaves the checks to systemd's timers
            subprocess.run([engine, "healthcheck", "run", name], check=True)
        else:
            time.sleep(6)
            facts = json.loads(subprocess.check_output([engine, "inspect", name]))[0]
            assert facts["State"]["Health"]["Status"] == "healthy"
        subprocess.run([engine, "stop", "--time", "30", name], check=True, capture_output=True)
        assert self.end(engine, name)[0] == 0

    def test_without_a_champion_it_ends_with_2(self, engine: str, start: Callable[..., str], uri: str) -> None:
        code, log = self.end(engine, start("--env", "LINE=other", "--env", f"MLFLOW_TRACKING_URI={uri}"))
        assert code == 2
        assert "other: no champion at sqlite:" in log

    def test_without_mlflow_it_ends_with_3(self, engine: str, start: Callable[..., str]) -> None:
        name = start("--env", "LINE=pcb", "--env", "MLFLOW_TRACKING_URI=http://127.0.0.1:9")
        code, log = self.end(engine, name)
        assert code == 3
        assert "MLflow at http://127.0.0.1:9: Connection refused" in log

    @pytest.mark.parametrize("missing", ["LINE", "MLFLOW_TRACKING_URI"])
    def test_what_is_missing_is_named(self, missing: str, engine: str, start: Callable[..., str]) -> None:
        given = {"LINE": "pcb", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
        del given[missing]
        code, log = self.end(engine, start(*[word for key in given for word in ("--env", f"{key}={given[key]}")]))
        assert code == 2
        assert f"{missing}: must" in log


def _name(requirement: str) -> str:
    return requirement.partition("==")[0].lower().replace("_", "-").replace(".", "-")


def _ask(url: str, body: dict[str, Any], seconds: float) -> Any:
    """Post JSON, again and again until somebody listens."""
    deadline = time.monotonic() + seconds
    while True:
        request = urllib.request.Request(  # noqa: S310
            url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                return json.load(response)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
