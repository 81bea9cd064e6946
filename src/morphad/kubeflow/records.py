"""What Kubeflow Pipelines has, as plain types, and how its answers become them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from morphad.base.text import masked

# In any other state a run may still have pods.
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")


@dataclass(frozen=True)
class PipelineVersion:
    """An uploaded version of a pipeline."""

    pipeline_id: str
    id: str
    name: str


@dataclass(frozen=True)
class Trigger:
    """When a recurring run starts runs, and of what."""

    cron: str
    start: datetime | None
    end: datetime | None
    max_concurrency: int
    catch_up: bool
    experiment_id: str
    pipeline_id: str
    version_id: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class RecurringRun:
    """A recurring run as Kubeflow has it; with an error, all else of it but the identifier is unknown."""

    id: str
    name: str
    description: str
    created: datetime
    enabled: bool
    trigger: Trigger
    error: str = ""


@dataclass(frozen=True)
class Task:
    """What Kubeflow calls a task of a run: a node of its workflow, drivers and loops among them.

    Attributes:
        children: Identifiers of the nodes in it, and of those that begin when it has ended.
        waiting: Since when its pod waits; None: it has none that waits.
    """

    name: str
    state: str
    started: datetime | None
    ended: datetime | None
    children: tuple[str, ...] = ()
    waiting: datetime | None = None


@dataclass(frozen=True)
class Run:
    """A run as Kubeflow has it.

    Attributes:
        stopped: When somebody ended it by hand; Kubeflow shows such a run as failed in the end.
        tasks: None of them in a list of runs.
    """

    id: str
    name: str
    state: str
    error: str
    created: datetime
    ended: datetime | None
    pipeline_id: str
    recurring_run_id: str
    version_id: str
    experiment_id: str
    parameters: dict[str, Any]
    stopped: datetime | None
    tasks: tuple[Task, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of a run; none: it was started with the pipeline's own."""
        if "line" in self.parameters:  # a batch prediction's
            return (str(self.parameters["line"]),)
        items = self.parameters.get("lines") or []
        return tuple(str(item.get("line")) for item in items if isinstance(item, dict))

    @property
    def is_over(self) -> bool:
        """Whether it has no more pods, as far as Kubeflow knows."""
        return self.state in ENDED


def recurring_run_of(found: Any) -> RecurringRun:
    """A recurring run out of an answer."""
    schedule = found.trigger and found.trigger.cron_schedule  # others' have intervals too
    version = found.pipeline_version_reference
    return RecurringRun(
        id=found.recurring_run_id,
        name=found.display_name or "",
        description=found.description or "",
        created=found.created_at or datetime.fromtimestamp(0, UTC),
        enabled=found.status == "ENABLED" or (found.status is None and found.mode == "ENABLE"),
        trigger=Trigger(
            cron=(schedule and schedule.cron) or "",
            start=schedule and _time(schedule.start_time),
            end=schedule and _time(schedule.end_time),
            max_concurrency=int(found.max_concurrency or 1),
            catch_up=not found.no_catchup,
            experiment_id=found.experiment_id or "",
            pipeline_id=(version and version.pipeline_id) or "",
            version_id=(version and version.pipeline_version_id) or "",
            parameters=_parameters(found),
        ),
        error=_error(found),
    )


def run_of(found: Any) -> Run:
    """A run out of an answer."""
    version = found.pipeline_version_reference
    details = found.run_details
    return Run(
        id=found.run_id,
        name=found.display_name or "",
        state=found.state or "PENDING",
        error=_error(found),
        created=found.created_at or datetime.fromtimestamp(0, UTC),
        ended=_time(found.finished_at),
        pipeline_id=(version and version.pipeline_id) or "",
        recurring_run_id=found.recurring_run_id or "",
        version_id=(version and version.pipeline_version_id) or "",
        experiment_id=found.experiment_id or "",
        parameters=_parameters(found),
        stopped=min(_times(found, "CANCELING"), default=None),
        tasks=tuple(map(_task, (details and details.task_details) or ())),
    )


def _task(found: Any) -> Task:
    return Task(
        name=found.display_name or "",
        state=found.state or "",
        started=_time(found.start_time),
        ended=_time(found.end_time),
        children=tuple(child.pod_name for child in found.child_tasks or () if child.pod_name),
        waiting=max(_times(found, "PENDING"), default=_time(found.start_time)) if found.state == "PENDING" else None,
    )


def _times(found: Any, state: str) -> list[datetime]:
    """When a run or task came into a state."""
    return [each.update_time for each in found.state_history or () if each.state == state]


def _error(found: Any) -> str:
    return masked((found.error and (found.error.message or f"code {found.error.code}")) or "")


def _parameters(found: Any) -> dict[str, Any]:
    return dict((found.runtime_config and found.runtime_config.parameters) or {})


def _time(given: datetime | None) -> datetime | None:
    """A time; None for what Kubeflow writes in the place of no time: the year 1, or 1970."""
    return given if given is not None and given.year > 1970 else None
