"""The tasks of kfp.local in containers of Docker or podman: with their exit codes, mounts, limits and user.

kfp's own runner lets the engine remove a container when it ends and asks for the exit code afterwards. podman has none
by then, and kfp takes that for success: failed tasks count as done. Here a container is removed once its exit code has
been read. The rest is kfp's.
"""

import codecs
import getpass
import inspect
import os
import re
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp
from docker.client import DockerClient
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import Mount
from kfp import local
from kfp.local import docker_task_handler
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.text import masked
from morphad.kubeflow.cluster import ClusterSettings, StepSettings
from morphad.kubeflow.pods import bytes_of
from morphad.kubeflow.reach import task_paths
from morphad.settings import LineSettings

# Variables that a task gets where the caller has them, beside those that the secrets in cluster.yaml give to pods.
_PREFIXES = ("AWS_", "MLFLOW_")
_VARIABLES = {
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
}  # fmt: skip
_OF_FILES = ("_FILE", "_BUNDLE", "_PATH")  # ends of names whose values are files, which a task needs too

_LABEL = "morphad.state"
_KILLED = 137
_ENDED = {"exited", "dead"}
_PATIENCE = 300  # seconds for one request: an engine that copies an image's layers is busy for minutes
_REMOVAL = 60  # seconds for a container to be removed
_LAST_WORDS = 5  # seconds for a followed log to end after its container
_KNOWN = ["client", "image", "command", "volumes", "container_run_args"]
_BROKEN = (DockerException, RequestException, HTTPError, ConnectionResetError)


