"""Waiting for the end of runs, with a line now and then for whoever waits."""

import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from morphad.base.patience import wait_out
from morphad.kubeflow.client import Kubeflow, Run
from morphad.kubeflow.finding import busy_with
from morphad.kubeflow.outcomes import Outcomes
from morphad.kubeflow.status import is_gone, span

POLL_SECONDS = 10.0
_SAY_SECONDS = 30.0  # between two lines where there is no terminal
_PATIENCE_MINUTES = 10  # for a Kubeflow that is away

_SHOWN = 3  # runs in one line


class Ticker:
    """What is waited for: on a terminal one line that changes, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._said = time.monotonic()
        self._open = False

    def say(self, text: str) -> None:
        """Show it, if it is time."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text[:110]}")
            self._open = True
        elif time.monotonic() - self._said >= _SAY_SECONDS:
            sys.stderr.write(f"{text}\n")
            self._said = time.monotonic()
        sys.stderr.flush()

    def close(self) -> None:
        """Make room for what is printed next."""
        if self._open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._open = False


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


def wait_until_free(kubeflow: Kubeflow, pipeline_id: str, waiting: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Wait until one or more of these have no other run of their lines under way, and give their names.

    Args:
        kubeflow: Where.
        pipeline_id: The pipeline's identifier.
        waiting: Names of what waits, and its lines.
    """
    ticker = Ticker()
    while True:
        every = {line for lines in waiting.values() for line in lines}
        busy = wait_out(
            lambda: list(busy_with(kubeflow, pipeline_id, every)),  # noqa: B023
            "queue",
            _PATIENCE_MINUTES,
        )
        taken = {line for run in busy for line in run.lines or every}
        free = [name for name, lines in waiting.items() if taken.isdisjoint(lines)]
        if free:
            ticker.close()
            return free
        ticker.say(f"{', '.join(waiting)}: waits for the end of {', '.join(run.id for run in busy)}")
        time.sleep(POLL_SECONDS)
