"""Two runs of one line at once, and steps that are killed: whether the line's state is ever of two runs.

    python -m benchmarks.line_leases --races 100 --kills 200 --out benchmarks/results/line_leases.json

A race: two processes begin a run of one line at the same moment, on a line that is new, free, of a run that is dead, or
of one that was ended a second ago and that Kubeflow knows as over.
A kill: a run of four steps goes on a line while a second run tries to begin all the time; at a random moment the step
under way is ended by SIGKILL. Some of these runs are repeated, as Kubeflow repeats a lost pod, the others are given up:
Kubeflow knows them as over from then on, and the second run takes the line over. The steps do next to nothing: each
sees that all that the steps before it left is of its own run, and leaves two files itself. Times are a hundredth of
those of a plant or less. A mixed state is any file of another run than the one that has the line, where a step
finds it.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from morphad.base.files import read_json, write_json
from morphad.steps.lease import Silence
from morphad.steps.line_state import LineState

STEPS = ("ingest", "split", "train", "promote")
SILENCE = Silence(heartbeat=0.05, ending=0.15, in_step=1.0, between_steps=1.5)
LINE = "pcb"
_FORK = multiprocessing.get_context("fork")


def work(state: LineState, run: str, step: str, seconds: float) -> None:
    """The body of a step.

    Raises:
        RuntimeError: What it finds is of more than one run.
    """
    for earlier in STEPS[: STEPS.index(step)]:
        for part in ("a", "b"):
            found = read_json(state.folder / f"{earlier}-{part}.json")["run"]
            if found != run:
                raise RuntimeError(f"{step} of {run} found {earlier}-{part} of {found}")
    for part in ("a", "b"):
        time.sleep(seconds / 2)
        write_json(state.folder / f"{step}-{part}.json", {"run": run})
    if (told := read_json(state.progress))["run"] != run:
        raise RuntimeError(f"{step} of {run} found the progress of {told['run']}")


def pod(root: Path, run: str, step: str, seconds: float, free_at: float) -> None:
    """One step in a process of its own, as its component would run it; exit code 70: a mixed state."""
    os.environ["MORPHAD_RUN"] = run
    sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 -- a refusal is no news here
    state = LineState(root, LINE, silence=SILENCE)
    try:
        with state.step(step, run if step == STEPS[0] else None, free_at):
            work(state, run, step, seconds)
            if step == STEPS[-1]:
                state.finish(run, "done")
    except RuntimeError as error:
        (root / f"mixed-{run}-{step}").write_text(str(error), encoding="utf-8")
        os._exit(70)


def start(root: Path, run: str, step: str, seconds: float, free_at: float = 0.0) -> Any:
    """Begin a step."""
    process = _FORK.Process(target=pod, args=(root, run, step, seconds, free_at))
    process.start()
    return process


def whole_run(root: Path, run: str, seconds: float, free_at: float) -> str:
    """One step after the other; how it ended."""
    for step in STEPS:
        process = start(root, run, step, seconds, free_at)
        process.join()
        if process.exitcode:
            return f"ended in {step} with code {process.exitcode}"
    return "done"


def race(root: Path, kind: str) -> tuple[int, list[str]]:
    """How many of two processes got a line that both ask for at once, and what they said."""
    barrier, answers = _FORK.Barrier(2), _FORK.SimpleQueue()
    before = LineState(root, LINE)
    if kind != "new":
        ago = 1 if kind == "over" else 7200
        LineState(root, LINE, clock=lambda: time.time() - ago).lease.begin("before", "ingest")
    if kind == "free":
        before.lease.let_go("before")
    if kind == "over":
        LineState(root, LINE, clock=lambda: time.time() - 1).lease.leave("before", "ingest")
    free_at = time.time() if kind == "over" else 0.0

    def ask(run: str) -> None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        barrier.wait()
        try:
            with LineState(root, LINE).step("ingest", run, free_at):
                os.close(os.open(root / f"in-{run}", os.O_CREAT | os.O_EXCL))
        except SystemExit as ended:
            answers.put(f"code {ended.code}")
            os._exit(0)
        answers.put("in")

    both = [_FORK.Process(target=ask, args=(run,)) for run in ("one", "two")]
    for process in both:
        process.start()
    for process in both:
        process.join()
    return len(list(root.glob("in-*"))), sorted(answers.get() for _ in both)


def kill(root: Path, number: int, rng: random.Random, ends: Counter[str]) -> None:
    """One run whose step is killed at a random moment, a second run beside it, and what became of both."""
    mine, others, over, free_at = f"run-{number}", Counter[str](), threading.Event(), [0.0]

    def beside() -> None:
        count = 0
        while not over.is_set():
            count += 1
            others[whole_run(root, f"other-{number}-{count}", 0.01, free_at[0])] += 1

    step, given_up = rng.choice(STEPS), rng.random() < 0.25
    second = threading.Thread(target=beside)
    end, began = "done", False
    for each in STEPS:
        for attempt in range(2):
            process = start(root, mine, each, 0.03)
            if each == STEPS[0] and attempt == 0:
                second.start()
            if each == step and attempt == 0:
                time.sleep(rng.uniform(0, 0.08))
                process.kill()
                process.join()
                if given_up:
                    break
                continue
            process.join()
            began = began or not process.exitcode
            if process.exitcode:
                end = f"ended in {each} with code {process.exitcode}"
            break
        if end != "done" or (each == step and given_up):
            end = end if end != "done" else f"given up in {each}"
            break
    if given_up:
        free_at[0] = time.time()
        deadline = time.monotonic() + 30
        while not others["done"] and time.monotonic() < deadline:
            time.sleep(0.02)
    over.set()
    second.join()
    ends[f"killed in {step}, {'given up' if given_up else 'repeated'}: {end}"] += 1
    for how, count in others.items():
        ends[f"second run: {how}"] += count


def run(races: int, kills: int, seed: int = 0, *, out: Path | None = None, command: str = "") -> dict[str, Any]:
    """All trials; figures of them, written to `out` too."""
    rng = random.Random(seed)  # noqa: S311
    holders: Counter[int] = Counter()
    answers: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="morphad-leases-") as scratch:
        for number in range(races):
            root = Path(scratch, f"race-{number}")
            root.mkdir()
            kind = ("new", "free", "dead", "over")[number % 4]
            count, said = race(root, kind)
            holders[count] += 1
            answers[f"{kind}: {', '.join(said)}"] += 1
        root = Path(scratch, "kills")
        root.mkdir()
        for number in range(kills):
            kill(root, number, rng, ends)
            if number % 20 == 19:
                print(f"{number + 1} of {kills} kills", flush=True)
        mixed = sorted(path.read_text(encoding="utf-8") for path in root.glob("mixed-*"))
    figures = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "command": command,
        "seed": seed,
        "seconds": round(time.monotonic() - begun),
        "races": races,
        "double_holders": sum(count for got, count in holders.items() if got > 1),
        "no_holder": holders[0],
        "ends_of_races": dict(sorted(answers.items())),
        "kills": kills,
        "mixed_states": len(mixed),
        "mixed": mixed,
        "ends": dict(sorted(ends.items())),
    }
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def main() -> None:
    """Race, kill, and say what was mixed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    words = f"python -m benchmarks.line_leases --races {options.races} --kills {options.kills} --seed {options.seed}"
    print(json.dumps(run(options.races, options.kills, options.seed, out=options.out, command=words), indent=2))


if __name__ == "__main__":
    main()
