"""Tasks in containers: what they get, and that their failures count. Where there is an engine, a real one."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from docker.client import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container
from kfp import dsl, local
from kfp.local import docker_task_handler
from requests.exceptions import RequestException

from morphad.base.errors import BadInputError, ServiceError
from morphad.kubeflow.cluster import load_cluster
from morphad.kubeflow.docker_runner import Engine, check_reach, task_environment, task_mounts
from morphad.settings import LineSettings
from morphad.settings.reading import resolve

# Any image with a shell; it is not downloaded.
IMAGE = os.environ.get("MORPHAD_TEST_SHELL_IMAGE", "python:3.11-slim")
# podman without systemd: its own runtime and cgroups, events in a file.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = 0
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def line(**ingest: Any) -> LineSettings:
    return resolve({"lines": {"pcb": {"ingest": ingest}}}).line("pcb")


class TestWithoutAnEngine:
    @pytest.mark.parametrize("host", ["unix:///nowhere.sock", "tcp://127.0.0.1:1", "carrier-pigeon://x"])
    def test_nobody_there_is_told_with_address_and_remedy(
        self, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", host)
        with pytest.raises(ServiceError) as told:
            Engine(load_cluster(), tmp_path, tmp_path / "state")
        assert host in str(told.value)
        assert "--runner subprocess" in str(told.value)

    @pytest.mark.parametrize("change", ["signature", "unused"])
    def test_another_kfp_is_refused(self, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if change == "signature":
            monkeypatch.setattr(docker_task_handler, "run_docker_container", lambda client, image: 0)
        else:
            monkeypatch.setattr(docker_task_handler.DockerTaskHandler, "run", lambda self: None)
        with pytest.raises(BadInputError, match="install the version in constraints"):
            Engine(load_cluster(), tmp_path, tmp_path / "state")

    def test_variables_go_by_name_and_others_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in os.environ:
            monkeypatch.delenv(name)
        given = {"AWS_SECRET_ACCESS_KEY": "s", "MLFLOW_TRACKING_URI": "http://x", "PLANT_TOKEN": "t", "LOGNAME": "anna"}
        for name, value in {**given, "AWS_PROFILE": "", "GITHUB_TOKEN": "no", "PATH": "/bin", "HOME": "/h"}.items():
            monkeypatch.setenv(name, value)
        assert task_environment({"PLANT_TOKEN"}) == {**given, "HOME": "/tmp"}  # noqa: S108

    def test_folders_of_images_are_mounted_where_they_are_and_read_only(self, tmp_path: Path) -> None:
        camera, table, weights, authority, verdicts = (
            tmp_path / name for name in ("camera", "t/rows.csv", "w.pt", "ca.pem", "verdicts.csv")
        )
        for file in (camera / "0.png", table, weights, authority, verdicts):
            file.parent.mkdir(exist_ok=True)
            file.touch()
        trained = line(path=str(camera), verdicts=str(verdicts))
        trained = trained.model_copy(update={"train": trained.train.model_copy(update={"weights": str(weights)})})
        lines = [trained, line(source="listing", path=str(table)), line(source="demo", path="mono")]
        lines += [line(path=str(tmp_path / "gone"))]
        assert task_mounts(lines, {"http://mlflow:5000"}, {"AWS_CA_BUNDLE": str(authority)}) == {
            camera: True,
            table.parent: True,
            weights: True,
            verdicts: True,
            authority: True,
        }

    def test_a_registry_in_a_file_can_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        demo = line(source="demo", path="mono")
        assert task_mounts([demo], {"sqlite:///mlflow.db"}, {}) == {tmp_path: False}
        assert task_mounts([demo], {f"sqlite:///{tmp_path}/mlflow.db?timeout=9"}, {}) == {tmp_path: False}

    def test_loopback_is_refused_in_a_network_of_its_own(self) -> None:
        check_reach({"http://127.0.0.1:5000"}, {"AWS_ENDPOINT_URL": "http://localhost:9000"}, "host")
        check_reach({"http://mlflow:5000", "sqlite:///mlflow.db"}, {}, "bridge")
        for uri, environment in (
            ("http://127.0.0.1:5000", {}),
            ("sqlite:///x", {"AWS_ENDPOINT_URL_S3": "http://localhost:1"}),
        ):
            with pytest.raises(BadInputError, match="--network host"):
                check_reach({uri}, environment, "bridge")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[bytes] | None"]:
    """An engine with IMAGE at DOCKER_HOST: the one that is there, or a podman service of our own, which is given."""
    process, folder = None, tmp_path_factory.mktemp("engine")
    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get("DOCKER_HOST"):
            if shutil.which("podman") is None:
                pytest.skip("no container engine: DOCKER_HOST is not set and podman is not installed")
            (folder / "containers.conf").write_text(CONTAINERS_CONF)
            patch.setenv("CONTAINERS_CONF", os.environ.get("CONTAINERS_CONF") or str(folder / "containers.conf"))
            address = f"unix://{folder / 'podman.sock'}"
            command = ["podman", "system", "service", "--time=0", address]
            process = subprocess.Popen(command, cwd=folder, start_new_session=True)
            patch.setenv("DOCKER_HOST", address)
        try:
            _wait_for_engine()
            yield process
        finally:
            if process is not None:
                process.send_signal(signal.SIGKILL)
                process.wait()


def _wait_for_engine() -> None:
    """Skip where no engine answers, has IMAGE, and runs a container of it within a minute for each request."""
    for attempt in range(150):
        try:
            client = DockerClient.from_env()
            break
        except DockerException as error:
            if attempt == 149:
                pytest.skip(f"no container engine answers: {error}")
            time.sleep(0.2)
    try:
        client.images.get(IMAGE)
    except DockerException as error:
        pytest.skip(f"no image with a shell to run ({IMAGE}; name one in MORPHAD_TEST_SHELL_IMAGE): {error}")
    try:
        container = client.containers.create(IMAGE, ["true"], network_mode="host")
        container.start()
        container.wait(timeout=60)
        container.remove(force=True)
    except (DockerException, RequestException) as error:
        pytest.skip(f"the container engine runs nothing here: {error}")


@pytest.fixture
def engine(service: object, tmp_path: Path) -> Engine:
    (tmp_path / "out" / "state").mkdir(parents=True)
    return Engine(load_cluster().for_one_machine(), tmp_path / "out", tmp_path / "out" / "state")


def shell(words: str) -> Any:
    """A component that runs a shell command, in which $0 is the item."""

    @dsl.container_component
    def say(item: str) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", words, item])

    return say


def lines_of(words: str) -> Any:
    """A pipeline like ours: a loop over items, of which one may fail, and an exit handler."""
    component, farewell = shell(words), shell("echo the end of $0")

    @dsl.pipeline(name="shells")
    def pipeline(items: list[str]) -> None:
        with dsl.ExitHandler(farewell(item="all")), dsl.ParallelFor(items, parallelism=1) as item:
            component(item=item)

    return pipeline


def go(engine: Engine, words: str, *items: str, **given: Any) -> None:
    with engine.runner(given.get("lines", ()), given.get("network", "host")) as runner:
        local.init(runner=runner, pipeline_root=str(engine._out), enable_caching=False)
        lines_of(words)(items=list(items))


@pytest.mark.slow
class TestWithAnEngine:
    def test_a_failing_container_fails_the_pipeline_and_the_others_still_end(
        self, engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        state = tmp_path / "out" / "state"
        with pytest.raises(RuntimeError, match="finished with status"):
            go(engine, f'test "$0" != bad || {{ echo it broke; exit 3; }}; touch {state}/"$0"', "a", "bad", "c")
        assert sorted(path.name for path in state.iterdir()) == ["a", "c"]
        said = capsys.readouterr().out
        assert "it broke" in said
        assert "the end of all" in said
        assert engine.remove_leftovers() == 0

    def test_when_all_succeed_nothing_is_raised(self, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
        go(engine, "echo grüße von $0; printf 'no newline'", "a")
        said = capsys.readouterr().out
        assert "grüße von a\n" in said
        assert "no newline" in said

    def test_tasks_are_the_callers_and_see_images_read_only(
        self, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
        (tmp_path / "camera").mkdir()
        (tmp_path / "camera" / "0.png").write_text("pixels")
        note = tmp_path / "out" / "state" / "note"
        words = (
            f'{{ id -u; pwd; cat camera/0.png; echo; echo "${{#AWS_SECRET_ACCESS_KEY}}"; }} > {note}; touch camera/1'
        )
        with pytest.raises(RuntimeError):
            go(engine, words, "a", lines=[line(path="camera")])
        assert note.read_text().split() == [str(os.getuid()), str(tmp_path), "pixels", str(len("hush-hush"))]
        assert note.stat().st_uid == os.getuid()
        said = capsys.readouterr()
        assert "Read-only file system" in said.out
        assert "hush-hush" not in said.out + said.err

    def test_a_step_gets_its_limits(self, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
        client = DockerClient.from_env()
        assert engine._run(client, IMAGE, ["df", "-k", "/dev/shm"], {}) == 0  # noqa: S108
        assert str(2 * 2**20) not in capsys.readouterr().out
        assert engine._run(client, IMAGE, ["sh", "-c", "df -k /dev/shm", "--function_to_execute", "train"], {}) == 0
        assert str(2 * 2**20) in capsys.readouterr().out  # 2Gi in cluster.yaml
        if engine._limits_memory:
            greedy = "head -c 1500M /dev/zero | tail > /dev/null"  # against 1Gi in cluster.yaml
            assert engine._run(client, IMAGE, ["sh", "-c", greedy, "--function_to_execute", "notify"], {}) == 137
            assert f"want of memory ({2**30} B)" in capsys.readouterr().out

    def test_a_task_may_be_silent_for_longer_than_a_request_may_take(
        self, engine: Engine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        client = DockerClient.from_env(timeout=2)
        assert engine._run(client, IMAGE, ["sh", "-c", "sleep 4; echo awake; exit 5"], {}) == 5
        assert "awake" in capsys.readouterr().out

    def test_a_followed_log_that_never_ends_holds_nothing_up(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As podman's now and then does not, though its container has ended; this one stops after the first words."""
        whole, never = Container.logs, threading.Event()

        def logs(container: Container, **given: Any) -> Any:
            if not given.get("follow"):
                return whole(container, **given)

            def begun() -> Iterator[bytes]:
                yield next(iter(whole(container, **given)))
                never.wait(60)
                yield b"too late\n"

            return begun()

        monkeypatch.setattr(Container, "logs", logs)
        words = "echo first; sleep 1; echo über; printf last; exit 4"
        assert engine._run(DockerClient.from_env(), IMAGE, ["sh", "-c", words], {}) == 4
        assert capsys.readouterr().out == "first\nüber\nlast\n"
        never.set()

    def test_a_killed_container_is_a_failed_task(
        self, engine: Engine, service: object, capsys: pytest.CaptureFixture[str]
    ) -> None:
        killer = threading.Thread(target=_kill_first_of, args=(engine,))
        killer.start()
        with pytest.raises(RuntimeError):
            go(engine, 'test "$0" = quick || sleep 60', "slow", "quick")
        killer.join()
        assert "was killed" in capsys.readouterr().out

    def test_what_a_killed_run_left_is_found_by_its_state(self, engine: Engine, tmp_path: Path) -> None:
        client = DockerClient.from_env()
        labels = {"morphad.state": str(tmp_path / "out" / "state")}
        client.containers.run(IMAGE, ["sleep", "60"], detach=True, labels=labels)
        other = client.containers.run(IMAGE, ["true"], detach=True, labels={"morphad.state": "/another"})
        assert engine.remove_leftovers() == 1
        assert engine.remove_leftovers() == 0
        other.remove(force=True)

    def test_images_and_networks_that_are_not_there_are_named_first(self, engine: Engine) -> None:
        @dsl.component(base_image="localhost/no-such-python:9")
        def nothing() -> None:
            pass

        @dsl.pipeline(name="nothing")
        def pipeline() -> None:
            nothing()

        with pytest.raises(BadInputError, match="image localhost/no-such-python:9: not on this machine"):
            engine.check(pipeline, "host")
        with pytest.raises(BadInputError, match="--network no-such-net"):
            engine.check(lines_of("true"), "no-such-net")
        engine.check(lines_of("true"), "host")

    def test_an_engine_that_goes_away_is_told_as_that(
        self, engine: Engine, service: "subprocess.Popen[bytes] | None"
    ) -> None:
        """Last in this module: it ends the engine."""
        if service is None:
            pytest.skip("the engine at DOCKER_HOST is not ours to end")
        ender = threading.Thread(target=_when_one_runs, args=(engine, lambda _: service.kill()))
        ender.start()
        with pytest.raises(ServiceError, match="container engine at unix://"):
            go(engine, "sleep 3", "a", "b")
        ender.join()


def _kill_first_of(engine: Engine) -> None:
    _when_one_runs(engine, lambda container: container.kill())


def _when_one_runs(engine: Engine, act: Callable[[Container], object]) -> None:
    client = DockerClient.from_env()
    for _ in range(300):
        for container in client.containers.list(filters={"label": f"morphad.state={engine._state}"}):
            act(container)
            return
        time.sleep(0.05)
    raise AssertionError("no container began")
