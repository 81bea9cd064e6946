"""Cron as Kubeflow reads it."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphad.kubeflow.cron import Cron, CronError

MONDAY = datetime(2026, 11, 23, 20, 11, 14, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "next_start"),
    [
        ("0 0 2 * * *", "2026-11-24 02:00:00"),
        ("30 15 */6 ? * *", "2026-11-24 00:15:30"),
        ("0 0 2,14 * * mon-FRI", "2026-11-24 02:00:00"),
        ("0 0 20-22 * * *", "2026-11-23 21:00:00"),
        ("0 5/20 * * * *", "2026-11-23 20:25:00"),
        ("0 0 6 * * 0", "2026-11-29 06:00:00"),  # Sunday
        ("0 0 6 1 jan *", "2027-01-01 06:00:00"),
        ("0 0 6 29 2 *", "2028-02-29 06:00:00"),
        ("0 0 6 13 * 5", "2026-11-27 06:00:00"),  # the 13th or a Friday
        ("0 0 6 */2 * 5", "2026-11-27 06:00:00"),  # with a star both: an odd day that is a Friday
        ("  0  0 2 * * * ", "2026-11-24 02:00:00"),
    ],
)
def test_the_next_start(text: str, next_start: str) -> None:
    found = Cron(text).next(MONDAY)
    assert found is not None
    assert f"{found:%Y-%m-%d %H:%M:%S}" == next_start


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0 2 * * *", "perhaps '0 0 2 * * *'"),  # Kubeflow would take it for minute 2 of every hour
        ("0 0 2 * * * 2027", "got 7"),
        ("", "got 0"),
        ("@daily", "expected 6 fields"),
        ("60 0 2 * * *", "second '60'"),
        ("0 60 2 * * *", "'60' is not in 0-59"),
        ("0 0 24 * * *", "hour '24'"),
        ("0 0 2 0 * *", "'0' is not in 1-31"),
        ("0 0 2 * 13 *", "jan, feb"),
        ("0 0 2 * * 7", "'7' is not in 0-6"),  # Sunday elsewhere
        ("0 0 2 * * fri-mon", "two ranges"),
        ("0 0 22-4 * * *", "22 comes after 4"),
        ("0 */0 2 * * *", "step '0'"),
        ("0 */x 2 * * *", "step 'x'"),
        ("0 1--2 2 * * *", "minute '1--2'"),
        ("0 1,,2 2 * * *", "minute ''"),
        ("0 -1 2 * * *", "minute '-1'"),
        ("0 0 2 L * *", "day of month 'L'"),
        ("0 0 2 * * fri#2", "'fri#2' is not in 0-6"),
        ("0 0 ٢ * * *", "hour"),
        ("* * * * * *", "more than one start a minute"),
        ("0,30 0 2 * * *", "give one number"),
        ("0 0 2 30 2 *", "it would never start"),  # which hangs Kubeflow's controller
        ("0 0 2 31 4,6,9,11 *", "it would never start"),
    ],
)
def test_what_is_no_schedule_is_named(text: str, names: str) -> None:
    with pytest.raises(CronError) as refused:
        Cron(text)
    assert names in str(refused.value)


def test_a_time_that_clocks_skip_is_skipped() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    found = Cron("0 30 2 * * *").next(datetime(2027, 3, 28, 0, 0, tzinfo=berlin))
    assert found == datetime(2027, 3, 29, 2, 30, tzinfo=berlin)


FIELD = {
    "minute": st.sampled_from(["*", "0", "7", "*/17", "10-12", "59,3", "50/4"]),
    "hour": st.sampled_from(["*", "0", "23", "*/5", "7-9", "4,22"]),
    "day": st.sampled_from(["*", "?", "1", "31", "*/9", "28-30", "5,6"]),
    "month": st.sampled_from(["*", "2", "dec", "*/5", "jan-mar"]),
    "weekday": st.sampled_from(["*", "0", "sat", "1-5", "*/3", "?"]),
}


@settings(max_examples=60, deadline=None)
@given(fields=st.tuples(*FIELD.values()), offset=st.integers(0, 400 * 24 * 60))
def test_the_next_start_is_the_first_minute_that_matches(fields: tuple[str, ...], offset: int) -> None:
    try:
        cron = Cron(f"0 {' '.join(fields)}")
    except CronError:
        return
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=offset)
    found = cron.next(start)
    assert found is not None
    assert found > start
    assert cron.next(found - timedelta(minutes=1)) == found
    # None in between: asked from anywhere before it, the answer is the same.
    for part in range(1, 8):
        between = start + (found - start) * part / 8
        assert cron.next(between) == found
