"""Threads and a limit of cores: what scoring gets from the threads that morphad chooses, and three trainings at once.

    python -m benchmarks.cores --out benchmarks/results/cores.json

Scoring runs in a cgroup whose share of time is half of the machine's cores, as a pod's `cpu.limit` is, with 1, 2, 4 ...
threads up to four times the machine's cores, and with the threads that morphad chooses by itself. Each is a process of
its own, in turns, and the fastest of its rounds counts. Then three trainings run one after the other, and three at
once, without a limit. Root may make a cgroup; others get the second part alone.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_SCORE = """
import os, sys, time
if sys.argv[2]:
    open(sys.argv[2] + "/cgroup.procs", "w").write(str(os.getpid()))
import numpy as np, torch
from morphad.model.detector import Detector
from morphad.settings.presets import train_settings
random = np.random.default_rng(0)
good = [random.integers(0, 255, (224, 224, 3), dtype=np.uint8) for _ in range(12)]
settings = {"optimiser": {"steps": 1, "batch_size": 4}, "score": {"memory": 200}}
detector = Detector(train_settings(settings), 0).fit(good)
if int(sys.argv[1]):
    torch.set_num_threads(int(sys.argv[1]))
detector.score_samples(good[:4])
began = time.perf_counter()
for _ in range(2):
    detector.score_samples(good)
print(torch.get_num_threads(), 24 / (time.perf_counter() - began))
"""

_TRAIN = """
import numpy as np
from morphad.model.detector import Detector
from morphad.settings.presets import train_settings
random = np.random.default_rng(0)
good = [random.integers(0, 255, (224, 224, 3), dtype=np.uint8) for _ in range(16)]
settings = {"optimiser": {"steps": 5, "batch_size": 8}, "score": {"memory": 200}}
Detector(train_settings(settings), 0).fit(good)
"""


@contextmanager
def limited(cores: float) -> Iterator[Path | None]:
    """A cgroup with a limit of cores; None where this user cannot make one."""
    first = Path("/sys/fs/cgroup/cpu")  # of version 1; of version 2 there is one folder for all
    quota = f"{round(cores * 100_000)}"
    limits = {"cpu.cfs_quota_us": quota} if first.is_dir() else {"cpu.max": f"{quota} 100000"}
    folder = (first if first.is_dir() else first.parent) / f"morphad-cores-{os.getpid()}"
    try:
        folder.mkdir()
        for name, limit in limits.items():
            (folder / name).write_text(limit, encoding="ascii")
    except OSError as error:
        print(f"no cgroup: {error.strerror}", file=sys.stderr)
        with suppress(OSError):
            folder.rmdir()
        yield None
        return
    try:
        yield folder
    finally:
        folder.rmdir()


def start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """A process that chooses its threads itself."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], env=environment, text=True, stdout=subprocess.PIPE
    )


def ended(process: "subprocess.Popen[str]") -> str:
    """What it printed, once it has ended well."""
    said = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"a process ended with {process.returncode}")
    return said


def scoring(rounds: int, limit: float) -> dict[str, Any] | None:
    """Pictures a second by the number of threads, within a limit of cores."""
    counts = [0, *(2**power for power in range((4 * (os.cpu_count() or 1)).bit_length()))]
    with limited(limit) as folder:
        if folder is None:
            return None
        best, threads_of = dict.fromkeys(counts, 0.0), {}
        for number in range(rounds):
            for count in counts:
                threads, speed = ended(start(_SCORE, str(count), str(folder))).split()
                threads_of[count], best[count] = int(threads), max(best[count], float(speed))
                print(f"round {number + 1}: {threads} threads: {float(speed):.1f} pictures/s", file=sys.stderr)
    fastest = max(best[count] for count in counts[1:])
    return {
        "limit_cores": limit,
        "pictures_per_second": {str(count): round(best[count], 2) for count in counts[1:]},
        "chosen_threads": threads_of[0],
        "chosen_pictures_per_second": round(best[0], 2),
        "chosen_to_best": round(best[0] / fastest, 3),
    }


def training() -> dict[str, float]:
    """Seconds of three trainings, one after the other and at once."""
    began = time.monotonic()
    for _ in range(3):
        ended(start(_TRAIN))
    between = time.monotonic()
    for process in [start(_TRAIN) for _ in range(3)]:
        ended(process)
    after = time.monotonic()
    one, at_once = between - began, after - between
    return {"in_turn_seconds": round(one, 1), "at_once_seconds": round(at_once, 1), "ratio": round(at_once / one, 2)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    result = {
        "machine": f"{platform.machine()}, {cores} cores, Python {platform.python_version()}",
        "rounds": options.rounds,
        "scoring": scoring(options.rounds, cores / 2),
        "training": training(),
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