class Engine:
    """Docker, or podman behind Docker's API, at DOCKER_HOST or its usual place.

    Args:
        cluster: What the tasks get: their memory, their shared memory, the names of their secrets' variables.
        out: Where kfp puts artifacts; kfp mounts it by itself.
        state: The lasting state; containers are marked with it, so that those of a killed run can be found.

    Raises:
        ServiceError: Nobody answers there.
        BadInputError: This version of kfp runs containers in another way than this module knows.
    """

    def __init__(self, cluster: ClusterSettings, out: Path, state: Path) -> None:
        handler = docker_task_handler
        parameters = list(inspect.signature(handler.run_docker_container).parameters)
        if parameters != _KNOWN or "run_docker_container" not in handler.DockerTaskHandler.run.__code__.co_names:
            raise BadInputError(
                f"kfp {kfp.__version__} runs containers in another way than this morphad knows; install "
                "the version in constraints.txt, or use --runner subprocess"
            )
        self._steps = {str(name): step for name, step in cluster.steps.items()}
        self._secrets = {name for secret in cluster.secrets.values() for name in secret.environment.values()}
        self._out, self._state = out, state
        self._stopped = False
        self._failure: ServiceError | None = None
        try:
            self._client = DockerClient.from_env()
            info = self._client.info()
        except _BROKEN as error:
            raise _no_answer(error) from None
        self._limits_memory = bool(info.get("MemoryLimit"))
        options = " ".join(info.get("SecurityOptions") or ())
        # In a rootless engine, root is the caller; in any other, files would be root's.
        self._user = "0:0" if "name=rootless" in options else f"{os.getuid()}:{os.getgid()}"
        # SELinux hides what is mounted unless it is labelled anew, which is not ours to do with folders of images.
        self._security = ["label=disable"] if "name=selinux" in options else []

    def check(self, pipeline: Any, network: str) -> None:
        """See that a network and the images of a pipeline's tasks are here, before anything runs.

        Raises:
            BadInputError: One is missing; nothing is ever downloaded unasked.
        """
        try:
            if network != "host":
                self._client.networks.get(network)
        except NotFound:
            raise BadInputError(f"--network {network}: the engine has no such network; make it, or use host") from None
        except _BROKEN as error:
            raise _no_answer(error) from None
        executors = pipeline.pipeline_spec.deployment_spec["executors"]
        for image in sorted({executor["container"]["image"] for executor in executors.values()}):
            try:
                self._client.images.get(image)
            except ImageNotFound:
                raise BadInputError(
                    f"image {image}: not on this machine; build it (make images), pull it, or name another one with "
                    "MORPHAD_IMAGE or with `image` of a step in pipelines/cluster.yaml"
                ) from None
            except _BROKEN as error:
                raise _no_answer(error) from None

    def remove_leftovers(self) -> int:
        """Remove containers that an earlier run on the same state left when it was killed; give their number."""
        try:
            left = self._client.containers.list(all=True, filters={"label": f"{_LABEL}={self._state}"})
            for container in left:
                container.remove(force=True)
        except _BROKEN as error:
            raise _no_answer(error) from None
        return len(left)

    def stop(self) -> None:
        """End the running tasks and let no other begin."""
        self._stopped = True
        self.remove_leftovers()

    @contextmanager
    def runner(self, lines: Iterable[LineSettings], network: str) -> Iterator[local.DockerRunner]:
        """kfp's runner, working as it should while the block lasts.

        Args:
            lines: What will run: folders of images are mounted, read-only, where they lie here.
            network: The engine's network that tasks are in; "host": this machine's.

        Raises:
            BadInputError: The tasks could not reach MLflow from that network.
            ServiceError: The engine went away.
        """
        environment = task_environment(self._secrets)
        lines = list(lines)
        given = environment.get("MLFLOW_TRACKING_URI", "").strip()
        addresses = {given} if given else {line.register_.tracking_uri for line in lines}
        check_reach(addresses, environment, network)
        mounts = {self._state: False, **task_mounts(lines, addresses, environment)}
        mounts.pop(self._out, None)
        runner = local.DockerRunner(
            network_mode=network,
            user=self._user,
            environment=environment,
            mounts=[Mount(str(path), str(path), type="bind", read_only=fixed) for path, fixed in mounts.items()],
            working_dir=str(Path.cwd()),  # relative paths in the settings mean the same as here
            labels={_LABEL: str(self._state)},
            security_opt=self._security,
        )
        kfps, docker_task_handler.run_docker_container = docker_task_handler.run_docker_container, self._run
        try:
            yield runner
        except _BROKEN as error:
            raise _no_answer(error) from None
        finally:
            docker_task_handler.run_docker_container = kfps
        if self._failure is not None:
            raise self._failure

    def _run(self, client: Any, image: str, command: list[str], volumes: Mapping[str, Any], **arguments: Any) -> int:
        """In place of kfp's function: run a container to its end and give its exit code."""
        if self._stopped or self._failure is not None:
            return 1
        step = self._step(command)
        limits = {} if step is None else self._limits(step)
        client.api.timeout = _PATIENCE
        try:
            container = client.containers.run(
                image=image, command=command, volumes=volumes, detach=True, **arguments, **limits
            )
            try:
                log = _Log(container)
                code = _exit_code(container)
                log.end()
            finally:
                _remove(container)
        except APIError as error:  # the engine is there and refuses, or somebody removed the container
            print(f"container engine: {masked(str(error.explanation or error))}")
            return 1
        except _BROKEN as error:
            self._failure = _no_answer(error)
            return 1
        if code == _KILLED:
            print(f"The container was killed: by hand, or for want of memory ({limits.get('mem_limit', 'no limit')} B)")
        return code

    def _step(self, command: list[str]) -> StepSettings | None:
        """What cluster.yaml says of the step that a component's command runs."""
        flag = "--function_to_execute"
        return self._steps.get(command[command.index(flag) + 1]) if flag in command else None

    def _limits(self, step: StepSettings) -> dict[str, int]:
        limits = {} if step.shared_memory is None else {"shm_size": bytes_of(step.shared_memory)}
        return {**limits, "mem_limit": bytes_of(step.memory.limit)} if self._limits_memory else limits


def task_environment(secrets: Collection[str]) -> dict[str, str]:
    """What tasks get of the caller's environment: services, credentials, proxies, certificates, numbers of threads.

    Args:
        secrets: Further names of variables that are credentials.
    """
    given = {
        name: value
        for name, value in os.environ.items()
        if value and (name.startswith(_PREFIXES) or name in _VARIABLES or name in secrets)
    }
    # The caller's number has no name and no home in the image; libraries ask for both.
    return {**given, "HOME": "/tmp", "LOGNAME": _user_name()}  # noqa: S108 - each container has its own


