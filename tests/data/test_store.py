"""A line on a cluster: each picture once on the state's volume, for all runs, and no longer than it is needed."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphad.base.files import sha256_file
from morphad.data.images import UnreadableImageError
from morphad.data.loading import read_masks, read_pixels
from morphad.data.manifest import manifest_id, read_manifest
from morphad.data.pictures import Snapshot, Store
from morphad.data.snapshot.sweeping import days_ago, sweep
from morphad.settings import IngestSettings, LineSettings
from morphad.settings.explaining import SettingsError
from morphad.settings.reading import resolve
from morphad.steps.ingest import ingest as ingest_step
from morphad.steps.paths import LinePaths

LINE = "caps"
MASKED = 4


@pytest.fixture
def camera(tmp_path: Path, make_set: Callable[..., Path]) -> Path:
    """14 images, 4 of them defects with masks, written a while ago."""
    folder = make_set(tmp_path / "camera", good=8, test_good=2, defects=MASKED, side=24)
    for path in folder.rglob("*.png"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


def ingest(root: Path, camera: Path, run: str, **settings: Any) -> tuple[LinePaths, dict[str, Any]]:
    """The files of a run in pods, and what `ingest` says."""
    data = root / run / "data"
    paths = LinePaths.pod(LINE, str(root / "state"), data=str(data))
    return paths, ingest_step(LineSettings(ingest=IngestSettings(path=str(camera), **settings)), paths)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Names of a folder's files, with what changes when one is written."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def test_each_picture_is_stored_once_and_no_artifact_holds_one(tmp_path: Path, camera: Path) -> None:
    (camera / "train/good/again.png").write_bytes((camera / "train/good/000.png").read_bytes())
    paths, figures = ingest(tmp_path, camera, "one")
    rows = read_manifest(paths.manifest)
    hashes = {*rows["sha256"], *rows["mask_sha256"]} - {""}
    assert figures["new"] == len(rows) == 15
    assert files(paths.store).keys() == hashes
    assert {sha256_file(path) for path in paths.store.glob("*/*")} == hashes
    before = files(paths.store)
    again, _ = ingest(tmp_path, camera, "two")
    assert files(again.store) == before
    assert {path.name for path in (tmp_path / "one").rglob("*") if path.is_file()} == {
        "manifest.parquet", "rejects.json", "feedback.json"
    }  # fmt: skip


def test_a_second_run_with_one_new_picture_adds_that_one(
    tmp_path: Path, camera: Path, make_set: Callable[..., Path]
) -> None:
    first, _ = ingest(tmp_path, camera, "one")
    before = files(first.store)
    _, nothing = ingest(tmp_path, camera, "two")
    assert (nothing["new"], nothing["changed"], nothing["gone"]) == (0, 0, 0)
    assert files(first.store) == before
    more = make_set(tmp_path / "more", good=1, test_good=0, defects=0, seed=1, side=24)
    (more / "train/good/000.png").rename(camera / "train/good/new.png")
    (camera / "train/good/001.png").unlink()
    _, figures = ingest(tmp_path, camera, "three")
    assert (figures["new"], figures["changed"], figures["gone"]) == (1, 0, 1)
    assert len(files(first.store).keys() - before.keys()) == 1
    assert before.items() <= files(first.store).items()  # an earlier run still finds its pictures


def test_steps_get_the_same_pixels_as_from_a_snapshot(tmp_path: Path, camera: Path) -> None:
    settings = IngestSettings(path=str(camera))
    here = LinePaths.checkout(tmp_path / "project", LINE)
    ingest_step(LineSettings(ingest=settings), here)
    assert isinstance(here.pictures, Snapshot)
    rows = read_manifest(here.manifest)
    expected = list(read_pixels(rows, here.pictures, settings.decoding, "test"))
    for run in ({}, {"in_place": True}):
        paths, _ = ingest(tmp_path / str(len(run)), camera, "one", **run)
        assert paths.manifest.read_bytes() == here.manifest.read_bytes()
        read = read_pixels(rows, paths.pictures, settings.decoding, "test")
        assert all(np.array_equal(one, other) for one, other in zip(read, expected, strict=True))
        marks = [mask for mask in read_masks(rows, paths.pictures) if mask is not None and mask.any()]
        assert len(marks) == MASKED


def test_a_damaged_picture_is_named_and_comes_back_once_it_is_removed(tmp_path: Path, camera: Path) -> None:
    paths, _ = ingest(tmp_path, camera, "one")
    rows = read_manifest(paths.manifest)
    file = paths.pictures.image(rows["path"][0], rows["sha256"][0])
    file.chmod(0o644)
    file.write_bytes(b"x" * file.stat().st_size)
    decoding = IngestSettings(path=str(camera)).decoding
    with pytest.raises(UnreadableImageError, match=rf"{rows['path'][0]}: {file} does not hold .* remove it"):
        list(read_pixels(rows, paths.pictures, decoding, "test"))
    file.unlink()
    with pytest.raises(UnreadableImageError, match=r"No such file .* start a new run"):
        list(read_pixels(rows, paths.pictures, decoding, "test"))
    again, _ = ingest(tmp_path, camera, "two")
    assert len(list(read_pixels(rows, again.pictures, decoding, "test"))) == len(rows)


def test_a_folder_can_be_used_in_place_and_must_not_change(tmp_path: Path, camera: Path) -> None:
    paths, figures = ingest(tmp_path, camera, "one", in_place=True)
    assert figures["new"] == 14
    assert len(files(paths.store)) == MASKED  # masks alone
    _, again = ingest(tmp_path, camera, "two", in_place=True)
    assert (again["new"], again["changed"]) == (0, 0)
    rows = read_manifest(paths.manifest)
    changed = camera / "train/good/003.png"
    changed.write_bytes((camera / "train/good/004.png").read_bytes())
    decoding = IngestSettings(path=str(camera)).decoding
    with pytest.raises(UnreadableImageError, match=r"train/good/003\.png: .*not hold the bytes .*in_place.* new run"):
        list(read_pixels(rows, paths.pictures, decoding, "test"))
    _, figures = ingest(tmp_path, camera, "three", in_place=True)
    assert figures["changed"] == 1
    # And from one way to the other.
    copied, figures = ingest(tmp_path, camera, "four")
    assert (figures["new"], figures["changed"], figures["gone"]) == (0, 0, 0)
    assert len(list(read_pixels(read_manifest(copied.manifest), copied.pictures, decoding, "test"))) == 14


def test_in_place_is_refused_where_there_is_no_place() -> None:
    with pytest.raises(SettingsError, match=r"`in_place` is for the sources folder and listing, not s3"):
        resolve({"lines": {LINE: {"ingest": {"source": "s3", "path": "s3://camera/caps", "in_place": True}}}})


def test_what_a_killed_run_left_is_removed_by_the_next_that_writes(tmp_path: Path, camera: Path) -> None:
    paths = LinePaths.pod(LINE, str(tmp_path / "state"))
    left = paths.store / "ab" / ".half-written"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    ingest(tmp_path, camera, "one")
    assert not left.exists()


def test_a_bucket_s_pictures_have_one_copy_on_the_volume(tmp_path: Path, camera: Path, s3: Any, s3_bucket: str) -> None:
    client = s3.client()
    for path in camera.rglob("*.png"):
        client.upload_file(str(path), s3_bucket, path.relative_to(camera).as_posix())
    paths = LinePaths.pod(LINE, str(tmp_path / "state"), data=str(tmp_path / "one"))
    ingest_step(LineSettings(ingest=IngestSettings(source="s3", path=f"s3://{s3_bucket}/")), paths)
    rows = read_manifest(paths.manifest)
    mirrored = {path.stat().st_ino for path in (paths.memory / "mirror").rglob("*") if path.is_file()}
    assert {(paths.store / Store.name(sha)).stat().st_ino for sha in rows["sha256"]} <= mirrored
    for key in client.list_objects_v2(Bucket=s3_bucket)["Contents"]:
        client.delete_object(Bucket=s3_bucket, Key=key["Key"])


def test_old_pictures_go_and_those_that_somebody_needs_stay(
    tmp_path: Path, camera: Path, make_set: Callable[..., Path]
) -> None:
    """Three runs on three sets: the first made the champion, the second nothing, the third is of today."""
    shown = []
    for number in range(3):
        other = make_set(tmp_path / f"camera{number}", good=8, test_good=2, defects=2, seed=number + 5, side=24)
        paths, _ = ingest(tmp_path, other, f"run{number}")
        shown.append(read_manifest(paths.manifest))
    now = time.time()
    for manifest in paths.used.iterdir():
        if not manifest.name.startswith(manifest_id(shown[2])):
            os.utime(manifest, (days_ago(40, now), days_ago(40, now)))
    frozen = str(shown[1]["sha256"][0])
    swept = sweep(Store(paths.store), paths.used, {manifest_id(shown[0])}, {frozen}, days_ago(30, now))
    there = files(paths.store).keys()
    for rows in (shown[0], shown[2]):
        assert {*rows["sha256"], *rows["mask_sha256"]} - {""} <= there
    assert {*shown[1]["sha256"], *shown[1]["mask_sha256"]} & there == {frozen}
    assert swept.removed == len(shown[1]) + 2 - 1
    assert swept.left == len(there)
    assert len(list(paths.used.iterdir())) == 2
    # What was swept comes back when a run needs it again.
    again, _ = ingest(tmp_path, tmp_path / "camera1", "later")
    decoding = IngestSettings(path=str(camera)).decoding
    assert len(list(read_pixels(shown[1], again.pictures, decoding, "test"))) == len(shown[1])
