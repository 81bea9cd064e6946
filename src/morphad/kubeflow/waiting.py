"""Waiting for the end of runs, with a line now and then for whoever waits."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from morphad.base.patience import wait_out
from morphad.base.progress import Ticker
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.finding import busy_with
from morphad.kubeflow.outcomes import Outcomes
from morphad.kubeflow.records import Run
from morphad.kubeflow.status import is_gone, span

POLL_SECONDS = 10.0
_PATIENCE_MINUTES = 10  # for a Kubeflow that is away

_SHOWN = 3  # runs in one line


def wait_for_ends(kubeflow: Kubeflow, pipeline: str, runs: Mapping[str, str]) -> list[Run]:
    """Wait until runs have ended, and give them with their tasks. A Kubeflow that is away is waited out.

    Args:
        kubeflow: Where.
        pipeline: Which they are of.
        runs: Identifiers of the runs, and their lines in words.

    Raises:
        ServiceError: Kubeflow has been away for too long, or refuses.
    """
    ended: dict[str, Run] = {}
    ticker, outcomes = Ticker(), Outcomes(kubeflow)
    while True:
        now, texts = datetime.now(UTC), []
        for identifier, lines in runs.items():
            if identifier not in ended:
                run = wait_out(lambda: kubeflow.run(identifier), f"run {identifier}", _PATIENCE_MINUTES)  # noqa: B023
                if run.is_over or is_gone(run, now):
                    ended[identifier] = run
                    continue
                where = ", ".join(dict.fromkeys(ending.how for ending in outcomes.of(run, pipeline)))
                texts.append(f"{lines}: {where}, {span(run.created, now)}")
        if len(ended) == len(runs):
            ticker.close()
            return [ended[identifier] for identifier in runs]
        more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
        ticker.say("; ".join(texts[:_SHOWN]) + more)
        time.sleep(POLL_SECONDS)


def wait_until_free(
    kubeflow: Kubeflow, pipeline_id: str, waiting: Mapping[str, tuple[str, ...]]
) -> tuple[list[str], float]:
    """Wait until one or more of these have no other run of their lines under way.

    Args:
        kubeflow: Where.
        pipeline_id: The pipeline's identifier.
        waiting: Names of what waits, and its lines.

    Returns:
        Their names, and when Kubeflow was asked, seconds since 1970.
    """
    ticker = Ticker()
    while True:
        every, asked = {line for lines in waiting.values() for line in lines}, time.time()
        busy = wait_out(
            lambda: list(busy_with(kubeflow, pipeline_id, every)),  # noqa: B023
            "queue",
            _PATIENCE_MINUTES,
        )
        taken = {line for run in busy for line in run.lines or every}
        free = [name for name, lines in waiting.items() if taken.isdisjoint(lines)]
        if free:
            ticker.close()
            return free, asked
        ticker.say(f"{', '.join(waiting)}: waits for the end of {', '.join(run.id for run in busy)}")
        time.sleep(POLL_SECONDS)
