"""The steps of a run, each with its line and its pods, out of what Kubeflow's API says of the workflow's nodes.

The API gives for each node what it is called within its parent, its state, and the identifiers of nodes that follow; it
says neither which node has which identifier nor which iteration of a loop it is in. But Argo makes an identifier out of
the node's full name (workflow, then the names of all parents) by a hash that is known, FNV-1a of 32 bits. So full names
are found again from the top: a name is right where its hash is among the identifiers.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from morphad.kubeflow.records import Run, Task

_ATTEMPT = re.compile(r"\(\d+(:[^()]*)?\)$")  # of a repetition, (0), or of a loop's iteration, (0:0)
_ITERATION = re.compile(r"\.iteration-iterations\((\d+):")
_POD = "executor"  # the node of a step in which its own code runs; the others are Kubeflow's drivers
# Argo puts the template between the workflow and the hash into a pod's name. The first is a step with `retry`.
_TEMPLATES = ("retry-system-container-impl", "system-container-impl")


@dataclass(frozen=True)
class Pod:
    """A pod of a step, there or gone.

    Attributes:
        node: Its node's identifier.
        names: What it may be called; the first that there is.
    """

    node: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class StepRun:
    """One step of one line in a run.

    Attributes:
        name: The step, as Kubeflow has it: batch-predict.
        line: Which line of the run, from 0; None: the step is none of a line's own, or lines are not known.
        task: Its state and times.
        pods: One for each time that it was begun; none: it was not.
    """

    name: str
    line: int | None
    task: Task
    pods: tuple[Pod, ...]


class Workflow:
    """The steps of a run.

    Args:
        run: A run with its tasks.

    Attributes:
        name: The workflow's; "": Kubeflow has nothing of one.
    """

    def __init__(self, run: Run) -> None:
        self._tasks: dict[str, list[Task]] = {}
        for task in run.tasks:
            self._tasks.setdefault(task.name, []).append(task)
        self._tasks.pop("", None)  # the metadata store's own have no name
        self._identifiers = {child for task in run.tasks for child in task.children}
        self.name = next((name for name in self._tasks if self._is_root(name)), "")
        self._hashes: dict[str, int] = {}  # of each full name that was found
        self._parts: dict[str, list[str]] = {}
        self._repetitions: dict[str, list[str]] = {}
        self._places: dict[str, list[str]] = {}  # full names of nodes that are called so within their parent
        if self.name:
            self._find_names()

    def steps(self, names: Iterable[str]) -> list[StepRun]:
        """The steps of these names that Kubeflow has something of, line by line.

        A step whose place in the workflow is not certain has no line and no pods.
        """
        found = [step for name in names for step in self._steps(name)]
        return sorted(found, key=lambda step: -1 if step.line is None else step.line)

    def _is_root(self, name: str) -> bool:
        children = any(task.children for task in self._tasks[name])
        return children and all(child.startswith(f"{name}-") for child in self._identifiers)

    def _find_names(self) -> None:
        """Find the full names of each node's parts and of its repetitions, all nodes of a depth at once."""
        numbers = (identifier.rpartition("-")[2] for identifier in self._identifiers)
        known = np.array(sorted({int(number) for number in numbers if number.isdecimal()}), np.uint64)
        plain = [name for name in self._tasks if not _ATTEMPT.search(name)]
        attempts: dict[str, list[str]] = {}
        for name in self._tasks:
            if attempt := _ATTEMPT.search(name):
                attempts.setdefault(name[: attempt.start()], []).append(attempt[0])
        level = [(self.name, self.name)]  # full names, and what each is called within its parent
        values = np.array([_fnv1a(self.name)], np.uint64)
        while level and len(known):
            of_attempts: dict[tuple[str, ...], list[int]] = {}
            for row, (_, name) in enumerate(level):
                there = tuple(sorted(attempts.get(name, ()), key=lambda each: (len(each), each)))
                of_attempts.setdefault(there, []).append(row)
            tries = [(self._parts, ".", name, list(range(len(level)))) for name in plain]
            tries += [(self._repetitions, "", each, rows) for there, rows in of_attempts.items() for each in there]
            following, found_values = [], []
            for kind, joint, each, rows in tries:
                hashed = _fnv1a(f"{joint}{each}", values[rows])
                near = known[np.minimum(np.searchsorted(known, hashed), len(known) - 1)]
                for hit in np.flatnonzero(near == hashed):
                    parent, name = level[rows[hit]]
                    full, called = f"{parent}{joint}{each}", each if joint else f"{name}{each}"
                    kind.setdefault(parent, []).append(full)
                    self._places.setdefault(called, []).append(full)
                    self._hashes[full] = int(hashed[hit])
                    following.append((full, called))
                    found_values.append(hashed[hit])
            level, values = following, np.array(found_values, np.uint64)

    def _steps(self, name: str) -> Iterator[StepRun]:
        placed = self._placed(name)
        for full, task in placed.items():
            iteration = _ITERATION.search(full)
            yield StepRun(name, int(iteration[1]) if iteration else None, task, tuple(self._pods(full)))
        for task in _others(self._tasks.get(name, ()), placed):
            yield StepRun(name, None, task, ())

    def _placed(self, name: str) -> dict[str, Task]:
        """Which full name each task of that name has, where that is certain."""
        places = self._places.get(name, [])
        by_child = {
            self._identifier(child): place
            for place in places
            for child in (*self._parts.get(place, ()), *self._repetitions.get(place, ()))
        }
        tasks = self._tasks.get(name, [])
        placed = {by_child[child]: task for task in tasks for child in task.children if child in by_child}
        # Left are those without a node of their own: they never began, or are about to.
        left = _others(tasks, placed)
        if len({task.state for task in left}) == 1:
            placed.update(zip((place for place in places if place not in placed), left, strict=False))
        return {place: placed[place] for place in places if place in placed}

    def _pods(self, step: str) -> Iterator[Pod]:
        for attempt in self._repetitions.get(step) or [step]:
            inner = f"{attempt}.{_POD}"
            if inner in self._parts.get(attempt, ()):
                for full in self._repetitions.get(inner) or [inner]:
                    node = self._identifier(full)
                    number = node.removeprefix(f"{self.name}-")
                    yield Pod(node, (*(f"{self.name}-{template}-{number}" for template in _TEMPLATES), node))

    def _identifier(self, full: str) -> str:
        return f"{self.name}-{self._hashes[full]}"


def _others(tasks: Iterable[Task], placed: Mapping[str, Task]) -> list[Task]:
    """The tasks that have no place; two may be alike in all that the API says."""
    known = {id(task) for task in placed.values()}
    return [task for task in tasks if id(task) not in known]


def _fnv1a(text: str, value: Any = 0x811C9DC5) -> Any:
    """The hash of a text, or of those that go on after texts that have the hashes `value`, an array of 64 bits."""
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value
