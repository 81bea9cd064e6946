"""How many bytes of pictures does a run on a cluster move and store: a first one, one with nothing new, one with some?

    python -m benchmarks.pictures_moved --images 2000 --size 480x640 --s3 --json benchmarks/results/pictures_moved.json

It draws its own pictures and runs `ingest` as pods do, with the state's volume and the artifacts in two folders, from a
folder that is copied, a folder that is used in place and, with --s3, a bucket (SeaweedFS, from the extra `stack`). For
each run it gives what was put into the store, what lies on the state's volume then, what the artifact holds that goes
from step to step, and what the process wrote in all. After the last run all pictures are read as the later steps read
them, hash and all.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.data_plane import draw
from benchmarks.measuring import revision
from morphad.base.files import write_json
from morphad.data.loading import read_pixels
from morphad.data.manifest import read_manifest
from morphad.settings import IngestSettings, LineSettings
from morphad.steps.ingest import ingest
from morphad.steps.paths import LinePaths

LINE = "synthetic"
RUNS = ("first", "nothing new", "some new")

Figures = dict[str, Any]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--new", type=int, default=20, help="that come before the last run")
    parser.add_argument("--size", default="480x640", metavar="HxW", help="of a picture, px")
    parser.add_argument("--s3", action="store_true", help="also from a bucket")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    sources: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        root = Path(scratch)
        camera = root / "camera"
        draw(camera, options.images, "mixed", (height, width))
        settings = {"folder": IngestSettings(path=str(camera))}
        settings["folder, in place"] = IngestSettings(path=str(camera), in_place=True)
        bucket = stack.enter_context(_bucket(root / "server")) if options.s3 else None
        if bucket is not None:
            settings["bucket"] = IngestSettings(source="s3", path=f"s3://{bucket[1]}/")
            _send(camera, bucket)
        time.sleep(2.5)  # a file that was written this moment is not believed to be whole
        for name in settings:
            sources[name] = {}
        for run in RUNS:
            if run == "some new":
                draw(camera, options.images + options.new, "mixed", (height, width))
                if bucket is not None:
                    _send(camera, bucket)
                time.sleep(2.5)
            for name, given in settings.items():
                sources[name][run] = _run(root / name.replace(", ", "-"), run, given)
                print(f"{name}, {run}: {sources[name][run]}", flush=True)
        for name, given in settings.items():
            sources[name]["reading all"] = _read(root / name.replace(", ", "-"), given)
        size = sum(path.stat().st_size for path in camera.iterdir())
    figures = {
        "command": " ".join(["python -m benchmarks.pictures_moved", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "revision": revision(),
        "images": options.images,
        "new_before_the_last_run": options.new,
        "bytes_of_all_pictures": size,
        "sources": sources,
    }
    if options.json:
        write_json(options.json, figures)


def _run(root: Path, run: str, settings: IngestSettings) -> Figures:
    """One run's `ingest`, and what it left."""
    artifact = root / "artifacts" / run.replace(" ", "-")
    paths = LinePaths.pod(LINE, str(root / "state"), data=str(artifact))
    before = {path.name for path in paths.store.glob("*/*")}
    written = psutil.Process().io_counters().write_chars
    started = time.perf_counter()
    said = ingest(LineSettings(ingest=settings), paths)
    seconds = time.perf_counter() - started
    written = psutil.Process().io_counters().write_chars - written
    new = [path for path in paths.store.glob("*/*") if path.name not in before]
    return {
        "pictures_new": said["new"],
        "pictures_put": len(new),
        "bytes_put": sum(path.stat().st_size for path in new),
        "bytes_on_the_volume": _size(root / "state"),
        "bytes_in_the_artifact": _size(artifact),
        "bytes_written": written,
        "seconds": round(seconds, 2),
    }


def _read(root: Path, settings: IngestSettings) -> Figures:
    """All pictures as a later step reads them."""
    paths = LinePaths.pod(LINE, str(root / "state"), data=str(root / "artifacts" / "some-new"))
    rows = read_manifest(paths.manifest)
    started, read = time.perf_counter(), psutil.Process().io_counters().read_chars
    count = sum(1 for _ in read_pixels(rows, paths.pictures, settings.decoding, "reading"))
    seconds = time.perf_counter() - started
    read = psutil.Process().io_counters().read_chars - read
    return {"pictures": count, "bytes_read": read, "seconds": round(seconds, 2)}


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; one of several names is counted once."""
    found = [path.lstat() for path in folder.rglob("*") if path.is_file()]
    return sum(size for _, size in {(status.st_ino, status.st_size) for status in found})


@contextmanager
def _bucket(folder: Path) -> Iterator[tuple[Any, str]]:
    """A client of a new server, and a bucket on it; the environment leads there."""
    from stack.object_store import ObjectStore

    folder.mkdir()
    store = ObjectStore(folder)
    store.start()
    try:
        os.environ.update({"AWS_EC2_METADATA_DISABLED": "true", **store.environment})
        store.create_bucket("camera")
        yield store.client(), "camera"
    finally:
        store.kill()


def _send(camera: Path, bucket: tuple[Any, str]) -> None:
    client, name = bucket
    there = {
        key["Key"]
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name)
        for key in page.get("Contents", ())
    }
    for path in camera.iterdir():
        if path.name not in there:
            client.upload_file(str(path), name, path.name)


if __name__ == "__main__":
    main()
