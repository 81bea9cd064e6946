"""The calls to Kubeflow Pipelines that morphad needs, with plain types on both sides."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kfp_server_api as api

from morphad.base.text import masked
from morphad.kubeflow.connection import Connection, NotFoundError
from morphad.kubeflow.nodes import Pod
from morphad.kubeflow.records import (
    ENDED,
    PipelineVersion,
    RecurringRun,
    Run,
    Trigger,
    recurring_run_of,
    run_of,
)


class Kubeflow:
    """Kubeflow Pipelines at one host, in one namespace; every method raises ServiceError when it does not answer.

    Args:
        connection: The way there.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._call = connection.call
        self._pipelines = api.PipelineServiceApi(connection.api)
        self._uploads = api.PipelineUploadServiceApi(connection.api)
        self._experiments = api.ExperimentServiceApi(connection.api)
        self._recurring_runs = api.RecurringRunServiceApi(connection.api)
        self._runs = api.RunServiceApi(connection.api)

    def pipeline_id(self, name: str) -> str | None:
        """The pipeline of that name; None: there is none."""
        call = self._pipelines.pipeline_service_get_pipeline_by_name_with_http_info
        try:
            return str(self._call(f"look for pipeline {name}", call, name, **self.connection.where).pipeline_id)
        except NotFoundError:
            return None

    def create_pipeline(self, name: str, description: str) -> str:
        """Make a pipeline without versions and give its identifier."""
        body = api.V2beta1Pipeline(
            name=name, display_name=name, description=description, namespace=self.connection.namespace
        )
        call = self._pipelines.pipeline_service_create_pipeline_with_http_info
        return str(self._call(f"make pipeline {name}", call, body).pipeline_id)

    def version(self, pipeline_id: str, name: str) -> PipelineVersion | None:
        """The version of that name; None: there is none."""
        call = self._pipelines.pipeline_service_list_pipeline_versions_with_http_info
        wanted = _filter("EQUALS", "name", name)
        answer = self._call(f"look for version {name}", call, pipeline_id, filter=wanted, page_size=10)
        found = next((v for v in answer.pipeline_versions or () if name in {v.name, v.display_name}), None)
        return None if found is None else PipelineVersion(pipeline_id, found.pipeline_version_id, name)

    def upload_version(self, pipeline_id: str, name: str, package: Path, description: str) -> PipelineVersion:
        """Upload a compiled pipeline as a version."""
        call = self._uploads.upload_pipeline_version_with_http_info
        answer = self._call(
            f"upload version {name}", call, str(package), name=name, pipelineid=pipeline_id, description=description
        )
        return PipelineVersion(pipeline_id, answer.pipeline_version_id, name)

    def experiment_id(self, name: str) -> str | None:
        """The experiment of that name; None: there is none."""
        call = self._experiments.experiment_service_list_experiments_with_http_info
        wanted = _filter("EQUALS", "display_name", name)
        answer = self._call(f"look for experiment {name}", call, filter=wanted, page_size=10, **self.connection.where)
        return next((e.experiment_id for e in answer.experiments or () if e.display_name == name), None)

    def create_experiment(self, name: str) -> str:
        """Make an experiment and give its identifier."""
        body = api.V2beta1Experiment(display_name=name, namespace=self.connection.namespace)
        call = self._experiments.experiment_service_create_experiment_with_http_info
        return str(self._call(f"make experiment {name}", call, body).experiment_id)

    def recurring_runs(self) -> Iterator[RecurringRun]:
        """All recurring runs of the namespace, whoever made them."""
        call = self._recurring_runs.recurring_run_service_list_recurring_runs_with_http_info
        for answer in self.connection.pages("list the recurring runs", call, **self.connection.where):
            yield from map(recurring_run_of, answer.recurring_runs or ())

    def create_recurring_run(self, name: str, description: str, trigger: Trigger, enabled: bool) -> str:
        """Make a recurring run and give its identifier."""
        schedule = api.V2beta1CronSchedule(cron=trigger.cron, start_time=trigger.start, end_time=trigger.end)
        body = api.V2beta1RecurringRun(
            display_name=name,
            description=description,
            experiment_id=trigger.experiment_id,
            mode=api.RecurringRunMode.ENABLE if enabled else api.RecurringRunMode.DISABLE,
            pipeline_version_reference=_reference(trigger.pipeline_id, trigger.version_id),
            runtime_config=api.V2beta1RuntimeConfig(parameters=trigger.parameters),
            trigger=api.V2beta1Trigger(cron_schedule=schedule),
            max_concurrency=str(trigger.max_concurrency),  # an int64 is a string in the contract
            no_catchup=not trigger.catch_up,
        )
        call = self._recurring_runs.recurring_run_service_create_recurring_run_with_http_info
        return str(self._call(f"make recurring run {name}", call, body).recurring_run_id)

    def enable_recurring_run(self, recurring_run_id: str) -> None:
        """Let a recurring run start runs."""
        call = self._recurring_runs.recurring_run_service_enable_recurring_run_with_http_info
        self._call(f"enable recurring run {recurring_run_id}", call, recurring_run_id)

    def disable_recurring_run(self, recurring_run_id: str) -> None:
        """Let a recurring run start no more runs; its runs under way go on. One that is gone starts none either."""
        call = self._recurring_runs.recurring_run_service_disable_recurring_run_with_http_info
        _unless_gone(lambda: self._call(f"disable recurring run {recurring_run_id}", call, recurring_run_id))

    def delete_recurring_run(self, recurring_run_id: str) -> None:
        """Delete a recurring run. An older Kubeflow does not know the policy: there, runs under way end with it."""
        call = self._recurring_runs.recurring_run_service_delete_recurring_run_with_http_info
        what = f"delete recurring run {recurring_run_id}"
        _unless_gone(lambda: self._call(what, call, recurring_run_id, propagation_policy="ORPHAN"))

    def create_run(self, name: str, experiment_id: str, version: PipelineVersion, parameters: dict[str, Any]) -> str:
        """Start a run and give its identifier."""
        body = api.V2beta1Run(
            display_name=name,
            experiment_id=experiment_id,
            pipeline_version_reference=_reference(version.pipeline_id, version.id),
            runtime_config=api.V2beta1RuntimeConfig(parameters=parameters),
        )
        call = self._runs.run_service_create_run_with_http_info
        return str(self._call(f"start run {name}", call, body).run_id)

    def run(self, run_id: str) -> Run:
        """A run with its tasks.

        Raises:
            NotFoundError: There is no such run.
        """
        return run_of(self._call(f"get run {run_id}", self._runs.run_service_get_run_with_http_info, run_id))

    def end_run(self, run_id: str) -> None:
        """Ask for the end of a run; its pods end a little later.

        Raises:
            NotFoundError: There is no such run.
        """
        self._call(f"end run {run_id}", self._runs.run_service_terminate_run_with_http_info, run_id)

    def log(self, run_id: str, pod: Pod) -> str | None:
        """What a pod of a run wrote, from itself or from where Argo keeps logs; None: Kubeflow has it no longer."""
        what = f"read the log of {pod.names[0]}"
        for name in pod.names:
            if (content := self.connection.read(what, f"/apis/v1alpha1/runs/{run_id}/nodes/{name}/log")) is not None:
                return masked(content.decode(errors="replace"))
        kept = self.connection.read(what, f"/apis/v2beta1/runs/{run_id}/nodes/{pod.node}/artifacts/main-logs:read")
        if kept is None:
            return None
        try:
            return masked(base64.b64decode(json.loads(kept)["data"]).decode(errors="replace"))
        except (ValueError, KeyError, TypeError):  # a page of something else
            return None

    def runs(self) -> Iterator[Run]:
        """The runs of the namespace, the newest first."""
        call = self._runs.run_service_list_runs_with_http_info
        for answer in self.connection.pages("list the runs", call, sort_by="created_at desc", **self.connection.where):
            yield from map(run_of, answer.runs or ())

    def runs_under_way(self, experiment_id: str) -> Iterator[Run]:
        """The runs of an experiment that may still have pods."""
        call = self._runs.run_service_list_runs_with_http_info
        where = {"experiment_id": experiment_id} if experiment_id else self.connection.where
        # Not by recurring run: the server takes that key for a column that its table does not have.
        wanted = _filter("NOT_EQUALS", "state", *ENDED)
        for answer in self.connection.pages("list the runs under way", call, filter=wanted, **where):
            yield from map(run_of, answer.runs or ())


def _unless_gone(call: Callable[[], object]) -> None:
    try:
        call()
    except NotFoundError:
        return


def _filter(operation: str, key: str, *values: str) -> str:
    """A filter of the API: each of the values as a condition, and all of them."""
    return json.dumps({"predicates": [{"operation": operation, "key": key, "stringValue": value} for value in values]})


def _reference(pipeline_id: str, version_id: str) -> Any:
    return api.V2beta1PipelineVersionReference(pipeline_id=pipeline_id, pipeline_version_id=version_id)
