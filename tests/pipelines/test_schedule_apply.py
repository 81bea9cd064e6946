"""`morphad schedule plan` and `apply` against a server: what they make and leave, also interrupted and doubled."""

import copy
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from fake_kubeflow import FakeKubeflow

from morphad.base.errors import CheckFailedError, MorphadError, ServiceError
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.compiling import TRAINING
from morphad.kubeflow.connection import Connection
from morphad.kubeflow.lines import line_items
from morphad.kubeflow.reconcile import Reconciler, Wanted
from morphad.kubeflow.schedule import experiments, wanted_runs
from morphad.kubeflow.schedules import ScheduleFile, load_schedules
from morphad.kubeflow.uploads import CompiledPipeline, upload
from morphad.settings.line_json import line_from_json
from morphad.settings.reading import load_settings

Command = Callable[..., tuple[int, str]]
Changes = dict[str, Any]

PROJECT = load_settings(Path(__file__).resolve().parents[2] / "params.yaml")
LINES = ("pv-mono", "pv-poly")


class Schedules:
    """A schedules.yaml that a test changes, and its application."""

    def __init__(self, path: Path, fake: FakeKubeflow) -> None:
        self.path = path
        self.fake = fake
        self.write()

    def write(self, owner: str = "plant", **changes: Any) -> None:
        nightly = {"lines": "all", "cron": "0 0 2 * * *", **changes}
        with self.path.open("w") as stream:
            YAML(typ="safe").dump(
                {"owner": owner, "schedules": {"nightly": nightly} if changes != {"none": 1} else {}}, stream
            )

    def wanted(self, kubeflow: Kubeflow) -> list[Wanted]:
        file: ScheduleFile = load_schedules(self.path, PROJECT)
        version, _ = upload(kubeflow, CompiledPipeline(TRAINING, self.path, "0" * 64))
        items = {item["line"]: item for item in line_items(PROJECT)}
        return wanted_runs(file, PROJECT, items, version, experiments(kubeflow, file, make=True))

    def apply(self, owner: str = "plant") -> None:
        """What `morphad schedule apply` does, without the time that compiling takes."""
        kubeflow = Kubeflow(Connection(self.fake.address))
        Reconciler(kubeflow, owner, lambda _: None).apply(self.wanted(kubeflow), datetime.now(UTC))


@pytest.fixture
def schedules(tmp_path: Path, fake: FakeKubeflow) -> Schedules:
    return Schedules(tmp_path / "schedules.yaml", fake)


def line_of(run: dict[str, Any]) -> str:
    (item,) = run["runtime_config"]["parameters"]["lines"]
    return str(item["line"])


def active(fake: FakeKubeflow, line: str) -> int:
    ours = (run for run in fake.recurring_runs.values() if "morphad schedule:" in run.get("description", ""))
    return sum(run["status"] == "ENABLED" and line_of(run) == line for run in ours)


def start_run(fake: FakeKubeflow, recurring_run: dict[str, Any]) -> dict[str, Any]:
    """A run as the recurring run would start it."""
    run = {key: recurring_run[key] for key in ("experiment_id", "pipeline_version_reference", "runtime_config")}
    run |= {"run_id": f"run-of-{recurring_run['recurring_run_id']}", "display_name": "x", "state": "RUNNING"}
    run |= {"recurring_run_id": recurring_run["recurring_run_id"], "created_at": "2026-11-23T02:00:00Z"}
    fake.runs[run["run_id"]] = run
    return run


def changes(fake: FakeKubeflow) -> list[str]:
    return [request for request in fake.requests if not request.startswith("GET")]


