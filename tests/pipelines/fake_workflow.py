"""The tasks that Kubeflow's API tells of a run, as a real one with Argo gave them: names, hashes, who leads to whom."""

import functools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]

NOBODY = "0001-01-01T00:00:00Z"

# What each step of the training pipeline leads to, in the order in which Argo names them.
_NEXT = {
    "ingest": ("validate", "split", "train", "calibrate", "evaluate", "promote"),
    "validate": ("split",),
    "split": ("train", "calibrate", "evaluate", "register", "promote"),
    "train": ("calibrate",),
    "calibrate": ("evaluate", "register", "promote"),
    "evaluate": ("register",),
    "register": ("promote",),
    "promote": (),
}
STEPS = tuple(_NEXT)


def stamp(when: datetime) -> str:
    """A time as the API writes it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def node_of(full: str) -> str:
    """The identifier of a node: FNV-1a of its full name, after the workflow's name."""
    workflow = full.partition("(")[0]
    return workflow if full == workflow else f"{workflow}-{_hash(full)}"


@functools.cache
def _hash(full: str) -> int:
    parent, dot, name = full.rpartition(".")
    value = _hash(parent) if dot else 0x811C9DC5
    for byte in f"{dot}{name}".encode():
        value = ((value ^ byte) * 0x01000193) % 2**32
    return value


@dataclass
class Workflow:
    """A workflow that can be drawn up step by step.

    Args:
        run_id: The run's identifier.
        name: The workflow's.
        began: When it began.
    """

    run_id: str
    name: str
    began: datetime
    tasks: list[Json] = field(default_factory=list)
    pods: dict[tuple[str, int | None], list[str]] = field(default_factory=dict)

    def add(self, full: str, display: str, state: str, children: Sequence[str], **times: str) -> Json:
        """Add a node."""
        began = times.get("began", stamp(self.began))
        over = state not in {"RUNNING", "PENDING"}
        history: Json = {"update_time": times.get("since", began)}
        task: Json = {
            "run_id": self.run_id,
            "task_id": str(uuid.uuid5(uuid.NAMESPACE_OID, full)),
            "display_name": display,
            "create_time": stamp(self.began),
            "start_time": began,
            "end_time": times.get("ended", stamp(self.began + timedelta(minutes=1))) if over else NOBODY,
            "state": state,
            "state_history": [{**history, "state": state} if state else history],
            "child_tasks": [{"pod_name": node_of(child)} for child in children],
        }
        for key in ("state", "child_tasks"):
            if not task[key]:
                del task[key]
        self.tasks.append(task)
        return task

    def repeated(self, full: str, display: str, state: str, inner: Sequence[str], after: Sequence[str] = ()) -> str:
        """Add a node that Argo may repeat, with its one repetition; give that one's full name."""
        self.add(full, display, state, [f"{full}(0)", *after])
        self.add(f"{full}(0)", f"{display}(0)", state, inner)
        return f"{full}(0)"

    def driver(self, parent: str, name: str, then: Sequence[str], state: str = "SUCCEEDED") -> str:
        """Add a driver's pod; give its full name."""
        full = f"{parent}.{name}"
        self.repeated(full, name, state, then)
        return full

    def step(self, parent: str, name: str, state: str, after: Sequence[str], **more: Any) -> None:
        """Add a step with its driver and its pods.

        Args:
            parent: The full name of what it is a part of.
            name: The step's.
            state: The step's.
            after: Full names of what follows it.
            more: `line`: number of its line; `pods`: their states; `times`: as `add` has them.
        """
        line, pods, times = more.get("line"), more.get("pods", [state]), more.get("times", {})
        full, inner = f"{parent}.{name}", f"{parent}.{name}(0).executor"
        if not state:  # Argo left it out
            self.add(f"{full}-driver", f"{name}-driver", "", [full])
            self.add(full, name, "", after)
            return
        self.driver(parent, f"{name}-driver", [full])
        self.add(full, name, state, [f"{full}(0)"], **times)
        self.add(f"{full}(0)", f"{name}(0)", state, [inner, *after], **times)
        held = [f"{inner}({number})" for number in range(len(pods))]
        self.add(inner, "executor", "RUNNING" if state == "PENDING" else state, held, **times)
        for number, pod in enumerate(pods):
            self.add(held[number], f"executor({number})", pod, (), **times)
        self.pods[name, line] = [node_of(each) for each in held]


