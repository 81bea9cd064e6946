"""The test server's answers, held against the shapes of answers that a real Kubeflow Pipelines 2.17 gave.

kubeflow_shapes.json has the keys, kinds of values and states of recorded answers. Where the recorded answers are there,
it is held against them.
"""

import gc
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

import kfp_server_api
from fake_kubeflow import FakeKubeflow
from fake_workflow import STEPS, node_of, prediction, training

from morphad.kubeflow.nodes import Workflow
from morphad.kubeflow.outcomes import Outcomes, step_names
from morphad.kubeflow.records import Run, Task, run_of

Command = Callable[..., tuple[int, str]]
Json = dict[str, Any]

SHAPES = Path(__file__).with_name("kubeflow_shapes.json")
RECORDED = Path(__file__).resolve().parents[3] / "shared" / "cases" / "kubeflow"

KINDS = ("run", "pipelines", "recurring-runs")

DONE = dict.fromkeys(STEPS, "SUCCEEDED")


def failed_in(step: str) -> dict[str, str]:
    place = STEPS.index(step)
    return {
        name: "SUCCEEDED" if number < place else "FAILED" if number == place else ""
        for number, name in enumerate(STEPS)
    }


# Of each recorded run: the states of its line's steps, and of `notify`.
RUNS = {
    "run-succeeded": (DONE, "SUCCEEDED"),
    "run-failed-in-ingest": (failed_in("ingest"), "SUCCEEDED"),
    "run-failed-in-train": (failed_in("train"), "SUCCEEDED"),
    "run-ended-by-hand": (failed_in("train"), "SUCCEEDED"),
    "run-under-way": ({**dict.fromkeys(STEPS[:3], "SUCCEEDED"), "train": "RUNNING"}, ""),
}


