"""Who may do what on the MLflow server of the stack: a reader, a trainer and an approver, each by the server itself."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from exhaustive import minutes_long
from morphad.base.errors import CheckFailedError, ServiceError
from morphad.registry import DatasetFacts, Registration, Registry
from morphad.registry.account import authenticated_account
from morphad.registry.connection import Connection
from morphad.settings import RegisterSettings
from stack.__main__ import main as stack_main
from stack.stack import Stack

LINE = "shaft"
MODEL = f"morphad-{LINE}"
TRAIL = f"morphad-trail-{LINE}"
ROLES = ("reader", "trainer", "approver")

Publish = Callable[..., Registration]


@contextmanager
def as_account(stack: Stack, name: str) -> Iterator[MlflowClient]:
    """What `source .stack/env.NAME` gives a shell."""
    lines = (stack.folder / f"env.{name}").read_text().splitlines()
    exported = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in exported.items():
            patch.setenv(key, value)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        yield MlflowClient(exported["MLFLOW_TRACKING_URI"])


def _registry(**limits: int) -> Registry:
    return Registry(RegisterSettings(timeout_seconds=30, retries=1, **limits))


@pytest.fixture(scope="module", autouse=True)
def accounts(stack: Stack) -> None:
    for role in ROLES:
        assert stack_main(["account", role, "--role", role, "--folder", str(stack.folder)]) == 0


@pytest.fixture(scope="module")
def publish(tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Publish:
    report = tmp_path_factory.mktemp("report")
    (report / "index.html").write_text("<h1>report</h1>")

    def call(data: str, line: str = LINE) -> Registration:
        return _registry().publish(
            line,
            tiny_detector,
            report,
            params={"seed": 0},
            metrics={"auroc": 0.9},
            tags={},
            dataset=DatasetFacts(Path("data/manifest.parquet"), data * 64, "f" * 64, {"train": 20}),
        )

    return call


@dataclass(frozen=True)
class Line:
    """A line with version 1 as champion, and its decision trail."""

    experiment: str
    trail: str
    run: str
    model_id: str


@pytest.fixture(scope="module")
def line(stack: Stack, publish: Publish) -> Line:
    with as_account(stack, "approver") as client:
        published = publish("a")
        _registry().promote(LINE, 1, {"reasons": ["good"]}, "otto")
        trail = _registry().trail(LINE).run_id
        experiment = client.get_experiment_by_name("morphad")
        assert experiment is not None
        version = client.get_model_version(MODEL, "1")
        assert version.source.startswith("models:/m-")
        model_id = version.source.removeprefix("models:/")
        return Line(experiment.experiment_id, trail, published.run_id, model_id)


def _send(method: str, path: str, **arguments: Any) -> None:
    """A request that MLflow's client does not make."""
    who = (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"])
    answer = requests.request(
        method, f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/{path}", auth=who, timeout=30, **arguments
    )
    if answer.status_code >= 400:
        raise MlflowException(f"error code {answer.status_code}: {answer.text}")


def _file(line: Line, name: str) -> str:
    return f"mlflow-artifacts/artifacts/{line.experiment}/models/{line.model_id}/artifacts/{name}"


ALL, TRAIN, APPROVE, NOBODY = set(ROLES), {"trainer", "approver"}, {"approver"}, set[str]()
CALLS: dict[str, tuple[set[str], Callable[[MlflowClient, Line], object]]] = {
    "read the champion": (ALL, lambda c, _: c.get_model_version_by_alias(MODEL, "champion")),
    "read the aliases": (ALL, lambda c, _: c.get_registered_model(MODEL).aliases["champion"]),
    "read a file of the run": (ALL, lambda c, at: c.download_artifacts(at.run, "report/index.html")),
    "read the trail": (ALL, lambda c, at: c.get_run(at.trail).data.params["000001"]),
    "search": (ALL, lambda c, _: c.search_model_versions(f"name = '{MODEL}'")[0]),
    "start a run": (TRAIN, lambda c, at: c.create_run(at.experiment)),
    "create a version": (
        TRAIN,
        lambda c, at: c.create_model_version(MODEL, f"models:/{at.model_id}", at.run, model_id=at.model_id),
    ),
    "call it challenger": (TRAIN, lambda c, _: c.set_registered_model_alias(MODEL, "challenger", "1")),
    "call it champion": (APPROVE, lambda c, _: c.set_registered_model_alias(MODEL, "champion", "1")),
    "call it previous": (APPROVE, lambda c, _: c.set_registered_model_alias(MODEL, "previous", "1")),
    "call it candidate": (APPROVE, lambda c, _: c.set_registered_model_alias(MODEL, "candidate", "1")),
    "call it Champion": (APPROVE, lambda c, _: c.set_registered_model_alias(MODEL, "Champion", "1")),
    "take a name away": (APPROVE, lambda c, _: c.delete_registered_model_alias(MODEL, "previous")),
    "write the trail": (APPROVE, lambda c, at: c.log_param(at.trail, "note", "an entry")),
    "rewrite the trail": (NOBODY, lambda c, at: c.log_param(at.trail, "000001", "another entry")),
    "tag the trail": (APPROVE, lambda c, at: c.set_tag(at.trail, "k", "v")),
    "start another trail": (APPROVE, lambda c, _: c.create_run(_id(c, TRAIL))),
    "delete the trail": (APPROVE, lambda c, _: _delete_and_restore(c, TRAIL)),
    "change a version's tag": (APPROVE, lambda c, _: c.set_model_version_tag(MODEL, "1", "k", "v")),
    "change a version's words": (APPROVE, lambda c, _: c.update_model_version(MODEL, "1", "words")),
    "change a model's tag": (APPROVE, lambda c, _: c.set_registered_model_tag(MODEL, "k", "v")),
    "remove a model's tag": (APPROVE, lambda c, _: c.delete_registered_model_tag(MODEL, "k")),
    "change a model's words": (APPROVE, lambda c, _: c.update_registered_model(MODEL, "words")),
    "rename a model": (APPROVE, lambda c, _: _rename_and_back(c)),
    "make and delete a model": (APPROVE, lambda c, _: c.delete_registered_model(c.create_registered_model("y").name)),
    "make an experiment": (APPROVE, lambda c, _: c.create_experiment("morphad-trail-of-mine")),
    "overwrite the champion": (NOBODY, lambda _, at: _send("PUT", _file(at, "MLmodel"), data=b"other")),
    "overwrite it by a detour": (
        NOBODY,
        lambda _, at: _send("PUT", _file(at, "MLmodel").replace("/models/", "/%252E//models/"), data=b"other"),
    ),
    "add to the champion": (NOBODY, lambda _, at: _send("PUT", _file(at, "code/more.py"), data=b"other")),
    "add an odd name to it": (NOBODY, lambda _, at: _send("PUT", _file(at, "code/a%0Ab"), data=b"other")),
    "delete a file of it": (NOBODY, lambda _, at: _send("DELETE", _file(at, "MLmodel"))),
    "call it unfinished": (
        NOBODY,
        lambda _, at: _send("PATCH", "mlflow/logged-models/x", json={"model_id": at.model_id, "status": 1}),
    ),
    "make an account": (
        NOBODY,
        lambda *_: _send("POST", "mlflow/users/create", json={"username": "eve", "password": "x" * 20}),
    ),
    "list webhooks": (NOBODY, lambda *_: _send("GET", "mlflow/webhooks")),
}


def _id(client: MlflowClient, experiment: str) -> str:
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return str(found.experiment_id)


def _rename_and_back(client: MlflowClient) -> None:
    client.rename_registered_model(MODEL, f"{MODEL}-renamed")
    client.rename_registered_model(f"{MODEL}-renamed", MODEL)


def _delete_and_restore(client: MlflowClient, experiment: str) -> None:
    number = _id(client, experiment)
    client.delete_experiment(number)
    client.restore_experiment(number)


@pytest.mark.parametrize("name", CALLS)
def test_what_each_role_may_do(stack: Stack, line: Line, name: str) -> None:
    expected, call = CALLS[name]
    may = set()
    for role in ROLES:
        with as_account(stack, role) as client:
            try:
                call(client, line)
                may.add(role)
            except MlflowException as error:
                assert re.search("PERMISSION_DENIED|error code 403|Changing param values is not allowed", str(error))
    assert may == expected


def test_trainer_registers_and_does_not_promote(stack: Stack, publish: Publish) -> None:
    line, yes = "axle", {"reasons": ["good"]}
    with as_account(stack, "trainer") as client:
        with pytest.raises(ServiceError, match=r"403.* morphad registry prepare LINE"):
            publish("a", line=line)
        assert client.search_registered_models(f"name = 'morphad-{line}'") == []
    with as_account(stack, "approver"):
        _registry().prepare(line)
    with as_account(stack, "trainer") as client:
        assert [publish(data, line=line).version for data in ("a", "b")] == [1, 2]
        for act in (_registry().promote, _registry().propose, _registry().refuse):
            with pytest.raises(ServiceError, match="403"):
                act(line, 1, yes, "tina")
        with pytest.raises(MlflowException, match="403"):
            client.set_registered_model_alias(f"morphad-{line}", "champion", "1")
        assert _registry().champion(line) is None
        assert _registry().trail(line).entries == ()
        assert str(_registry().version(line, 1).trained_by) == "trainer (unknown)"
    with as_account(stack, "approver"):
        _registry().promote(line, 1, yes, "otto")
        assert str(_registry().trail(line).entries[-1].by) == "approver (otto)"
        _registry().propose(line, 2, yes, "pipeline")
    with (
        as_account(stack, "trainer"),
        pytest.raises(CheckFailedError, match=r"trained by trainer \(unknown\).*four eyes"),
    ):
        _registry().approve(line, "mine is fine", "somebody else")  # whatever name is told, the account counts
    with as_account(stack, "reader"), pytest.raises(ServiceError, match="403"):
        _registry().decline(line, "why", "eve")
    with as_account(stack, "approver"):
        _registry().approve(line, "looked at 40 parts", "otto")
    with as_account(stack, "reader"):
        champion = _registry().champion(line)
        assert champion is not None
        assert champion.number == 2
        with pytest.raises(ServiceError, match="403"):
            publish("c", line=line)


@minutes_long
def test_alias_that_an_approver_moved_by_hand_is_noticed_by_all(stack: Stack, publish: Publish) -> None:
    line = "hub"
    with as_account(stack, "approver") as client:
        _registry().prepare(line)
        for data in ("a", "b"):
            publish(data, line=line)
        _registry().promote(line, 1, {"reasons": ["good"]}, "otto")
        client.set_registered_model_alias(f"morphad-{line}", "champion", "2")
    with as_account(stack, "reader"), pytest.raises(CheckFailedError, match="MLflow's alias names version 2"):
        _registry().champion(line)


def test_reader_can_serve(stack: Stack, line: Line, tmp_path: Path) -> None:
    with as_account(stack, "reader"):
        champion = _registry().champion(LINE)
        assert champion is not None
        assert (_registry().download_model(champion, tmp_path / "model") / "MLmodel").is_file()


def test_who_am_i_is_the_servers_word(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ROLES:
        with as_account(stack, role):
            connection = Connection(RegisterSettings())
            with connection.session():
                assert authenticated_account(connection.uri) == role
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    connection = Connection(RegisterSettings(retries=0))
    with connection.session():
        assert authenticated_account(connection.uri) == "morphad"
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "approver")  # with the password of another
        with pytest.raises(MlflowException, match="error code 401"):
            authenticated_account(connection.uri)
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "no such token")
        with pytest.raises(MlflowException, match="error code 401"):
            authenticated_account(connection.uri)


