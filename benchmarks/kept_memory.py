"""What a fit gains from keeping freed memory (`morphad.base.memory`), and what that takes.

    python -m benchmarks.kept_memory FOLDER [--good 40] [--rounds 2] --out benchmarks/results/kept_memory.json

A folder is a set in MVTec AD layout. The same short fit runs in fresh processes, with one thread, in turns: as it is,
and without the keeping. The lower of the rounds counts.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring import where
from morphad.base.files import write_json

_FIT = """
import json, resource, sys
from pathlib import Path
from morphad.base import memory
if sys.argv[3] != "kept":
    memory.keep_freed_blocks = lambda: None
from morphad.data.images import decode
from morphad.jobs.benchmark import read_set
from morphad.model.detector import Detector
from morphad.settings.presets import train_settings
training, _ = read_set(Path(sys.argv[1]))
good = [decode(image.file).pixels for image in training[: int(sys.argv[2])]]
before = resource.getrusage(resource.RUSAGE_SELF)
Detector(train_settings({"image_size": [224, 224], "optimiser": {"steps": 4}})).fit(good)
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"user_s": after.ru_utime - before.ru_utime, "system_s": after.ru_stime - before.ru_stime,
                  "peak_mb": after.ru_maxrss // 1024, "pages": after.ru_minflt - before.ru_minflt}))
"""
_WAYS = ("kept", "given back")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--good", type=int, default=40, help="pictures to learn from")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {way: [] for way in _WAYS}
    for _ in range(options.rounds):
        for way in _WAYS:
            done = subprocess.run(
                [sys.executable, "-c", _FIT, str(options.folder), str(options.good), way],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                check=True,
                capture_output=True,
                text=True,
            )
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    row: dict[str, Any] = {
        "set": options.folder.name,
        "good": options.good,
        "rounds": options.rounds,
        **{way: {key: round(min(run[key] for run in runs), 1) for key in runs[0]} for way, runs in found.items()},
        "revision": where()["revision"],
    }
    write_json(options.out, row)
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
