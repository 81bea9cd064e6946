"""How long morphad needs to start: whole processes, one after the other.

    python -m benchmarks.start_times --runs 20

Seconds by the clock, and seconds of the processor, which grow less when other work runs beside it. The row
`python -c pass` is the share of the interpreter and its environment; every other row contains it. Bytecode is there
from a run before, as it is for an installed package.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import morphad": ["-c", "import morphad"],
    "morphad --help": ["-m", "morphad.cli", "--help"],
}


def seconds(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """By the clock and of the processor, of one process of this interpreter."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return ended - begun, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Time each command, in turns, so that a busy minute meets them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for arguments in COMMANDS.values():
            seconds(arguments, environment)
        for _ in range(options.runs):
            for name, arguments in COMMANDS.items():
                times[name].append(seconds(arguments, environment))
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{options.runs} runs, {machine}; seconds, median (fastest):")
    for name, of in times.items():
        clock, processor = zip(*of, strict=True)
        print(
            f"{name}: {statistics.median(clock):.3f} ({min(clock):.3f}) by the clock, "
            f"{statistics.median(processor):.3f} ({min(processor):.3f}) of the processor"
        )


if __name__ == "__main__":
    main()