def test_account_has_one_role_and_its_password_lies_in_a_private_file(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stack.folder / "env.anna"
    words = ["account", "anna", "--folder", str(stack.folder), "--role"]
    assert stack_main([*words, "approver"]) == 0
    kept = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "AWS_" not in kept
    (password,) = re.findall("PASSWORD=(.+)", kept)
    with as_account(stack, "anna") as client:
        client.delete_experiment(client.create_experiment("of-anna"))

    assert stack_main([*words, "reader"]) == 0
    assert path.read_text() == kept
    with as_account(stack, "anna") as client, pytest.raises(MlflowException, match="403"):
        client.create_experiment("again-of-anna")

    path.unlink()  # lost: a new password takes its place
    assert stack_main([*words, "reader"]) == 0
    with as_account(stack, "anna") as client:
        assert client.search_experiments()
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"anna is approver. In a shell:  source {path}"
    secrets = {password, *re.findall("PASSWORD=(.+)", path.read_text() + (stack.folder / "env.admin").read_text())}
    assert len(secrets) == 3
    seen = (
        out + err + stack.tracking.log.read_text() + " ".join(" ".join(p.cmdline()) for p in stack.tracking.processes())
    )
    assert not [secret for secret in secrets if secret in seen]


@pytest.fixture
def listener() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    heard: list[tuple[dict[str, str], bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/champion", heard
    server.shutdown()
    server.server_close()


def test_plant_is_told_of_a_champion(
    stack: Stack, line: Line, listener: tuple[str, list[tuple[dict[str, str], bytes]]]
) -> None:
    url, heard = listener
    secret = "kept by both"  # noqa: S105
    event = WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED)
    with as_account(stack, "admin") as client:
        webhook = client.create_webhook("champions", url, [event], secret=secret)
    try:
        with as_account(stack, "approver") as client:
            deadline = time.monotonic() + 30
            while not heard and time.monotonic() < deadline:  # the server looks for new webhooks every few seconds
                client.set_registered_model_alias(MODEL, "champion", "1")
                time.sleep(1)
        headers, body = heard[0]
        told = json.loads(body)
        assert (told["entity"], told["action"]) == ("model_version_alias", "created")
        assert told["data"] == {"name": MODEL, "alias": "champion", "version": "1"}
        signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.{body.decode()}"
        signature = base64.b64encode(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)).decode()
        assert headers["X-MLflow-Signature"] == f"v1,{signature}"
    finally:
        with as_account(stack, "admin") as client:
            client.delete_webhook(webhook.webhook_id)
