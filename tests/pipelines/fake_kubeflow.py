"""Kubeflow Pipelines' API, as far as morphad uses it: a real HTTP server on this machine, with a state, without pods.

It answers in the shapes of the published contract and of recorded answers (test_kubeflow_contract.py and
test_kubeflow_shapes.py hold it to that) and does what the real server was seen or read to do: pages, filters, 409 for
names that are taken, runs that end with their recurring run, no key for what is empty.
"""

import base64
import json
import os
import re
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fake_workflow import Workflow, prediction, stamp, training

Json = dict[str, Any]

ROOT = "/apis/v2beta1"
ENDED = {"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"}


class RefusedError(Exception):
    """An error that the server answers with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakeKubeflow:
    """The state behind the API, and what tests may do to it."""

    def __init__(self) -> None:
        self.pipelines: dict[str, Json] = {}
        self.versions: dict[str, Json] = {}
        self.experiments: dict[str, Json] = {}
        self.recurring_runs: dict[str, Json] = {}
        self.runs: dict[str, Json] = {}
        self.uploads: list[bytes] = []
        self.requests: list[str] = []
        self.token: str | None = None
        self.multi_user = False
        self.forbidden: str | None = None  # requests whose path begins so are answered with 403
        self.broken: str | None = None  # and so with 500
        self.knows_policy = True  # older servers do not: deleting a recurring run ends its runs
        self.page_limit = 200
        self.kill: tuple[int, str, Callable[[], int]] | None = None  # number of the request, before|after, whom
        self.watch: Callable[[FakeKubeflow], None] = lambda _: None  # called after each request that changed something
        self.address = ""
        self.logs: dict[str, str] = {}  # of pods that are there, by their name
        self.kept: dict[str, str] = {}  # what Argo kept, by the node's identifier
        self.gone: set[str] = set()  # runs whose workflow is gone
        self.workflows: dict[str, Workflow] = {}
        self._lock = threading.RLock()

    # What tests may do to it.

    def move(self, run_id: str, state: str, at: datetime | None = None) -> None:
        """Bring a run into a state."""
        run, when = self.runs[run_id], stamp(at or datetime.now(UTC))
        run["state"] = state
        run["state_history"].append({"update_time": when, "state": state})
        if state in ENDED:
            run["finished_at"] = when

    def began(self, run_id: str, at: datetime) -> None:
        """Let a run have begun at a time."""
        run = self.runs[run_id]
        run["created_at"] = run["scheduled_at"] = run["state_history"][0]["update_time"] = stamp(at)

    def work(self, run_id: str, lines: Sequence[Mapping[str, str]], **more: Any) -> Workflow:
        """Let Argo have done something of a run of the training pipeline: the states of each line's steps."""
        began = datetime.fromisoformat(self.runs[run_id]["created_at"])
        return self._worked(run_id, training(run_id, f"morphad-training-{run_id[:5]}", began, lines, **more))

    def shards(self, run_id: str, states: Sequence[str]) -> Workflow:
        """Let a run of the batch prediction pipeline have come to its shards: the state of each."""
        began = datetime.fromisoformat(self.runs[run_id]["created_at"])
        return self._worked(run_id, prediction(run_id, f"morphad-batch-predict-{run_id[:5]}", began, states))

    def _worked(self, run_id: str, made: Workflow) -> Workflow:
        self.workflows[run_id] = made
        self.runs[run_id]["run_details"] = {"task_details": made.tasks}
        return made

    def wrote(self, run_id: str, step: str, line: int | None, *texts: str, kept: bool = False) -> None:
        """Let the pods of a step have written these logs; kept: the pods are gone, and Argo kept them."""
        workflow = self.workflows[run_id]
        for node, text in zip(workflow.pods[step, line], texts, strict=True):
            if kept:
                self.kept[node] = text
            else:
                number = node.removeprefix(f"{workflow.name}-")
                self.logs[f"{workflow.name}-system-container-impl-{number}"] = text

    def handle(
        self, method: str, path: str, query: dict[str, str], body: bytes, headers: Any
    ) -> tuple[int, Json | str]:
        with self._lock:
            self.requests.append(f"{method} {path}")
            number = len(self.requests)
            if self._interrupts(number, "before"):
                return 0, {}
            try:
                status, answer = 200, _without_nothing(self._answer(method, path, query, body, headers))
            except RefusedError as refused:
                code = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6}.get(refused.status, 13)
                status, answer = refused.status, {"code": code, "message": str(refused), "details": []}
            if method != "GET":
                self.watch(self)
            return (0, {}) if self._interrupts(number, "after") else (status, answer)

    def _interrupts(self, number: int, when: str) -> bool:
        if self.kill is None or self.kill[:2] != (number, when):
            return False
        os.kill(self.kill[2](), signal.SIGKILL)
        return True

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes, headers: Any) -> Json | str:
        if self.token is not None and headers.get("Authorization") != f"Bearer {self.token}":
            raise RefusedError(401, "Request header error: there is no user identity header.")
        if self.forbidden is not None and path.startswith(self.forbidden):
            raise RefusedError(403, "User 'system:serviceaccount:plant:default' is not authorized")
        if self.broken is not None and path.startswith(self.broken):
            raise RefusedError(500, "InternalServerError: the database is away\nand a long story")
        for verb, pattern, action in self._routes:
            match = re.fullmatch(pattern, path)
            if match and verb == method:
                given = json.loads(body) if body[:1] == b"{" else {}
                return action(self, *map(unquote, match.groups()), query=query, body=given, raw=body)
        raise RefusedError(404, f"Not Found: {method} {path}")

    # Answers; each gets the words of its path.

    def _health(self, **_: Any) -> Json:
        return {"multi_user": self.multi_user, "pipeline_store": "database"}

    def _pipeline_by_name(self, name: str, *, query: dict[str, str], **_: Any) -> Json:
        for pipeline in self.pipelines.values():
            if pipeline["name"] == name and pipeline.get("namespace", "") == query.get("namespace", ""):
                return pipeline
        raise RefusedError(404, f"Failed to get the pipeline {name}: not found")

    def _create_pipeline(self, *, body: Json, **_: Any) -> Json:
        if any(p["name"] == body["name"] for p in self.pipelines.values()):
            raise RefusedError(409, f"The name {body['name']} already exist")
        return self._keep(self.pipelines, "pipeline_id", body)

    def _list_versions(self, pipeline_id: str, *, query: dict[str, str], **_: Any) -> Json:
        found = [v for v in self.versions.values() if v["pipeline_id"] == pipeline_id]
        return self._page("pipeline_versions", found, query)

    def _upload_version(self, *, query: dict[str, str], raw: bytes, **_: Any) -> Json:
        if query["pipelineid"] not in self.pipelines:
            raise RefusedError(404, "Pipeline not found")
        if any((v["pipeline_id"], v["name"]) == (query["pipelineid"], query["name"]) for v in self.versions.values()):
            raise RefusedError(409, f"The name {query['name']} already exist")
        self.uploads.append(raw)
        version = {"pipeline_id": query["pipelineid"], "name": query["name"], "display_name": query["name"]}
        version["description"] = query.get("description", "")
        return self._keep(self.versions, "pipeline_version_id", version)

    def _list_experiments(self, *, query: dict[str, str], **_: Any) -> Json:
        return self._page("experiments", list(self.experiments.values()), query)

    def _create_experiment(self, *, body: Json, **_: Any) -> Json:
        if any(e["display_name"] == body["display_name"] for e in self.experiments.values()):
            raise RefusedError(409, f"The experiment {body['display_name']} already exists")
        return self._keep(self.experiments, "experiment_id", body)

    def _list_recurring_runs(self, *, query: dict[str, str], **_: Any) -> Json:
        return self._page("recurringRuns", list(self.recurring_runs.values()), query)

    def _create_recurring_run(self, *, body: Json, **_: Any) -> Json:
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise RefusedError(400, "The max concurrency of the recurring run is out of range. Support 1-10.")
        self._check_references(body)
        cron = body["trigger"]["cron_schedule"]["cron"]
        if len(cron.split()) not in {5, 6}:
            raise RefusedError(400, f"Schedule cron is not a supported format: {cron}")
        body["status"] = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
        body |= {"service_account": "pipeline-runner", "namespace": "kubeflow"}
        kept = self._keep(self.recurring_runs, "recurring_run_id", body)
        kept["updated_at"] = kept["created_at"]
        return kept

    def _recurring_run(self, identifier: str, **_: Any) -> Json:
        if identifier not in self.recurring_runs:
            raise RefusedError(404, f"Recurring run {identifier} not found")
        return self.recurring_runs[identifier]

    def _delete_recurring_run(self, identifier: str, *, query: dict[str, str], **_: Any) -> Json:
        self._recurring_run(identifier)
        del self.recurring_runs[identifier]
        orphans = self.knows_policy and query.get("propagation_policy") == "ORPHAN"
        for run in self.runs.values():
            if run.get("recurring_run_id") == identifier and run["state"] not in ENDED and not orphans:
                run["state"] = "FAILED"
        return {}

    def _enable(self, identifier: str, **_: Any) -> Json:
        self._recurring_run(identifier).update(status="ENABLED", mode="ENABLE")
        return {}

    def _disable(self, identifier: str, **_: Any) -> Json:
        self._recurring_run(identifier).update(status="DISABLED", mode="DISABLE")
        return {}

    def _list_runs(self, *, query: dict[str, str], **_: Any) -> Json:
        found = list(self.runs.values())
        if query.get("experiment_id"):
            found = [run for run in found if run["experiment_id"] == query["experiment_id"]]
        if query.get("sort_by") == "created_at desc":
            found.reverse()
        # What a list holds of runs has no tasks.
        return self._page("runs", [{k: v for k, v in run.items() if k != "run_details"} for run in found], query)

    def _create_run(self, *, body: Json, **_: Any) -> Json:
        self._check_references(body)
        given = {"storage_state": "AVAILABLE", "service_account": "pipeline-runner", "state": "PENDING"}
        run = self._keep(self.runs, "run_id", {**body, **given})
        run["scheduled_at"], run["finished_at"] = run["created_at"], "1970-01-01T00:00:00Z"
        run["state_history"] = [{"update_time": run["created_at"], "state": "PENDING"}]
        return run

    def _run(self, identifier: str, **_: Any) -> Json:
        if identifier not in self.runs:
            raise RefusedError(404, f"Run {identifier} not found")
        return self.runs[identifier]

    def _terminate(self, identifier: str, **_: Any) -> Json:
        run = self._run(identifier)
        if run["state"] in ENDED:
            raise RefusedError(400, f"Failed to terminate run {identifier}: it has ended")
        self.move(identifier, "CANCELING")
        if identifier in self.gone:
            raise RefusedError(500, f"Failed to terminate run {identifier} due to error terminating its workflow")
        return {}

    def _log(self, run: str, pod: str, **_: Any) -> Json | str:
        self._run(run)
        if pod in self.logs:
            return self.logs[pod]
        # With 200: it has said so before it looks.
        return {"error_message": f"Failed to read logs for run {run}", "error_details": "pods not found"}

    def _artifact(self, run: str, node: str, artifact: str, **_: Any) -> Json:
        self._run(run)
        if artifact != "main-logs" or node not in self.kept:
            raise RefusedError(404, "Failed to read artifact: artifact not found")
        return {"data": base64.b64encode(self.kept[node].encode()).decode()}

    # What they share

    def _check_references(self, body: Json) -> None:
        if body.get("experiment_id") not in self.experiments:
            raise RefusedError(404, f"Experiment {body.get('experiment_id')} not found")
        if body["pipeline_version_reference"]["pipeline_version_id"] not in self.versions:
            raise RefusedError(404, "Pipeline version not found")

    def _keep(self, where: dict[str, Json], key: str, value: Json) -> Json:
        if self.multi_user and "namespace" not in value and key in {"pipeline_id", "experiment_id"}:
            raise RefusedError(400, "Namespace cannot be empty")
        created = stamp(datetime.now(UTC))
        kept = {**value, key: str(uuid.uuid4()), "created_at": created}
        where[kept[key]] = kept
        return kept

    def _page(self, name: str, found: list[Json], query: dict[str, str]) -> Json:
        for predicate in json.loads(query.get("filter") or "{}").get("predicates", ()):
            equal = predicate["operation"] == "EQUALS"
            assert equal or predicate["operation"] == "NOT_EQUALS"
            found = [f for f in found if (f.get(predicate["key"], "") == predicate["stringValue"]) == equal]
        start = int(query.get("page_token") or 0)
        size = min(int(query.get("page_size") or 20), self.page_limit)
        answer: Json = {name: found[start : start + size], "total_size": len(found)}
        if start + size < len(found):
            answer["next_page_token"] = str(start + size)
        return answer

    _routes: tuple[tuple[str, str, Callable[..., Json | str]], ...] = (
        ("GET", "/healthz", _health),
        ("GET", "/pipelines/names/([^/]+)", _pipeline_by_name),
        ("POST", "/pipelines", _create_pipeline),
        ("POST", "/pipelines/upload_version", _upload_version),
        ("GET", "/pipelines/([^/]+)/versions", _list_versions),
        ("GET", "/experiments", _list_experiments),
        ("POST", "/experiments", _create_experiment),
        ("GET", "/recurringruns", _list_recurring_runs),
        ("POST", "/recurringruns", _create_recurring_run),
        ("DELETE", "/recurringruns/([^/:]+)", _delete_recurring_run),
        ("POST", "/recurringruns/([^/:]+):enable", _enable),
        ("POST", "/recurringruns/([^/:]+):disable", _disable),
        ("GET", "/runs", _list_runs),
        ("POST", "/runs", _create_run),
        ("GET", "/runs/([^/:]+)", _run),
        ("POST", "/runs/([^/:]+):terminate", _terminate),
        ("GET", "/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", _log),
        ("GET", "/runs/([^/]+)/nodes/([^/]+)/artifacts/([^/:]+):read", _artifact),
    )


def _without_nothing(answer: Any) -> Any:
    """An answer as the real server writes it: no keys of what is empty, false or zero, but for a run's parameters."""
    if isinstance(answer, dict):
        return {
            key: value if key == "parameters" else _without_nothing(value)
            for key, value in answer.items()
            if value not in ("", None, False, 0, [])
        }
    return [_without_nothing(each) for each in answer] if isinstance(answer, list) else answer


@contextmanager
def serving() -> Iterator[FakeKubeflow]:
    """A server on a free port of the loopback, until the block ends."""
    fake = FakeKubeflow()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
            path = url.path.removeprefix(ROOT)
            status, answer = fake.handle(self.command, path, query, body, self.headers)
            if status == 0:  # the one who asked is dead
                self.close_connection = True
                return
            content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _do  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    fake.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
