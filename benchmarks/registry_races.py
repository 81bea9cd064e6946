"""Two hands at once, and hands that are killed: whether the registry's records stay true.

    python -m benchmarks.registry_races --uri sqlite:////tmp/races/mlflow.db --races 200 --kills 200
    source .stack/env && python -m benchmarks.registry_races --races 200 --kills 200

A race: two processes decide about one line at the same moment. A kill: a process that decides is ended by SIGKILL at a
random moment of its work, and another decision follows. After each, what the processes answered, the audit trail and
MLflow's aliases are held against each other. A false record is any difference: a process that reported that it was
done and stands not in the trail, one that was refused and does, an alias that is not where the trail says, a broken
chain.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from morphad.base.errors import BadInputError, CheckFailedError, MorphadError
from morphad.registry import Registry, Retention
from morphad.settings import RegisterSettings

# a and b are versions that nobody has decided about; the champion was promoted and has one before it. For a pair that
# approves or declines, b awaits approval.
PAIRS = (
    ("promote a", "promote b"),
    ("promote a", "rollback"),
    ("rollback", "rollback"),
    ("promote a", "promote a"),
    ("approve", "promote a"),
    ("withdraw", "approve"),
    ("approve", "decline"),
    ("prune", "promote a"),
    ("repair", "promote a"),
    ("prune", "rollback"),
)
ACTS = ("promote a", "rollback", "withdraw", "propose b", "prune")
A_LINE = 20  # trials on one line, one after the other: its trail grows, as in a plant
UNHARMED = 4  # trials whose process is let live, to know how long one takes
_FORK = multiprocessing.get_context("fork")  # MLflow needs seconds to import; nothing is connected before the fork


class _Uncheckable(Registry):
    """A registry whose versions have no model behind them."""

    def check(self, version: Any) -> None:
        """Nothing is there to be loaded."""


def act(registry: Registry, line: str, what: str, who: str) -> int | None:
    """Do one thing about a line; the version in service that it got as the answer."""
    decision = {"promote": True, "reasons": [f"{who} says so"]}
    verb, _, number = what.partition(" ")
    if verb == "promote":
        return registry.promote(line, int(number), decision, who).number
    if verb == "propose":
        registry.propose(line, int(number), decision, who)
        return None
    without_answer: dict[str, Callable[..., Any]] = {
        "withdraw": registry.withdraw,
        "decline": registry.decline,
        "prune": partial(registry.prune, line, Retention(newest=0, former=1, days=0)),
        "repair": partial(registry.repair, accept=True),
    }
    if verb in without_answer:
        target = () if verb == "prune" else (line,)
        without_answer[verb](*target, f"{who} says so", who)
        return None
    if verb == "approve":
        return registry.approve(line, f"{who} says so", who).number
    return registry.rollback(line, f"{who} says so", who).number


def prepare(uri: str, line: str, experiment: str) -> dict[str, int]:
    """Register three versions of a line and put one in service; the numbers of the two others, a and b."""
    client, registry = MlflowClient(tracking_uri=uri, registry_uri=uri), _registry(uri)
    if not experiment:
        registry.prepare(line)
        client.create_experiment(f"races-{line}")
    there = client.get_experiment_by_name(f"races-{line}")
    run = client.create_run("0" if there is None else there.experiment_id)
    numbers = []
    for name in ("champion", "a", "b"):
        tags = {"morphad.detector_hash": f"{run.info.run_id}-{name}"}
        made = client.create_model_version(f"morphad-{line}", run.info.artifact_uri, run.info.run_id, tags=tags)
        numbers.append(int(made.version))
    act(registry, line, f"promote {numbers[0]}", "before")
    return dict(zip("ab", numbers[1:], strict=True))


def differences(uri: str, line: str, told: dict[str, Any]) -> list[str]:
    """What is false about a line after all hands have gone."""
    registry = _registry(uri)
    try:
        standing = registry.standing(line)  # finishes what was cut off; raises where records and aliases differ
        entries = registry.trail(line).entries
    except MorphadError as error:
        return [str(error)]
    found = []
    acted = Counter(entry.by.name for entry in entries)
    for who, (what, ended, champion) in told.items():
        if ended == "done" and acted[who] != 1 and what not in _repeats(told):
            found.append(f"{who} reported that {what} is done, but the trail has it {acted[who]} times")
        if ended == "refused" and acted[who]:
            found.append(f"{who} was refused, but {what} is in the trail")
        if ended == "done" and champion is not None and champion not in standing.served:
            found.append(f"{who} reported that version {champion} is champion, but it never served")
        if acted[who] > 1:
            found.append(f"{who} stands in the trail {acted[who]} times")
    aliases = MlflowClient(tracking_uri=uri, registry_uri=uri).get_registered_model(f"morphad-{line}").aliases
    pointing = {alias: int(number) for alias, number in aliases.items()}
    if pointing != standing.aliases:
        found.append(f"aliases are {pointing}, the trail says {standing.aliases}")
    return found


def _repeats(told: dict[str, Any]) -> set[str]:
    """What both were to do: whoever comes second finds it done."""
    return {what for what, count in Counter(what for what, _, _ in told.values()).items() if count > 1}


class Hand:
    """A process that does what it is asked, connected once; the one who started it can kill it."""

    def __init__(self, uri: str, barrier: Any = None) -> None:
        self._pipe, theirs = _FORK.Pipe()
        self._process = _FORK.Process(target=_work, args=(uri, theirs, barrier))
        self._process.start()
        theirs.close()

    def tell(self, *order: Any) -> None:
        """Give an order: ("act", line, what, who), ("race", ...), ("prepare", line, experiment), ("check", line, "
        "told)."""
        self._pipe.send(order)

    def answer(self) -> Any:
        """What came of it.

        Raises:
            EOFError: The process is dead.
        """
        return self._pipe.recv()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()  # nothing, if it is dead
        self._process.join()


def _work(uri: str, pipe: Pipe, barrier: Any) -> None:
    registry = _registry(uri)
    with suppress(MorphadError):
        registry.history("nobody")  # connected before the first order
    while True:
        verb, *order = pipe.recv()
        if verb == "end":
            os._exit(0)
        if verb == "connect":
            pipe.send(None)
        elif verb == "prepare":
            pipe.send(prepare(uri, *order))
        elif verb == "check":
            pipe.send(differences(uri, *order))
        else:
            if verb == "race":
                barrier.wait()
            pipe.send(_act(registry, *order))


def _act(registry: Registry, line: str, what: str, who: str) -> tuple[str, str, Any]:
    try:
        return what, "done", act(registry, line, what, who)
    except (CheckFailedError, BadInputError) as error:
        return what, "refused", str(error)
    except MorphadError as error:
        return what, "failed", str(error)


def _named(what: str, names: dict[str, int]) -> str:
    """The act with the numbers of the versions."""
    verb, _, name = what.partition(" ")
    return f"{verb} {names[name]}" if name else verb


def _registry(uri: str) -> Registry:
    return _Uncheckable(RegisterSettings(tracking_uri=uri, timeout_seconds=60))


def main() -> None:
    """Race, kill, and say what was false."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uri", default=os.environ.get("MLFLOW_TRACKING_URI", ""))
    parser.add_argument("--races", type=int, default=200)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    uri = options.uri or f"sqlite:///{tempfile.mkdtemp()}/mlflow.db"
    for name, value in (("MLFLOW_TRACKING_URI", uri), ("MLFLOW_DISABLE_TELEMETRY", "true")):
        os.environ[name] = value
    print(json.dumps(run(uri, options.races, options.kills, options.seed, out=options.out), indent=2))


def run(uri: str, races: int, kills: int, seed: int = 0, *, out: Path | None = None) -> dict[str, Any]:
    """All trials; figures of them, written to `out` too."""
    rng, stamp = random.Random(seed), f"{time.time_ns():x}"  # noqa: S311
    barrier = _FORK.Barrier(2)
    clerk = Hand(uri)
    hands = [Hand(uri, barrier) for _ in range(2)]
    ends: Counter[str] = Counter()
    false: list[str] = []
    took: list[float] = []
    spans: list[float] = []
    for number in range(races + kills):
        line = f"r{stamp}-{number // A_LINE}"
        clerk.tell("prepare", line, "there" if number % A_LINE else "")
        names = clerk.answer()
        if number < races:
            pair = PAIRS[number % len(PAIRS)]
            if {"approve", "decline"} & set(pair):
                hands[0].tell("act", line, _named("propose b", names), "before")
                hands[0].answer()
            begun = time.perf_counter()
            for index, (hand, what) in enumerate(zip(hands, pair, strict=True)):
                hand.tell("race", line, _named(what, names), f"hand {index} of {number}")
            told = {f"hand {index} of {number}": hand.answer() for index, hand in enumerate(hands)}
            took.append(time.perf_counter() - begun)
            ends[f"race {' / '.join(pair)}: " + ", ".join(sorted(end for _, end, _ in told.values()))] += 1
        else:
            what = ACTS[number % len(ACTS)]
            victim = Hand(uri)
            victim.tell("connect")
            victim.answer()
            begun = time.perf_counter()
            victim.tell("act", line, _named(what, names), f"killed {number}")
            if len(spans) >= UNHARMED:
                time.sleep(rng.uniform(0, 1.1 * statistics.median(spans)))
                victim.kill()
            try:
                told = {f"killed {number}": victim.answer()}
                spans.append(time.perf_counter() - begun)
            except EOFError:
                told = {f"killed {number}": (what, "killed", None)}
            victim.kill()
            hands[0].tell("act", line, _named("promote b", names), f"next {number}")
            told[f"next {number}"] = hands[0].answer()
            ends[f"kill {what}: {', next '.join(end for _, end, _ in told.values())}"] += 1
        clerk.tell("check", line, told)
        for problem in clerk.answer():
            false.append(f"trial {number}: {problem}")
            print(false[-1], flush=True)
        if number % 20 == 19:
            print(f"{number + 1} of {races + kills}, {len(false)} false records", flush=True)
    for hand in (clerk, *hands):
        hand.tell("end")
    figures = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "backend": uri.split(":", 1)[0],
        "seed": seed,
        "races": races,
        "kills": kills,
        "false_records": len(false),
        "false": false,
        "ends": dict(sorted(ends.items())),
        "median_seconds_of_a_race": round(statistics.median(took), 2) if took else None,
    }
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


if __name__ == "__main__":
    main()
