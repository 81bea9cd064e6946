"""What it costs to keep many small images in DVC: one object an image, cloud-versioned, and morphad's shards.

    python -m benchmarks.data_versions 10000 100000 --out FILE.json

For each way and remote (a local folder; SeaweedFS on loopback): the first version, the state asked for, the version
brought back elsewhere, then 100 images more. Seconds are wall-clock; CPU seconds and peak memory are those of the
commands, without the server.
"""

import argparse
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
from PIL import Image

from morphad.base.files import sha256_file
from morphad.data.manifest import SCHEMA, write_manifest
from stack.object_store import ObjectStore

INCREMENT = 100
_WAYS = ("files", "cloud-versioned", "shards")
_REMOTES = ("folder", "s3")


@dataclass
class Row:
    """One command of one way."""

    way: str
    remote: str
    images: int
    what: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    sent_mb: float | None = None
    objects: int | None = None


class Remote:
    """Where the bytes go: a folder or a bucket, empty at first."""

    def __init__(self, kind: str, folder: Path, store: ObjectStore | None, versioned: bool) -> None:
        self.url = str(folder)
        self._bucket = ""
        if kind == "s3" and store is not None:
            self._bucket = f"bench-{time.time_ns()}"
            self.url = f"s3://{self._bucket}/remote"
            store.create_bucket(self._bucket)
            self._client = boto3.client("s3")
            if versioned:
                self._client.put_bucket_versioning(Bucket=self._bucket, VersioningConfiguration={"Status": "Enabled"})
        else:
            folder.mkdir()

    def content(self) -> tuple[int, int]:
        """Objects and bytes."""
        if self._bucket:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket)
            sizes = [entry["Size"] for page in pages for entry in page.get("Contents", [])]
        else:
            sizes = [path.stat().st_size for path in Path(self.url).rglob("*") if path.is_file()]
        return len(sizes), sum(sizes)


class Bench:
    """Runs commands for one way and remote, and keeps what they cost."""

    def __init__(self, way: str, kind: str, images: int, remote: Remote) -> None:
        self.rows: list[Row] = []
        self.remote = remote
        self._labels = (way, kind, images)

    def run(self, what: str, command: Sequence[str], cwd: Path, sends: bool = False) -> None:
        """Run one command, which must succeed."""
        before = self.remote.content() if sends else (0, 0)
        start = time.perf_counter()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen([sys.executable, "-m", *command], cwd=cwd, stdout=output, stderr=output)
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                output.seek(0)
                raise SystemExit(f"{' '.join(command)} failed:\n{output.read().decode()[-2000:]}")
        row = Row(
            *self._labels, what, time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        )
        if sends:
            objects, size = self.remote.content()
            row.sent_mb, row.objects = (size - before[1]) / 1e6, objects - before[0]
        self.rows.append(row)
        print(_shown(row), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=int, nargs="+")
    parser.add_argument("--ways", nargs="+", choices=_WAYS, default=_WAYS)
    parser.add_argument("--remotes", nargs="+", choices=_REMOTES, default=_REMOTES)
    parser.add_argument("--side", type=int, default=64, help="of the images, px; 64 makes about 3 kB")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["DVC_NO_ANALYTICS"] = "1"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="morphad-bench-") as scratch, _server(Path(scratch), options.remotes) as s3:
        for images in options.images:
            folder = Path(scratch) / str(images)
            draw(folder / "images", 0, images, options.side)
            draw(folder / "more", images, INCREMENT, options.side)
            for way in options.ways:
                for kind in options.remotes:
                    if way == "cloud-versioned" and kind == "folder":
                        continue
                    place = folder / f"{way}-{kind}"
                    place.mkdir()
                    remote = Remote(kind, place / "remote", s3, way == "cloud-versioned")
                    bench = Bench(way, kind, images, remote)
                    (_shards if way == "shards" else _files)(bench, folder, place, way == "cloud-versioned")
                    rows += bench.rows
                    shutil.rmtree(place)
            shutil.rmtree(folder)
    if options.out:
        machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        options.out.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def draw(folder: Path, first: int, count: int, side: int) -> None:
    """Images of noise, JPEG, a thousand a folder."""
    rng = np.random.default_rng(first)
    for number in range(first, first + count):
        target = folder / f"{number // 1000:04}" / f"{number:07}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(buffer, "JPEG", quality=85)
        target.write_bytes(buffer.getvalue())


