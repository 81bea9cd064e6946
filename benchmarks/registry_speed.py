"""How long the registry's verbs take: `status` of many lines, `history` of many versions.

    python -m benchmarks.registry_speed --lines 40 --versions 100
    source .stack/env && python -m benchmarks.registry_speed --uri "$MLFLOW_TRACKING_URI"

Versions have no model behind them; decisions are real. The whole process is timed (most of it is Python importing
MLflow), and the question itself, in a process that has imported it. Beside them: a process of MLflow's own client.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from morphad.registry import Registry
from morphad.settings import RegisterSettings

RUNS = 5


def fill(registry: Registry, uri: str, line: str, versions: int) -> None:
    """Register versions of a line, and promote one after the other."""
    registry.prepare(line)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("morphad")
    run = client.create_run("0" if experiment is None else experiment.experiment_id)
    for number in range(1, versions + 1):
        tags = {"morphad.detector_hash": f"{line}-{number}", "morphad.guarantee": "at most 5 % of good parts"}
        client.create_model_version(f"morphad-{line}", run.info.artifact_uri, run.info.run_id, tags=tags)
        reasons = [
            "AUROC is 95.00 % against 94.00 %: the difference of +1.00 points is above -0.50 at 95 % confidence."
        ]
        registry.promote(line, number, {"promote": True, "reasons": reasons * 5}, "benchmark")


def main() -> None:
    """Fill a registry and ask it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uri", default="")
    parser.add_argument("--lines", type=int, default=40)
    parser.add_argument("--versions", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uri = options.uri or f"sqlite:///{folder}/mlflow.db"
        os.environ["MLFLOW_TRACKING_URI"] = uri
        registry = Registry(RegisterSettings(tracking_uri=uri))
        stamp = f"{time.time_ns():x}"
        for number in range(options.lines):
            fill(registry, uri, f"s{stamp}-{number}", 2)
        fill(registry, uri, f"h{stamp}", options.versions)
        Path(folder, "params.yaml").write_text(
            json.dumps({"lines": {f"h{stamp}": {"ingest": {"path": "x"}, "register": {"tracking_uri": uri}}}}),
            encoding="utf-8",
        )
        line = f"h{stamp}"
        figures = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "backend": uri.split(":", 1)[0],
            "runs": RUNS,
            "mlflow_alone_s": _bare(uri),
            "status": {"lines": len(registry.overview()), **_timed(registry.overview, folder, "status")},
            "history": {
                "versions": options.versions,
                **_timed(lambda: (registry.trail(line), registry.history(line)), folder, "history", line),
            },
        }
    print(json.dumps(figures, indent=2))


def _timed(ask: Callable[[], Any], folder: str, *words: str) -> dict[str, float]:
    """Median seconds of the question, and of the whole command."""
    return {
        "question_s": _median(ask),
        "command_s": _median(
            lambda: subprocess.run(
                [sys.executable, "-m", "morphad.cli", *words], cwd=folder, check=True, capture_output=True
            )
        ),
    }


_BARE = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1], sys.argv[1]).search_registered_models()"


def _bare(uri: str) -> float:
    """Median seconds of a process in which MLflow's own client lists the models."""
    words = [sys.executable, "-c", _BARE, uri]
    return _median(lambda: subprocess.run(words, check=True, capture_output=True))


def _median(work: Callable[[], Any]) -> float:
    took = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return round(statistics.median(took), 2)


if __name__ == "__main__":
    main()