def training(
    run_id: str,
    name: str,
    began: datetime,
    lines: Sequence[Mapping[str, str]],
    *,
    pods: Mapping[tuple[str, int], Sequence[str]] | None = None,
    notify: str = "SUCCEEDED",
    times: Mapping[str, Mapping[str, str]] | None = None,
) -> Workflow:
    """A run of the training pipeline.

    Args:
        run_id: The run's identifier.
        name: The workflow's.
        began: When it began.
        lines: Of each line, the state of each step that there is anything of; "": Argo left it out.
        pods: States of a step's pods, by step and line, where there is not just one in the step's state.
        notify: State of the exit handler; "": it has not begun.
        times: For a step, `began`, `ended` and `since`.
    """
    made = Workflow(run_id, name, began)
    states = {state for line in lines for state in line.values()}
    whole = "RUNNING" if not notify else "FAILED" if "FAILED" in states else "SUCCEEDED"
    root = f"{name}(0).root(0)"
    handler, ending = f"{root}.exit-handler-1", f"{root}.exit-handler-1.onExit"
    loop = f"{handler}(0).for-loop-2"
    items = f"{loop}(0).iteration-iterations"
    made.repeated(name, name, whole, [f"{name}(0).root-driver"])
    made.driver(f"{name}(0)", "root-driver", [f"{name}(0).root"])
    made.repeated(f"{name}(0).root", "root", whole, [f"{handler}-driver"])
    made.driver(root, "exit-handler-1-driver", [handler])
    made.repeated(handler, "exit-handler-1", whole, [loop], [ending] if notify else [])
    made.repeated(loop, "for-loop-2", whole, [f"{loop}(0).iteration-driver"])
    made.driver(f"{loop}(0)", "iteration-driver", [items])
    made.add(items, "iteration-iterations", whole, [f"{items}({n}:{n})" for n in range(len(lines))])
    for number, line in enumerate(lines):
        each = f"{items}({number}:{number})"
        state = next((found for found in ("FAILED", "RUNNING", "PENDING") if found in line.values()), "SUCCEEDED")
        state = "RUNNING" if state == "PENDING" else state
        made.repeated(each, f"iteration-iterations({number}:{number})", state, [f"{each}(0).iteration-item-driver"])
        made.driver(f"{each}(0)", "iteration-item-driver", [f"{each}(0).iteration-item"])
        item = f"{each}(0).iteration-item(0)"
        made.repeated(f"{each}(0).iteration-item", "iteration-item", state, [f"{item}.ingest-driver"])
        for step, found in line.items():
            if step.endswith("-driver"):
                made.driver(item, step, [], found)
                continue
            after = [f"{item}.{other}-driver" for other in _after(step, line)]
            held = (pods or {}).get((step, number), [found])
            made.step(item, step, found, after, line=number, pods=held, times=(times or {}).get(step, {}))
    if notify:
        made.repeated(ending, "exit-handler-1.onExit", notify, [f"{ending}(0).notify-driver"])
        made.step(f"{ending}(0)", "notify", notify, [])
    return made


def prediction(run_id: str, name: str, began: datetime, shards: Sequence[str]) -> Workflow:
    """A run of the batch prediction pipeline that came to its shards.

    Args:
        run_id: The run's identifier.
        name: The workflow's.
        began: When it began.
        shards: The state of each shard.
    """
    made = Workflow(run_id, name, began)
    whole = "FAILED" if "FAILED" in shards else "SUCCEEDED"
    root = f"{name}(0).root(0)"
    loop = f"{root}.for-loop-1"
    items = f"{loop}(0).iteration-iterations"
    made.repeated(name, name, whole, [f"{name}(0).root-driver"])
    made.driver(f"{name}(0)", "root-driver", [f"{name}(0).root"])
    made.repeated(f"{name}(0).root", "root", whole, [f"{root}.batch-plan-driver"])
    made.step(root, "batch-plan", "SUCCEEDED", [loop])
    made.repeated(loop, "for-loop-1", whole, [f"{loop}(0).iteration-driver", f"{root}.batch-merge-driver"])
    made.driver(f"{loop}(0)", "iteration-driver", [items])
    made.add(items, "iteration-iterations", whole, [f"{items}({n}:{n})" for n in range(len(shards))])
    for number, state in enumerate(shards):
        each = f"{items}({number}:{number})"
        item = f"{each}(0).iteration-item"
        made.repeated(each, f"iteration-iterations({number}:{number})", state, [f"{each}(0).iteration-item-driver"])
        made.driver(f"{each}(0)", "iteration-item-driver", [item])
        made.repeated(item, "iteration-item", state, [f"{item}(0).batch-predict-driver"])
        made.step(f"{item}(0)", "batch-predict", state, [], line=number)
    made.step(root, "batch-merge", "SUCCEEDED" if whole == "SUCCEEDED" else "", [])
    return made


def _after(step: str, line: Mapping[str, str]) -> list[str]:
    """What Argo says follows a step, of what there is already."""
    return [other for other in _NEXT[step] if other in line]
