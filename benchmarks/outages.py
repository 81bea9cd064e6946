"""Services that go away while a line runs: whether its run waits for them and ends well.

    python -m benchmarks.outages --seconds 300 --out benchmarks/results/outages.json

The steps of one run as their components do them, with MLflow on PostgreSQL and S3 and the images in a bucket: real
servers, in a folder of their own. Before `ingest` the S3 server is killed, before `register` and before `promote`
MLflow's; each is started again after the given time. A run is green when every step came to its end.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from kfp import dsl
from PIL import Image

from benchmarks.smallest import TRAIN
from components.calibrate import calibrate
from components.evaluate import evaluate
from components.ingest import ingest
from components.notify import notify
from components.promote import promote
from components.register import register
from components.split import split
from components.train import train
from components.validate import validate
from morphad.settings.line_json import line_to_json
from morphad.settings.reading import resolve
from stack.object_store import S3_OFFSETS
from stack.ports import free_port
from stack.server import Server
from stack.stack import Stack

LINE, BUCKET = "oven", "camera"
AWAY = {"ingest": "s3", "register": "mlflow", "promote": "mlflow"}
SETTINGS: dict[str, Any] = {
    "ingest": {"source": "s3", "path": f"s3://{BUCKET}/weave"},
    "train": TRAIN,
    "calibrate": {"false_reject_rate": 0.2},
    "evaluate": {"bootstrap": 100},
    "register": {"timeout_seconds": 20, "retries": 0},
    "promote": {"bootstrap": 100, "min_auroc": 0.0},
}


def fill(stack: Stack, rng: np.random.Generator) -> None:
    """Put pictures into the bucket: good ones, and defects with a bright spot."""
    stack.store.create_bucket(BUCKET)
    client = stack.store.client()
    for folder, count in (("train/good", 60), ("test/good", 6), ("test/spot", 6)):
        for number in range(count):
            grey = rng.normal(120, 6, (48, 48)).clip(0, 255)
            if folder == "test/spot":
                grey[16:28, 16:28] = 250
            stream = io.BytesIO()
            Image.fromarray(grey.astype(np.uint8)).save(stream, "png")
            client.put_object(Bucket=BUCKET, Key=f"weave/{folder}/{number:03}.png", Body=stream.getvalue())


@contextmanager
def away(server: Server, seconds: float) -> Iterator[None]:
    """Kill a server and start it again after some time, while a block runs."""
    server.kill()

    def bring_back() -> None:
        time.sleep(seconds)
        server.start()

    thread = threading.Thread(target=bring_back)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def run(stack: Stack, seconds: float, patience_seconds: int = 60) -> dict[str, Any]:
    """One run of a line with three outages; what each step took, how often it waited, and the table at the end.

    Args:
        stack: The servers, running.
        seconds: How long each outage is; the servers' own start comes on top.
        patience_seconds: As in `ingest.patience_seconds`.
    """
    fill(stack, np.random.default_rng(0))
    raw = {**SETTINGS, "ingest": {**SETTINGS["ingest"], "patience_seconds": patience_seconds}}
    settings = line_to_json(resolve({"lines": {LINE: raw}}).line(LINE))
    servers = {"s3": stack.store, "mlflow": stack.tracking}
    steps: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="morphad-outages-") as scratch, _environment(stack):
        state = str(Path(scratch, "state"))

        def artifact(name: str, kind: type[dsl.Artifact] = dsl.Artifact) -> Any:
            return kind(uri=str(Path(scratch, name)))

        data, roles = artifact("data", dsl.Dataset), artifact("roles", dsl.Dataset)
        fitted, calibration = artifact("fitted", dsl.Model), artifact("calibration")
        report, registration = artifact("report"), artifact("registration")
        common = {"line": LINE, "settings_json": settings, "state_root": state}
        detector = {"fitted": fitted, "calibration": calibration}
        data_hash = "0" * 64  # for records alone
        says = ("roles_hash", "again", "train", "calibrate", "evaluate")
        split_says = {name: Path(scratch, f"split-{name}") for name in says}
        by_hash = {"roles_hash": split_says["roles_hash"]}

        def part(step: str) -> dict[str, Path]:
            """What a cached step gets of what split says; its files are read when the step's turn has come."""
            return {**by_hash, "settings_json": split_says[step]}

        given: dict[Any, dict[str, Any]] = {
            ingest: {"run": "r", "data": data},
            validate: {"data": data, "findings": artifact("findings"), "page": artifact("contract", dsl.HTML)},
            split: {
                "seed": 0, "run": "r", "force": False, "data_hash": data_hash, "data": data, "roles": roles,
                **{name: str(path) for name, path in split_says.items()},
            },
            train: {**part("train"), "seed": 0, "gpus": 0, "again": "", "fitted": fitted},
            calibrate: {**part("calibrate"), **detector},
            evaluate: {
                **part("evaluate"), **detector, "seed": 0, "report": report,
                "metrics": artifact("metrics", dsl.Metrics), "page": artifact("page", dsl.HTML),
                "curves": artifact("curves", dsl.ClassificationMetrics),
            },
            register: {
                **by_hash, **detector, "reason": "manual", "report": report,
                "registration": registration,
            },
            promote: {
                **by_hash, **detector, "seed": 0, "run": "r", "reason": "manual", "data_hash": data_hash,
                "registration": registration, "decision": artifact("decision"),
                "reasons": artifact("reasons", dsl.Markdown),
            },
        }  # fmt: skip
        for component, arguments in given.items():
            name = component.name
            said, begun = io.StringIO(), time.monotonic()
            outage = away(servers[AWAY[name]], seconds) if name in AWAY else contextlib.nullcontext()
            with outage, contextlib.redirect_stderr(said):
                try:
                    now = {key: text.read_text() if isinstance(text, Path) else text for key, text in arguments.items()}
                    component.python_func(**{**common, **now})
                    code = 0
                except SystemExit as ended:
                    code = int(ended.code or 0)
                took = time.monotonic() - begun
            print(f"{name}: code {code} after {took:.0f} s", flush=True)
            steps[name] = {
                "code": code,
                "seconds": round(took, 1),
                "waits": said.getvalue().count("next try in"),
                **({"away": AWAY[name]} if name in AWAY else {}),
                **({"said": said.getvalue()[-1500:]} if code else {}),
            }
            if code:
                break
        summary = artifact("summary", dsl.Markdown)
        status = dsl.PipelineTaskFinalStatus("SUCCEEDED", "", "", 0, "")
        notify.python_func([{"line": LINE}], "r", "manual", state, status, summary)
        table = Path(summary.path).read_text(encoding="utf-8")
    return {"green": f"| {LINE} | done |" in table, "steps": steps, "table": table}


@contextmanager
def _environment(stack: Stack) -> Iterator[None]:
    """What pods of the steps have, for a block."""
    before = dict(os.environ)
    os.environ.update(
        {**stack.environment, "MORPHAD_PATIENCE_MINUTES": "10", "MORPHAD_RUN": "r", "MLFLOW_DISABLE_TELEMETRY": "true"}
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> None:
    """Start the servers, run, and say how it ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="morphad-stack-"))
    place.chmod(0o755)  # root's PostgreSQL runs as another user
    stack = Stack.open(
        place / "stack", {"postgres_port": free_port(), "s3_port": free_port(S3_OFFSETS), "mlflow_port": free_port()}
    )
    try:
        stack.up(print)
        figures = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "command": f"python -m benchmarks.outages --seconds {options.seconds:g}",
            "seed": 0,
            "outage_seconds": options.seconds,
            **run(stack, options.seconds),
        }
    finally:
        for server in stack.servers:
            server.kill()
        shutil.rmtree(place)
    text = json.dumps(figures, indent=2) + "\n"
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(0 if figures["green"] else 1)


if __name__ == "__main__":
    main()
