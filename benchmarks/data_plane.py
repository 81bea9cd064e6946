"""How fast do images get from a folder or a bucket into a manifest and a split, and what does it cost in memory?

    python benchmarks/data_plane.py [--images 10000] [--kind mixed] [--size 480x640] [--s3 10000] [--keys 100000]

It draws its own images, runs every step in a process of its own, and holds the manifest (`morphad check`) against what
cannot be avoided: reading, hashing and decoding the same files with the same threads, measured before and after it; and
ingest, which keeps a copy, against the same with a copy written. Against a bucket (SeaweedFS on this machine, from the
extra `stack`) the floor is a plain loop of GETs with the same threads; `aws s3 sync` and `rclone copy` fetch the same
objects where they are installed.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from morphad.base.files import write_json
from morphad.settings import IngestSettings, LineSettings
from morphad.steps.paths import LinePaths

LINE = "synthetic"
KINDS = {"grey-jpeg": ("L", "jpg"), "grey-png": ("L", "png"), "colour-jpeg": ("RGB", "jpg")}
TRANSFERS = 16
# As a person would; rclone with as many transfers at a time as morphad, aws with its own ten.
TOOLS = {
    "aws": ("aws", "s3", "sync", "--only-show-errors"),
    "rclone": ("rclone", "copy", f"--transfers={TRANSFERS}"),
}

Figures = dict[str, Any]


def main() -> None:
    """Run all steps, or the one that the parent process asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kind", choices=["mixed", *KINDS], default="mixed")
    parser.add_argument("--size", type=_size, default=(480, 640), metavar="HxW", help="of an image, px")
    parser.add_argument("--s3", type=int, default=0, metavar="N", help="also read the first N of them from a bucket")
    parser.add_argument("--keys", type=int, default=0, metavar="N", help="also list a prefix of N tiny objects")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--folder", type=Path, help="where to work; what is there of an earlier run is used")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, *arguments = options.step
        print(json.dumps(_timed(lambda: STEPS[name](*arguments))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        figures = measure(folder, options)
    _show(figures)
    if options.json:
        write_json(options.json, figures)


def measure(folder: Path, options: argparse.Namespace) -> Figures:
    """All steps of one size, in order."""
    images, kind, size = options.images, options.kind, options.size
    camera, place = folder / "camera", folder / "project"
    shutil.rmtree(place, ignore_errors=True)
    draw(camera, images, kind, size)
    total = sum(path.stat().st_size for path in camera.iterdir())
    figures: Figures = {
        "images": images,
        "kind": kind,
        "height": size[0],
        "width": size[1],
        "megabytes": total / 1e6,
        "threads": os.cpu_count(),
        "python": sys.version.split()[0],
        "steps": {},
    }
    steps = figures["steps"]

    def run(label: str, step: str, *arguments: object) -> None:
        steps[label] = _in_a_process(step, *arguments)
        print(f"{label}: {steps[label]['seconds']:.1f} s, {steps[label]['peak_mb']:.0f} MB", file=sys.stderr)

    run("read and hash", "hash", camera)
    run("read, hash, decode (before)", "decode", camera)
    run("manifest", "manifest", camera, folder / "manifest.parquet")
    run("read, hash, decode (after)", "decode", camera)
    run("the same and write (before)", "decode", camera, folder / "copy")
    run("ingest", "ingest", place, camera)
    run("the same and write (after)", "decode", camera, folder / "copy")
    shutil.rmtree(folder / "copy")
    run("ingest, nothing new", "ingest", place, camera)
    added = max(images // 100, 1)
    draw(camera, images + added, kind, size)
    run(f"ingest, {added} new", "ingest", place, camera)
    run("contract", "validate", place)
    run("split", "split", place)
    for step, floor in (("manifest", "read, hash, decode"), ("ingest", "the same and write")):
        for unit in ("seconds", "cpu_seconds"):
            before, after = (steps[f"{floor} ({when})"][unit] for when in ("before", "after"))
            figures[f"{step}_share_of_floor_{unit}"] = (before + after) / 2 / steps[step][unit]
    figures["rerun"] = steps["ingest, nothing new"]["seconds"] / steps["ingest"]["seconds"]
    if options.s3:
        figures["s3"] = _measure_bucket(folder, camera, options.s3, options.keys)
    return figures


def _measure_bucket(folder: Path, camera: Path, count: int, keys: int) -> Figures:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from stack.object_store import ObjectStore

    place, floor = folder / "bucket-project", folder / "floor"
    for path in (place, floor):
        shutil.rmtree(path, ignore_errors=True)
    few = folder / "few"
    shutil.rmtree(few, ignore_errors=True)
    few.mkdir()
    for path in sorted(camera.iterdir())[:count]:
        os.link(path, few / path.name)
    store = ObjectStore(folder / "s3")
    store.start()
    try:
        os.environ |= store.environment
        store.create_bucket("cameras")
        url = "s3://cameras/synthetic"
        steps: Figures = {}
        plan: list[tuple[str, str, tuple[object, ...]]] = [
            ("upload", "upload", (few, url)),
            ("plain GETs (before)", "gets", (url, floor / "1")),
            ("mirror", "mirror", (place, url)),
            ("plain GETs (after)", "gets", (url, floor / "2")),
            *(
                (" ".join(tool), "fetch_by", (name, url, floor / name))
                for name, tool in TOOLS.items()
                if shutil.which(name)
            ),
            ("ingest of what is mirrored", "ingest", (place, url)),
            ("ingest, nothing new", "ingest", (place, url)),
        ]
        if keys:
            plan += [
                (f"put {keys:,} tiny objects", "put_tiny", ("s3://cameras/tiny", keys)),
                (f"list {keys:,} keys", "list", (folder / "listing", "s3://cameras/tiny")),
            ]
        for label, step, arguments in plan:
            steps[label] = _in_a_process(step, *arguments)
            print(f"S3 {label}: {steps[label]['seconds']:.1f} s, {steps[label]['peak_mb']:.0f} MB", file=sys.stderr)
    finally:
        store.kill()
    plain = (steps["plain GETs (before)"]["seconds"] + steps["plain GETs (after)"]["seconds"]) / 2
    first = steps["mirror"]["seconds"] + steps["ingest of what is mirrored"]["seconds"]
    return {
        "images": count,
        "transfers": TRANSFERS,
        "steps": steps,
        "share_of_floor": plain / steps["mirror"]["seconds"],
        "rerun": steps["ingest, nothing new"]["seconds"] / first,
    }


def draw(folder: Path, count: int, kind: str, size: tuple[int, int]) -> None:
    """Images of the first `count` numbers, each with a coarse pattern of its own under noise; those there are kept."""
    height, width = size
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 3, (2 * height, 2 * width)).astype(np.int16)

    def one(number: int) -> None:
        mode, suffix = KINDS[list(KINDS)[number % len(KINDS)] if kind == "mixed" else kind]
        path = folder / f"{number:07}.{suffix}"
        if path.exists():
            return
        rng = np.random.default_rng(number)
        coarse = Pillow.fromarray(rng.integers(40, 200, (12, 16), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Pillow.Resampling.BICUBIC)).astype(np.int16)
        y, x = rng.integers(0, height), rng.integers(0, width)
        grey = (smooth + noise[y : y + height, x : x + width]).clip(0, 255).astype(np.uint8)
        temporary = folder / f".{number}"
        options = {"quality": 90} if suffix == "jpg" else {"compress_level": 1}
        Pillow.fromarray(grey).convert(mode).save(temporary, "JPEG" if suffix == "jpg" else "PNG", **options)
        temporary.replace(path)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(one, range(count), chunksize=1):
            pass


def _size(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def _timed(step: Callable[[], Any]) -> Figures:
    started, processor = time.perf_counter(), sum(os.times()[:4])
    result = step()
    peaks = [resource.getrusage(whose).ru_maxrss for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": sum(os.times()[:4]) - processor,
        "peak_mb": max(peaks) / 1e3,
        "result": result,
    }


def _in_a_process(step: str, *arguments: object) -> Figures:
    command = [sys.executable, __file__, "--step", step, *map(str, arguments)]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _over_files(folder: str, function: Callable[[Path], object]) -> int:
    paths = sorted(Path(folder).iterdir())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(1 for _ in pool.map(function, paths))


def _hash(folder: str) -> int:
    return _over_files(folder, lambda path: hashlib.sha256(path.read_bytes()).digest())


def _decode(folder: str, copies: str = "") -> int:
    import io

    if copies:
        shutil.rmtree(copies, ignore_errors=True)
        Path(copies).mkdir(parents=True)

    def one(path: Path) -> int:
        data = path.read_bytes()
        hashlib.sha256(data).digest()
        if copies:
            Path(copies, path.name).write_bytes(data)
        return np.asarray(Pillow.open(io.BytesIO(data))).size

    return _over_files(folder, one)


def _manifest(folder: str, target: str) -> int:
    from morphad.data.manifest import write_manifest
    from morphad.data.snapshot.copying import look
    from morphad.data.source.finding import find_images

    settings = _settings(folder)
    rows, _ = look(find_images(settings), settings, LINE)
    write_manifest(rows, Path(target))
    return len(rows)


def _ingest(project: str, source: str) -> Figures:
    from morphad.steps.ingest import ingest

    figures = ingest(LineSettings(ingest=_settings(source)), LinePaths.checkout(Path(project), LINE))
    return {key: figures[key] for key in ("good", "new", "changed", "gone", "data_hash")}


def _settings(source: str) -> IngestSettings:
    kind: Any = "s3" if source.startswith("s3://") else "folder"
    return IngestSettings(source=kind, path=source, transfers=TRANSFERS)


def _validate(project: str) -> str:
    from morphad.base.errors import CheckFailedError
    from morphad.steps.validate import validate

    try:
        validate(LineSettings(ingest=_settings("synthetic")), LinePaths.checkout(Path(project), LINE))
    except CheckFailedError as error:
        return str(error)
    return "kept"


def _split(project: str) -> Figures:
    from morphad.steps.split import split

    return split(LineSettings(ingest=_settings("synthetic")), LinePaths.checkout(Path(project), LINE), 0)


def _upload(folder: str, url: str) -> list[int]:
    from morphad.data.source.uploading import upload_folder

    return list(upload_folder(Path(folder), url, "uploading"))


def _gets(url: str, folder: str) -> int:
    """What a short script would do: list, then get every object into a file."""
    import boto3
    from botocore.config import Config

    from morphad.data.source.s3 import split_url

    bucket, prefix = split_url(url)
    client = boto3.Session().client("s3", config=Config(max_pool_connections=TRANSFERS))
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    keys = [found["Key"] for page in pages for found in page["Contents"]]
    target = Path(folder)
    target.mkdir(parents=True)

    def get(key: str) -> None:
        with (target / key.rsplit("/", 1)[1]).open("wb") as out:
            shutil.copyfileobj(client.get_object(Bucket=bucket, Key=key)["Body"], out, 1 << 18)

    with ThreadPoolExecutor(TRANSFERS) as pool:
        return sum(1 for _ in pool.map(get, keys))


def _fetch_by(tool: str, url: str, folder: str) -> int:
    """By another program."""
    source = url if tool == "aws" else f":s3,env_auth,provider=Other:{url.removeprefix('s3://')}"
    endpoint = {"RCLONE_S3_ENDPOINT": os.environ["AWS_ENDPOINT_URL_S3"], "RCLONE_CONFIG": os.devnull}
    subprocess.run([*TOOLS[tool], source, folder], env=os.environ | endpoint, check=True)
    return sum(1 for _ in Path(folder).iterdir())


def _mirror(project: str, url: str) -> int:
    from morphad.data.index import open_memory
    from morphad.data.source.finding import find_images

    with open_memory(LinePaths.checkout(Path(project), LINE).memory, LINE) as memory:
        return len(find_images(_settings(url), memory))


def _put_tiny(url: str, count: str) -> int:
    from morphad.data.source.s3 import Bucket, split_url

    name, prefix = split_url(url)
    bucket = Bucket(name, connections=TRANSFERS)
    with tempfile.NamedTemporaryFile() as file, ThreadPoolExecutor(TRANSFERS) as pool:
        path = Path(file.name)
        return sum(1 for _ in pool.map(lambda n: bucket.put(path, f"{prefix}/{n:07}.png"), range(int(count))))


def _list(project: str, url: str) -> int:
    from morphad.data.index import open_memory
    from morphad.data.source.mirror import Mirror

    with open_memory(Path(project), LINE) as memory:
        return len(Mirror(_settings(url), memory).names)


STEPS: dict[str, Callable[..., Any]] = {
    "hash": _hash,
    "decode": _decode,
    "manifest": _manifest,
    "ingest": _ingest,
    "validate": _validate,
    "split": _split,
    "upload": _upload,
    "gets": _gets,
    "fetch_by": _fetch_by,
    "mirror": _mirror,
    "put_tiny": _put_tiny,
    "list": _list,
}


def _show(figures: Figures) -> None:
    count, shape = figures["images"], f"{figures['height']} x {figures['width']} px"
    size, threads = figures["megabytes"], figures["threads"]
    print(f"{count:,} images of {shape} ({figures['kind']}, {size:,.0f} MB), {threads} threads\n")
    _table(figures["steps"], count)
    print()
    for step, floor in (("manifest", "floor"), ("ingest", "floor that writes")):
        wall, processor = (figures[f"{step}_share_of_floor_{unit}"] for unit in ("seconds", "cpu_seconds"))
        print(f"{step} at {wall:.0%} of the {floor} ({processor:.0%} by processor time)")
    print(f"with nothing new {figures['rerun']:.1%} of the first run's time")
    if "s3" in figures:
        s3 = figures["s3"]
        print(f"\nThe first {s3['images']:,} from a bucket, {s3['transfers']} transfers\n")
        _table(s3["steps"], s3["images"])
        print(f"\nmirror at {s3['share_of_floor']:.0%} of plain GETs; nothing new {s3['rerun']:.1%} of the first run")


def _table(steps: Figures, count: int) -> None:
    print("| step | s | processor, s | images/s | peak memory, MB |\n|---|---|---|---|---|")
    for name, step in steps.items():
        took, busy = step["seconds"], step["cpu_seconds"]
        rate = "" if "keys" in name or "tiny" in name else f"{count / took:,.0f}"
        print(f"| {name} | {took:.1f} | {busy:.1f} | {rate} | {step['peak_mb']:.0f} |")


if __name__ == "__main__":
    main()