def test_from_nothing_to_a_schedule_of_every_line_and_nothing_more_the_second_time(
    command: Command, fake: FakeKubeflow, schedules: Schedules, compiled: Path
) -> None:
    inputs = set(next(YAML(typ="safe").load_all(compiled))["root"]["inputDefinitions"]["parameters"])
    code, said = command("schedule", "plan", "--schedules", schedules.path)
    assert code == 2
    assert "morphad pipeline upload" in said
    assert command("pipeline", "upload")[0] == 0
    code, said = command("schedule", "plan", "--schedules", schedules.path, "--check")
    assert code == 1
    assert "+ pv-mono-nightly" in said
    assert "next start" in said
    assert "2 to change, 0 as they should be" in said
    assert not fake.recurring_runs
    code, said = command("schedule", "apply", "--schedules", schedules.path)
    assert code == 0, said
    planned, done = said.index("+ pv-mono-nightly"), said.index("pv-mono-nightly: made")
    assert planned < said.index("2 to change") < done
    assert {run["display_name"] for run in fake.recurring_runs.values()} == {"pv-mono-nightly", "pv-poly-nightly"}
    for run in fake.recurring_runs.values():
        assert run["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
        assert (run["status"], run["max_concurrency"], run["no_catchup"]) == ("ENABLED", "1", True)
        assert (
            line_from_json(run["runtime_config"]["parameters"]["lines"][0]["settings_json"])
            == PROJECT.lines[line_of(run)]
        )
        assert run["runtime_config"]["parameters"]["seed"] == PROJECT.seed
        assert run["runtime_config"]["parameters"]["reason"] == "schedule nightly"
        assert set(run["runtime_config"]["parameters"]) <= inputs  # Kubeflow refuses what the pipeline does not have
        (version,) = fake.versions.values()
        assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    fake.requests.clear()
    assert command("schedule", "apply", "--schedules", schedules.path)[0] == 0
    assert changes(fake) == []
    code, said = command("schedule", "plan", "--schedules", schedules.path, "--check")
    assert code == 0
    assert "0 to change, 2 as they should be" in said


def test_only_what_differs_is_made_anew(schedules: Schedules, fake: FakeKubeflow) -> None:
    schedules.write(lines=["pv-mono"])
    schedules.apply()
    (first,) = fake.recurring_runs
    schedules.write(lines="all")
    schedules.apply()
    assert first in fake.recurring_runs
    schedules.write(lines="all", cron="0 30 3 * * *", seed=7)
    schedules.apply()
    assert first not in fake.recurring_runs
    assert len(fake.recurring_runs) == 2
    for run in fake.recurring_runs.values():
        assert run["trigger"]["cron_schedule"]["cron"] == "0 30 3 * * *"
        assert run["runtime_config"]["parameters"]["seed"] == 7


def test_what_is_gone_from_the_file_goes_and_others_stay(schedules: Schedules, fake: FakeKubeflow) -> None:
    schedules.apply()
    mine = dict(fake.recurring_runs)
    (copied, *_) = mine.values()
    others = {
        "hand": {**copied, "description": "made by hand"},
        "copy": {**copied, "display_name": "Clone of pv-mono-nightly"},
        "lab": {**copied, "description": copied["description"].replace('"plant"', '"lab"')},
        "interval": {"display_name": "hourly", "trigger": {"periodic_schedule": {"interval_second": "3600"}}},
    }
    for key, run in others.items():
        fake.recurring_runs[key] = {**run, "recurring_run_id": key, "created_at": "2026-11-01T00:00:00Z"}
    before = json.dumps({key: fake.recurring_runs[key] for key in others})
    schedules.write(lines=["pv-poly"])
    schedules.apply()
    assert [line_of(run) for key, run in fake.recurring_runs.items() if key not in others] == ["pv-poly"]
    schedules.write(none=1)
    schedules.apply()
    assert set(fake.recurring_runs) == set(others)
    assert json.dumps(fake.recurring_runs) == before


def test_lists_are_read_to_their_last_page(schedules: Schedules, fake: FakeKubeflow) -> None:
    schedules.apply()
    mine = dict(fake.recurring_runs)
    fake.recurring_runs.clear()
    stranger = next(iter(mine.values()))
    for number in range(250):
        key = f"other-{number}"
        fake.recurring_runs[key] = {**stranger, "recurring_run_id": key, "description": "", "display_name": key}
    fake.recurring_runs |= mine
    fake.requests.clear()
    schedules.apply()
    assert changes(fake) == []
    assert len(fake.recurring_runs) == 252


def test_what_kubeflow_cannot_read_is_told(command: Command, schedules: Schedules, fake: FakeKubeflow) -> None:
    broken = {"recurring_run_id": "broken", "error": {"code": 13, "message": "bad pipeline spec"}}
    fake.recurring_runs["broken"] = broken
    assert command("pipeline", "upload")[0] == 0
    code, said = command("schedule", "plan", "--schedules", schedules.path)
    assert code == 0
    assert "cannot read recurring run broken (bad pipeline spec)" in said
    schedules.apply()
    assert fake.recurring_runs["broken"] == broken


def test_disabling_switches_and_enabling_makes_anew(schedules: Schedules, fake: FakeKubeflow) -> None:
    schedules.apply()
    first = set(fake.recurring_runs)
    schedules.write(enabled=False)
    schedules.apply()
    assert set(fake.recurring_runs) == first
    assert [active(fake, line) for line in LINES] == [0, 0]
    # Switched on again, a recurring run makes up for its last missed start at once.
    schedules.write(enabled=True)
    schedules.apply()
    assert not first & set(fake.recurring_runs)
    assert [active(fake, line) for line in LINES] == [1, 1]


def test_one_that_somebody_disabled_in_kubeflow_is_enabled_again(schedules: Schedules, fake: FakeKubeflow) -> None:
    schedules.apply()
    next(iter(fake.recurring_runs.values()))["status"] = "DISABLED"
    schedules.apply()
    assert [active(fake, line) for line in LINES] == [1, 1]


@pytest.mark.parametrize("knows_policy", [True, False], ids=["2.17", "older"])
def test_a_run_under_way_is_not_ended_with_its_schedule(
    schedules: Schedules, fake: FakeKubeflow, command: Command, knows_policy: bool
) -> None:
    fake.knows_policy = knows_policy
    assert command("pipeline", "upload")[0] == 0
    assert command("schedule", "apply", "--schedules", schedules.path)[0] == 0
    old = next(run for run in fake.recurring_runs.values() if line_of(run) == "pv-mono")
    training = start_run(fake, old)
    schedules.write(cron="0 0 4 * * *")
    code, said = command("schedule", "apply", "--schedules", schedules.path)
    assert code == 0
    assert f"disabled; apply deletes it once run {training['run_id']} has ended" in said
    assert training["state"] == "RUNNING"
    assert old["status"] == "DISABLED"
    assert [active(fake, line) for line in LINES] == [1, 1]
    code, said = command("schedule", "plan", "--check", "--schedules", schedules.path)
    assert code == 0
    assert "apply deletes it once run" in said
    training["state"] = "SUCCEEDED"
    assert command("schedule", "plan", "--check", "--schedules", schedules.path)[0] == 1
    assert command("schedule", "apply", "--schedules", schedules.path)[0] == 0
    assert len(fake.recurring_runs) == 2


def test_a_start_that_has_gone_by_is_not_made_up_for(schedules: Schedules, fake: FakeKubeflow) -> None:
    schedules.write(start=datetime.now(UTC) - timedelta(days=30), catch_up=True)
    schedules.apply()
    assert all("start_time" not in run["trigger"]["cron_schedule"] for run in fake.recurring_runs.values())
    fake.requests.clear()
    schedules.apply()
    assert changes(fake) == []
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    schedules.write(start=later, end=later + timedelta(days=300))
    schedules.apply()
    for run in fake.recurring_runs.values():
        assert datetime.fromisoformat(run["trigger"]["cron_schedule"]["start_time"]) == later


def killed(schedules: Schedules, number: int, when: str) -> bool:
    """Whether an apply, a process of its own, was killed with its n-th request; False: it came to its end before."""
    fake = schedules.fake
    fake.requests.clear()
    process = multiprocessing.get_context("fork").Process(target=schedules.apply)
    born = threading.Event()

    def victim() -> int:
        born.wait()
        assert process.pid is not None
        return process.pid

    fake.kill = (number, when, victim)
    process.start()
    born.set()
    process.join(30)
    fake.kill = None
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


def interruptions() -> Iterator[tuple[int, str]]:
    for number in range(1, 60):
        yield number, "before"
        yield number, "after"


def test_killed_at_any_request_the_next_apply_ends_right(schedules: Schedules, fake: FakeKubeflow) -> None:
    schedules.apply()
    before = copy.deepcopy(fake.recurring_runs)
    schedules.write(cron="0 0 5 * * *")  # every line's recurring run is to be made anew
    without: list[str] = []
    fake.watch = lambda now: without.extend(line for line in LINES if active(now, line) == 0)
    kills = 0
    for number, when in interruptions():
        fake.recurring_runs = copy.deepcopy(before)
        if not killed(schedules, number, when):
            break
        kills += 1
        schedules.apply()
        assert len(fake.recurring_runs) == 2, (number, when)
        assert {run["trigger"]["cron_schedule"]["cron"] for run in fake.recurring_runs.values()} == {"0 0 5 * * *"}
        assert [active(fake, line) for line in LINES] == [1, 1], (number, when)
    assert kills > 20
    assert without == []


def test_killed_at_any_request_of_the_first_apply_nothing_is_doubled(schedules: Schedules, fake: FakeKubeflow) -> None:
    for number, when in interruptions():
        for kept in (fake.pipelines, fake.versions, fake.experiments, fake.recurring_runs):
            kept.clear()
        if not killed(schedules, number, when):
            break
        schedules.apply()
        for kept, count in ((fake.pipelines, 1), (fake.versions, 1), (fake.experiments, 1), (fake.recurring_runs, 2)):
            assert len(kept) == count, (number, when)
    assert number > 8


def test_a_server_that_fails_on_the_way_is_told_and_the_next_apply_goes_on(
    schedules: Schedules, fake: FakeKubeflow
) -> None:
    schedules.apply()
    schedules.write(cron="0 0 5 * * *")

    def break_down(now: FakeKubeflow) -> None:
        now.broken = "/recurringruns"

    fake.watch = break_down
    with pytest.raises(ServiceError, match="try again later"):
        schedules.apply()
    assert len(fake.recurring_runs) == 3
    fake.broken, fake.watch = None, lambda _: None
    schedules.apply()
    assert [active(fake, line) for line in LINES] == [1, 1]
    assert len(fake.recurring_runs) == 2


def at_once(*work: Callable[[], None]) -> list[BaseException | None]:
    ends: list[BaseException | None] = [None] * len(work)

    def run(number: int) -> None:
        try:
            work[number]()
        except MorphadError as error:
            ends[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ends


def test_two_applies_of_the_same_at_once_leave_one_each(schedules: Schedules, fake: FakeKubeflow) -> None:
    for hour in range(6):
        schedules.write(cron=f"0 0 {hour} * * *")
        assert at_once(schedules.apply, schedules.apply, schedules.apply) == [None] * 3
        assert sorted(line_of(run) for run in fake.recurring_runs.values()) == list(LINES)
        assert [active(fake, line) for line in LINES] == [1, 1]


def test_two_applies_of_different_schedules_at_once_are_found_out(
    schedules: Schedules, fake: FakeKubeflow, tmp_path: Path
) -> None:
    other = Schedules(tmp_path / "other.yaml", fake)
    schedules.apply()
    schedules.write(cron="0 0 5 * * *")
    other.write(cron="0 0 6 * * *")

    class Overtaken(Kubeflow):
        def create_recurring_run(self, *arguments: Any) -> str:
            made = super().create_recurring_run(*arguments)
            if len(fake.recurring_runs) == 3:  # the other one comes in between
                other.apply()
            return made

    kubeflow = Overtaken(Connection(fake.address))
    with pytest.raises(CheckFailedError, match="another `schedule apply` is at work"):
        Reconciler(kubeflow, "plant", lambda _: None).apply(schedules.wanted(kubeflow), datetime.now(UTC))
    # No line is without a schedule; the next to apply has its way.
    assert all(active(fake, line) >= 1 for line in LINES)
    schedules.apply()
    assert [active(fake, line) for line in LINES] == [1, 1]
    assert {run["trigger"]["cron_schedule"]["cron"] for run in fake.recurring_runs.values()} == {"0 0 5 * * *"}


def test_the_command_itself_killed_in_the_middle(
    command: Command, fake: FakeKubeflow, schedules: Schedules, compiled: Path
) -> None:
    words = ["schedule", "apply", "--schedules", str(schedules.path), "--compiled", str(compiled)]
    assert command("pipeline", "upload")[0] == 0
    assert command(*words[:4])[0] == 0
    fake.recurring_runs.clear()
    fake.requests.clear()
    assert command(*words[:4])[0] == 0
    first_made = fake.requests.index("POST /recurringruns") + 1
    fake.recurring_runs.clear()
    fake.requests.clear()
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from morphad.cli import main; sys.exit(main())", *words],
        env={**os.environ, "KFP_HOST": fake.address},
    )
    fake.kill = (first_made, "after", lambda: process.pid)
    assert process.wait(60) == -signal.SIGKILL
    fake.kill = None
    assert len(fake.recurring_runs) == 1
    code, said = command(*words[:4])
    assert code == 0, said
    assert [active(fake, line) for line in LINES] == [1, 1]
