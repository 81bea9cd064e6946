"""Outages that are waited out, and those that are not."""

import pytest

from morphad.base.errors import BadInputError, CheckFailedError, MorphadError, OutageError, ServiceError
from morphad.base.patience import wait_out


class Service:
    """One that is away for some calls, and then answers."""

    def __init__(self, away: int, error: type[MorphadError] = OutageError) -> None:
        self.left = away
        self.error = error
        self.calls = 0
        self.pauses: list[float] = []

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.left:
            raise self.error("MLflow at http://x: connection refused")
        return "done"


def test_an_outage_is_waited_out_with_growing_pauses_and_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service(away=7)
    assert wait_out(service, "register pcb", 10, sleep=service.pauses.append) == "done"
    assert service.calls == 8
    assert service.pauses == sorted(service.pauses)
    assert service.pauses[0] >= 5
    assert max(service.pauses) <= 60
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 14
    assert lines[0] == "morphad register pcb: MLflow at http://x: connection refused"
    assert lines[1] == "  next try in 5 s; with that, waited 5 s of 600 s"


@pytest.mark.parametrize("minutes", [0.5, 3, 10])
def test_in_the_end_the_outage_is_the_error(minutes: float) -> None:
    service = Service(away=1000)
    with pytest.raises(OutageError, match="connection refused"):
        wait_out(service, "register pcb", minutes, sleep=service.pauses.append)
    assert 60 * minutes - 60 <= sum(service.pauses) <= 60 * minutes


def test_without_patience_the_first_outage_ends_it() -> None:
    service = Service(away=1)
    with pytest.raises(OutageError):
        wait_out(service, "register pcb", 0)
    assert service.calls == 1


@pytest.mark.parametrize("error", [ServiceError, BadInputError, CheckFailedError])
def test_who_says_no_is_not_asked_again(error: type[MorphadError]) -> None:
    service = Service(1, error)
    with pytest.raises(error):
        wait_out(service, "register pcb", 10, sleep=service.pauses.append)
    assert service.calls == 1
