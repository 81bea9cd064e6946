"""Finding runs of the pipelines in Kubeflow."""

import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

from morphad.base.errors import BadInputError
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.compiling import NAMES
from morphad.kubeflow.connection import NotFoundError
from morphad.kubeflow.records import Run
from morphad.kubeflow.status import is_gone

_SEARCHED = 1000  # runs that are looked through for morphad's: Kubeflow cannot be asked for those alone
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def pipelines_there(kubeflow: Kubeflow) -> dict[str, str]:
    """What has been uploaded: identifiers of pipelines in Kubeflow, and which they are."""
    found = {kubeflow.pipeline_id(name): pipeline for pipeline, name in NAMES.items()}
    return {identifier: pipeline for identifier, pipeline in found.items() if identifier is not None}


def runs_of(kubeflow: Kubeflow, pipelines: Collection[str]) -> Iterator[Run]:
    """The pipelines' runs without their tasks, the newest first.

    Args:
        kubeflow: Where.
        pipelines: The pipelines' identifiers.

    Raises:
        BadInputError: There is no such pipeline.
    """
    if not pipelines:
        raise BadInputError(
            f"{kubeflow.connection.host}: has no pipeline {' or '.join(NAMES.values())}; run `morphad pipeline upload` "
            "first"
        )
    return (run for run in islice(kubeflow.runs(), _SEARCHED) if run.pipeline_id in pipelines)


def find_run(kubeflow: Kubeflow, name: str, pipelines: Collection[str]) -> Run:
    """A run with its tasks.

    Args:
        kubeflow: Where.
        name: Its identifier, or how that begins.
        pipelines: Identifiers of the pipelines that it may be of, where the identifier is not whole.

    Raises:
        BadInputError: There is none, or more than one begins so.
    """
    try:
        return kubeflow.run(name)
    except NotFoundError as error:
        found = [run.id for run in runs_of(kubeflow, pipelines) if run.id.startswith(name)]
        if len(found) != 1:
            what = f"{len(found)} runs begin so" if found else "no such run"
            raise BadInputError(f"run {name!r}: {what}; `morphad pipeline status` lists the runs") from error
        return kubeflow.run(found[0])


def busy_with(kubeflow: Kubeflow, pipeline_id: str, lines: Collection[str]) -> Iterator[Run]:
    """The runs of a pipeline under way that work on one of these lines; one that names no line may work on all."""
    for run in kubeflow.runs_under_way(""):
        is_of_these = not run.lines or not set(run.lines).isdisjoint(lines)
        if run.pipeline_id == pipeline_id and is_of_these and not is_gone(run, datetime.now(UTC)):
            yield run


def duration(option: str, text: str) -> timedelta:
    """A time such as 90m, 24h or 2d, given to an option.

    Raises:
        BadInputError: It is none.
    """
    match = re.fullmatch(r"(\d{1,5})([mhd])", text)
    if not match or int(match[1]) == 0:
        raise BadInputError(f"{option} {text}: expected a time such as 90m, 24h or 2d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