def _exit_code(container: Container) -> int:
    """Wait for a container's end by asking again and again: no request is open for as long as a task takes."""
    pause = 0.05
    while (state := container.attrs["State"])["Status"] not in _ENDED:
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
        container.reload()
    return int(state["ExitCode"])


def _remove(container: Container) -> None:
    """Remove a container; where the engine does not manage to, `Engine.remove_leftovers` of the next run does."""
    container.client.api.timeout = _REMOVAL
    try:
        container.remove(force=True)
    except _BROKEN as error:
        print(f"container {container.short_id} of a task that is over was left: {masked(str(error))}")


class _Log:
    """Prints what a container says as it says it.

    An engine may never end a log that is followed although its container has ended (podman does so now and then when
    both happen at once), so the log is followed beside the task, and what was missed is read after its end.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._printed, self._rest = 0, ""
        self._lock, self._whole, self._ended = threading.Lock(), False, False
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def end(self) -> None:
        """Print the rest of an ended container's log."""
        self._follower.join(_LAST_WORDS)
        with self._lock:
            self._ended = True
            if not self._whole:
                self._print(self._container.logs()[self._printed :])
            if self._rest:
                print(self._rest)

    def _follow(self) -> None:
        try:
            # A client of its own: a task may be silent for longer than a request may take.
            version = self._container.client.api.api_version
            container = DockerClient.from_env(version=version, timeout=None).containers.get(self._container.id)
            for chunk in container.logs(stream=True, follow=True):
                with self._lock:
                    if self._ended:
                        return
                    self._print(chunk)
            self._whole = True
        except _BROKEN:
            return  # `end` reads what is missing

    def _print(self, chunk: bytes) -> None:
        self._printed += len(chunk)
        *lines, self._rest = (self._rest + self._decoder.decode(chunk)).split("\n")
        for line in lines:
            print(line)


def check_reach(addresses: set[str], environment: Mapping[str, str], network: str) -> None:
    """See that tasks in a network of their own are not sent to this machine's loopback.

    Raises:
        BadInputError: They are.
    """
    stores = {value for name, value in environment.items() if name.startswith("AWS_ENDPOINT_URL")}
    for address in sorted(addresses | stores) if network != "host" else ():
        if (host := urlsplit(address).hostname) in {"localhost", "127.0.0.1", "::1"}:
            raise BadInputError(
                f"a service at {host}: in network {network!r} that is the container itself; use --network host, or "
                "give an address that containers reach (MLFLOW_TRACKING_URI, AWS_ENDPOINT_URL)"
            )


def task_mounts(lines: Iterable[LineSettings], addresses: set[str], environment: Mapping[str, str]) -> dict[Path, bool]:
    """Paths that tasks find where they are here, and whether read-only."""
    found: dict[Path, bool] = {}
    for line in lines:
        for _, key, name in task_paths(line):
            path = Path(name).absolute()
            # Beside a listing lie its images.
            found[path.parent if key == "ingest.path" and line.ingest.source == "listing" else path] = True
    for variable, value in environment.items():
        if variable.endswith(_OF_FILES):
            found[Path(value).absolute()] = True
    for address in addresses:
        if address.startswith("sqlite:///"):  # beside the file, MLflow writes its journal and artifacts
            found[Path(address.removeprefix("sqlite:///").split("?")[0]).absolute().parent] = False
    # What is not here is not there either: the step says so, for its line alone.
    return {path: fixed for path, fixed in found.items() if path.exists()}


def _no_answer(error: BaseException) -> ServiceError:
    host = os.environ.get("DOCKER_HOST", "").strip()
    where = f"at {host}" if host else "at its usual socket (DOCKER_HOST is not set)"
    text = " ".join(str(error).split())
    buried = re.search(r"(?:\[Errno -?\d+\] |Error\(\d+, ')([^'\")]+)", text)
    return ServiceError(
        f"container engine {where}: {buried.group(1) if buried else text}; start Docker, or podman's service "
        "(podman system service --time=0 unix:///run/podman/podman.sock) and name it in DOCKER_HOST, or use "
        "--runner subprocess"
    )


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
