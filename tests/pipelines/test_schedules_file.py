"""pipelines/schedules.yaml: what is wrong is named before anything is asked of Kubeflow."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from morphad.base.errors import BadInputError
from morphad.kubeflow.schedules import ScheduleFile, load_schedules
from morphad.settings.reading import load_settings

REPO = Path(__file__).resolve().parents[2]


PROJECT = load_settings(Path(__file__).resolve().parents[2] / "params.yaml")
NIGHTLY = "cron: '0 0 2 * * *'"


def read(folder: Path, text: str) -> ScheduleFile:
    path = folder / "schedules.yaml"
    path.write_text(text)
    return load_schedules(path, PROJECT)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "expected keys `owner` and `schedules`"),
        ("owner: [", "not valid YAML"),
        ("owner: plant", "schedules = None: expected schedules by name"),
        ("schedules: {}", "owner: missing"),
        ("owner: Plant A\nschedules: {}", "owner = 'Plant A'"),
        ("owner: plant\ntime_zone: Mars\nschedules: {}", "time_zone = 'Mars': no such time zone"),
        (
            "owner: plant\nzone: UTC\nschedules: {}",
            "zone: unknown key; did you mean time_zone? allowed here: owner",
        ),
        ("owner: plant\nschedules: {My one: {}}", "schedules.'My one'"),
        ("owner: plant\nschedules: {a: daily}", "schedules.a = 'daily'"),
        ("owner: plant\nschedules: {a: {lines: all}}", "schedules.a.cron: missing"),
        (f"owner: plant\nschedules: {{a: {{lines: [], {NIGHTLY}}}}}", "schedules.a.lines = []"),
        (f"owner: plant\nschedules: {{a: {{lines: 3, {NIGHTLY}}}}}", "schedules.a.lines = 3"),
        (f"owner: plant\nschedules: {{a: {{lines: pv-momo, {NIGHTLY}}}}}", "'pv-momo' is no line of the settings"),
        (f"owner: plant\nschedules: {{a: {{lines: [pv-mono, pv-mono], {NIGHTLY}}}}}", "listed twice"),
        ("owner: plant\nschedules: {a: {lines: all, cron: '0 2 * * *'}}", "schedules.a.cron = '0 2 * * *': has 5"),
        ("owner: plant\nschedules: {a: {lines: all, cron: 7}}", "schedules.a.cron = 7"),
        (f"owner: plant\nschedules: {{a: {{lines: all, {NIGHTLY}, paused: true}}}}", "schedules.a.paused: unknown key"),
        (f"owner: plant\nschedules: {{a: {{lines: all, {NIGHTLY}, max_concurrency: 11}}}}", ">= 1 and <= 10"),
        (f"owner: plant\nschedules: {{a: {{lines: all, {NIGHTLY}, enabled: 'yes'}}}}", "schedules.a.enabled = 'yes'"),
        (f"owner: plant\nschedules: {{a: {{lines: all, {NIGHTLY}, start: 2027-01-01T00:00:00}}}}", "timezone"),
        (
            f"owner: plant\nschedules: {{a: {{lines: all, {NIGHTLY}, "
            "start: 2027-01-02T00:00:00Z, end: 2027-01-01T00:00:00Z}}",
            "schedules.a: `end` 2027-01-01T00:00:00+00:00 must be after `start`",
        ),
        (
            f"owner: plant\nschedules: {{a: {{lines: all, {NIGHTLY}}}, b: {{lines: pv-poly, {NIGHTLY}}}}}",
            "schedules.b.lines: 'pv-poly' is in schedule 'a' too",
        ),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, text: str, names: str) -> None:
    with pytest.raises(BadInputError) as refused:
        read(tmp_path, text)
    assert names in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "schedules.yaml"))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--schedules FILE"):
        load_schedules(tmp_path / "none.yaml", PROJECT)


def test_the_file_of_the_repository_holds_every_line_once() -> None:
    file = load_schedules(REPO / "pipelines" / "schedules.yaml", PROJECT)
    assert file.lines_of("nightly", PROJECT) == tuple(PROJECT.lines)
    assert not file.schedules["nightly"].catch_up


def test_a_line_may_be_in_a_disabled_schedule_besides(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        f"owner: plant\nschedules: {{a: {{lines: all, {NIGHTLY}}}, b: {{lines: pv-poly, {NIGHTLY}, enabled: false}}}}",
    )
    assert file.lines_of("b", PROJECT) == ("pv-poly",)


def test_starts_lie_between_start_and_end(tmp_path: Path) -> None:
    schedule = read(
        tmp_path,
        f"owner: plant\nschedules: {{a: {{lines: all, {NIGHTLY}, start: 2027-01-01T03:00:00+01:00, "
        "end: 2027-01-03T12:00:00Z}}",
    ).schedules["a"]
    assert schedule.next_start(datetime(2026, 6, 1, tzinfo=UTC)) == datetime(2027, 1, 2, 2, tzinfo=UTC)
    assert schedule.next_start(datetime(2027, 1, 3, 3, tzinfo=UTC)) is None