def _files(bench: Bench, source: Path, place: Path, versioned: bool) -> None:
    """One object an image, as `dvc add FOLDER` does."""
    project, other = place / "project", place / "other"
    project.mkdir()
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        [sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "storage", bench.remote.url],
        *([[sys.executable, "-m", "dvc", "remote", "modify", "storage", "version_aware", "true"]] if versioned else []),
    ):
        subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(source / "images", project / "images")
    bench.run("add", ["dvc", "add", "-q", "images"], project)
    bench.run("push", ["dvc", "push", "-q"], project, sends=True)
    bench.run("status", ["dvc", "status", "-q"], project)
    if not versioned:
        bench.run("status of the remote", ["dvc", "status", "-q", "-c"], project)
    shutil.copytree(project, other, ignore=shutil.ignore_patterns("images", "cache", "tmp"))
    bench.run("pull", ["dvc", "pull", "-q"], other)
    shutil.rmtree(other)
    shutil.copytree(source / "more", project / "images", dirs_exist_ok=True)
    bench.run(f"add, {INCREMENT} more", ["dvc", "add", "-q", "images"], project)
    bench.run(f"push, {INCREMENT} more", ["dvc", "push", "-q"], project, sends=True)


def _shards(bench: Bench, source: Path, place: Path, _versioned: bool) -> None:
    """What `morphad data` does."""
    registry = place / "registry.git"
    subprocess.run(["git", "init", "-q", "--bare", str(registry)], check=True)
    data = place / "data" / "line"
    shutil.copytree(source / "images", data / "images")
    (place / "params.yaml").write_text(
        f"data: {{registry: {registry}, remote: '{bench.remote.url}'}}\n"
        "lines: {line: {ingest: {source: folder, path: camera}}}\n"
    )
    _describe(data)
    bench.run("version", ["morphad.cli", "data", "version", "line"], place, sends=True)
    bench.run("version again", ["morphad.cli", "data", "version", "line"], place)
    bench.run("get", ["morphad.cli", "data", "get", "line@latest", "--out", "back"], place)
    shutil.rmtree(place / "back")
    shutil.copytree(source / "more", data / "images", dirs_exist_ok=True)
    _describe(data)
    bench.run(f"version, {INCREMENT} more", ["morphad.cli", "data", "version", "line"], place, sends=True)
    bench.run("diff", ["morphad.cli", "data", "diff", "line", "line@latest"], place)


def _describe(data: Path) -> None:
    """A manifest with true hashes and made-up statistics: `morphad ingest` is measured elsewhere."""
    files = sorted(path for path in (data / "images").rglob("*") if path.is_file())
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {}
    for field in SCHEMA:
        text = str(field.type) == "string"
        columns[field.name] = "" if text else rng.integers(1, 99, len(files)) if "int" in str(field.type) else None
        if str(field.type) == "double":
            columns[field.name] = rng.random(len(files))
    columns |= {
        "path": [path.relative_to(data / "images").as_posix() for path in files],
        "sha256": [sha256_file(path) for path in files],
        "bytes": [path.stat().st_size for path in files],
        "perceptual_hash": [rng.bytes(32).hex() for _ in files],
        "line": "line",
        "label": "good",
    }
    write_manifest(pd.DataFrame(columns, index=range(len(files))), data / "manifest.parquet")


@contextmanager
def _server(scratch: Path, kinds: Sequence[str]) -> Iterator[ObjectStore | None]:
    if "s3" not in kinds:
        yield None
        return
    with ObjectStore(scratch / "s3") as store:
        os.environ.update(store.environment)
        yield store


def _shown(row: Row) -> str:
    sent = "" if row.sent_mb is None else f"  {row.sent_mb:9.1f} MB in {row.objects} objects"
    return (
        f"{row.way:<16} {row.remote:<7} {row.images:>7} {row.what:<22} {row.seconds:8.1f} s"
        f"  cpu {row.cpu_seconds:7.1f} s  {row.peak_mb:6.0f} MB{sent}"
    )


if __name__ == "__main__":
    main()