def values(answer: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of an answer with its path; what a run's parameters hold is the caller's own."""
    yield path, answer
    if path.endswith(".parameters"):
        return
    if isinstance(answer, dict):
        for key, value in answer.items():
            yield from values(value, f"{path}.{key}")
    elif isinstance(answer, list):
        for value in answer:
            yield from values(value, f"{path}[]")


def shapes(answers: Iterable[Any]) -> Json:
    """Of each path the kinds of its values, what holds it, whether it is always there, and which words it has."""
    seen: dict[str, Json] = {}
    counts: dict[str, int] = {}
    for answer in answers:
        for path, value in values(answer):
            counts[path] = counts.get(path, 0) + 1
            found = seen.setdefault(path, {"kinds": set(), "words": set()})
            found["kinds"].add(type(value).__name__)
            if isinstance(value, str) and re.fullmatch(r"[A-Z_]+", value):
                found["words"].add(value)
            if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value):
                found["words"].add("a time")
    return {
        path: {
            "kinds": sorted(found["kinds"]),
            "words": sorted(found["words"]),
            "always": counts[path] == counts.get(path.rpartition(".")[0], counts[path]),
        }
        for path, found in sorted(seen.items())
    }


def recorded(kind: str) -> list[Json]:
    if not RECORDED.is_dir():
        pytest.skip(f"no recorded answers of a real Kubeflow at {RECORDED}")
    return [json.loads(file.read_text()) for file in sorted(RECORDED.glob(f"{kind}*.json"))]


def differences(answers: Iterable[Any], kind: str) -> list[str]:
    """What answers have that no recorded one has, or lack that each has."""
    known, given = json.loads(SHAPES.read_text())[kind], shapes(answers)
    said = [f"{path} is not recorded" for path in given if path not in known]
    for path, shape in known.items():
        found = given.get(path)
        if found is None:
            parent = path.rpartition(".")[0]
            said += [f"{path} is missing"] if shape["always"] and parent in given else []
            continue
        if shape["always"] and not found["always"]:
            said.append(f"{path} is missing now and then")
        said += [f"{path}: {each}" for key in ("kinds", "words") for each in found[key] if each not in shape[key]]
    return said


def ask(fake: FakeKubeflow, path: str) -> Json:
    with urllib.request.urlopen(f"{fake.address}/apis/v2beta1{path}", timeout=10) as answer:  # noqa: S310
        found: Json = json.load(answer)
        return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_shapes_are_those_of_the_recorded_answers(kind: str) -> None:
    assert json.loads(SHAPES.read_text())[kind] == shapes(recorded(kind))


def test_runs_have_the_shape_of_recorded_ones_in_each_state(command: Command, fake: FakeKubeflow) -> None:
    assert command("pipeline", "upload")[0] == 0
    answers = []
    for name, (states, notify) in RUNS.items():
        assert command("pipeline", "submit", "--lines", "pv-mono")[0] == 0
        run = list(fake.runs)[-1]
        fake.work(run, [states], notify=notify)
        fake.move(run, "RUNNING")
        answers.append(ask(fake, f"/runs/{run}"))
        if name == "run-ended-by-hand":
            assert command("pipeline", "end", run)[0] == 0
        fake.move(run, "SUCCEEDED" if states == DONE else "FAILED")
        if notify:
            answers.append(ask(fake, f"/runs/{run}"))
    assert differences(answers, "run") == []


def test_pipelines_and_recurring_runs_have_the_shape_of_recorded_ones(command: Command, fake: FakeKubeflow) -> None:
    assert command("pipeline", "upload")[0] == 0
    assert command("schedule", "apply")[0] == 0
    assert fake.recurring_runs
    assert differences([ask(fake, "/recurringruns")], "recurring-runs") == []
    (pipeline,) = fake.pipelines.values()
    assert differences([{"pipelines": [pipeline], "total_size": 1}], "pipelines") == []


@pytest.mark.parametrize("name", RUNS)
def test_tasks_lead_to_each_other_as_in_a_recorded_run(name: str) -> None:
    (real,) = recorded(name)
    states, notify = RUNS[name]
    workflow = Workflow(read(real)).name
    made = training(real["run_id"], workflow, datetime.now(UTC), [states], notify=notify)
    assert linked(made.tasks) == linked(real["run_details"]["task_details"])


def test_tasks_lead_to_each_other_as_in_a_recorded_batch_prediction() -> None:
    (real,) = recorded("run-batch")
    made = prediction(real["run_id"], Workflow(read(real)).name, datetime.now(UTC), ["SUCCEEDED"] * 3)
    assert linked(made.tasks) == linked(real["run_details"]["task_details"])


@pytest.mark.parametrize(("name", "steps"), [(name, states) for name, (states, _) in RUNS.items()])
def test_the_steps_of_a_recorded_run_are_found_with_their_pods(name: str, steps: dict[str, str]) -> None:
    (real,) = recorded(name)
    found = {step.name: step for step in Workflow(read(real)).steps(step_names("training"))}
    assert {step: found[step].task.state for step in steps} == steps
    assert {found[step].line for step in steps} == {0}
    assert {step for step in steps if found[step].pods} == {step for step, state in steps.items() if state}


def test_the_parts_of_a_recorded_batch_prediction_are_found() -> None:
    (real,) = recorded("run-batch")
    found = Workflow(read(real)).steps(step_names("batch-predict"))
    assert sorted((step.name, step.line, len(step.pods)) for step in found if step.line is not None) == [
        ("batch-predict", number, 1) for number in range(3)
    ]
    assert {step.name for step in found if step.line is None} == {"batch-plan", "batch-merge"}


def test_the_pod_of_a_recorded_step_has_one_of_the_names_that_are_asked_for() -> None:
    (pod,), (real,) = recorded("pod-of-train"), recorded("run-succeeded")
    (train,) = Workflow(read(real)).steps(["train"])
    assert pod["metadata"]["name"] in train.pods[0].names
    assert pod["metadata"]["annotations"]["workflows.argoproj.io/node-id"] == train.pods[0].node
    assert node_of(pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"]) == train.pods[0].node


def test_a_recorded_run_that_was_ended_by_hand_is_known_as_such() -> None:
    assert read(recorded("run-ended-by-hand")[0]).stopped is not None
    assert all(read(real).stopped is None for name in ("run-s", "run-f", "run-u") for real in recorded(name))


def test_thousands_of_tasks_are_placed_in_seconds(fake: FakeKubeflow) -> None:
    lines = [failed_in("train") if number % 2 else DONE for number in range(120)]
    tasks = training("r", "morphad-training-x", datetime.now(UTC), lines).tasks
    found = Workflow(read({"run_id": "r", "run_details": {"task_details": tasks}})).steps(["train"])
    assert [(step.line, step.task.state) for step in found] == [
        (number, "FAILED" if number % 2 else "SUCCEEDED") for number in range(120)
    ]


@pytest.mark.parametrize("states", [{"ingest": "FAILED"}, {}])
def test_the_time_for_many_lines_grows_with_their_number(states: dict[str, str]) -> None:
    def seconds(count: int) -> float:
        workflow = training("r", "morphad-training-x", datetime.now(UTC), [states] * count, notify="")
        tasks = tuple(
            Task(made["display_name"], made.get("state", ""), None, None, tuple(children(made)))
            for made in workflow.tasks
        )
        lines = [{"line": f"line-{number}"} for number in range(count)]
        run = Run("r", "", "FAILED", "", datetime.now(UTC), None, "", "", "", "", {"lines": lines}, None, tasks)
        took = []
        for _ in range(3):  # the shortest: what else this process holds is not its business
            gc.collect()
            begun = time.process_time()
            endings = Outcomes(Nothing()).of(run, "training")  # type: ignore[arg-type]
            took.append(time.process_time() - begun)
        assert [ending.line for ending in endings] == [item["line"] for item in lines]
        assert {ending.state for ending in endings} <= {"not known", "interrupted"}
        return min(took)

    gc.disable()
    try:
        few, many = seconds(500), seconds(4000)
    finally:
        gc.enable()
    assert many / few < 14, (few, many)  # 8 times the lines; 64 would be their square


def children(task: Json) -> list[str]:
    return [child["pod_name"] for child in task.get("child_tasks", ())]


class Nothing:
    """A Kubeflow that has no logs any more."""

    def log(self, *_: object) -> None:
        return None


def read(answer: Json) -> Run:
    """An answer as the client reads it."""

    class Response:
        data = json.dumps(answer)

    return run_of(kfp_server_api.ApiClient().deserialize(Response(), "V2beta1Run"))


def linked(tasks: Iterable[Json]) -> list[tuple[str, str, list[str]]]:
    return sorted(
        (
            task["display_name"],
            task.get("state", ""),
            sorted(child["pod_name"] for child in task.get("child_tasks", ())),
        )
        for task in tasks
        if "display_name" in task
    )
