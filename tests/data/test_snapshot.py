"""Ingest again: what did not change is not read again, what did is noticed, and a killed run has lost nothing."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from morphad.base.errors import BadInputError
from morphad.data.index import open_memory
from morphad.data.manifest import read_manifest
from morphad.data.snapshot import describing
from morphad.settings import IngestSettings, LineSettings
from morphad.steps.ingest import ingest as ingest_step
from morphad.steps.paths import LinePaths

LINE = "caps"


@pytest.fixture
def camera(tmp_path: Path, make_set: Callable[..., Path]) -> Path:
    """14 images, 4 of them defects with masks, written a while ago."""
    folder = make_set(tmp_path / "camera", good=8, test_good=2, defects=4, side=24)
    for path in folder.rglob("*.png"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


@pytest.fixture
def place(tmp_path: Path) -> LinePaths:
    return LinePaths.checkout(tmp_path / "project", LINE)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that were decoded, in the order of their decoding."""
    names: list[str] = []
    decode = describing.decode

    def noted(*arguments: Any, **named: Any) -> Any:
        names.append(named["name"])
        return decode(*arguments, **named)

    monkeypatch.setattr(describing, "decode", noted)
    return names


def ingest(place: LinePaths, camera: Path, **settings: Any) -> tuple[int, int, int]:
    """New, changed and gone images."""
    figures = ingest_step(LineSettings(ingest=IngestSettings(path=str(camera), **settings)), place)
    return figures["new"], figures["changed"], figures["gone"]


def draw(path: Path, seed: int = 0, age: float = 3600) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (24, 24), np.uint8)
    Image.fromarray(grey).save(path)
    os.utime(path, (time.time() - age, time.time() - age))


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def test_nothing_new_leaves_every_file_as_it_is(camera: Path, place: LinePaths, decoded: list[str]) -> None:
    assert ingest(place, camera) == (14, 0, 0)
    assert len(decoded) == 14
    before, manifest = state(place.snapshot), place.manifest.read_bytes()
    assert ingest(place, camera) == (0, 0, 0)
    assert len(decoded) == 14
    assert state(place.snapshot) == before
    assert place.manifest.read_bytes() == manifest


def test_only_what_came_or_changed_is_read_and_a_fresh_run_finds_the_same(
    camera: Path, place: LinePaths, decoded: list[str], tmp_path: Path
) -> None:
    ingest(place, camera)
    kept = (place.snapshot / "train/good/001.png").stat().st_ino
    draw(camera / "train/good/new.png")
    draw(camera / "train/good/000.png", seed=1)
    (camera / "train/good/002.png").unlink()
    (camera / "test/spot/003.png").unlink()
    (camera / "ground_truth/spot/003_mask.png").unlink()
    (camera / "train/good/003.png").rename(camera / "train/good/other.png")
    decoded.clear()
    assert ingest(place, camera) == (2, 1, 3)
    assert sorted(decoded) == ["train/good/000.png", "train/good/new.png", "train/good/other.png"]
    assert (place.snapshot / "train/good/001.png").stat().st_ino == kept
    fresh = LinePaths.checkout(tmp_path / "fresh", LINE)
    ingest(fresh, camera)
    assert place.manifest.read_bytes() == fresh.manifest.read_bytes()
    names = {path.relative_to(place.snapshot) for path in place.snapshot.rglob("*.png")}
    assert names == {path.relative_to(fresh.snapshot) for path in fresh.snapshot.rglob("*.png")}


def test_an_image_that_only_moved_its_label_or_lost_its_mask_is_noticed(camera: Path, place: LinePaths) -> None:
    ingest(place, camera)
    (camera / "ground_truth/spot/000_mask.png").unlink()
    assert ingest(place, camera) == (0, 1, 0)
    row = read_manifest(place.manifest).set_index("path").loc["test/spot/000.png"]
    assert (row["mask"], row["mask_sha256"], row["masked"]) == ("", "", 0)
    assert not (place.snapshot / "masks/test/spot/000.png").exists()


def test_a_file_that_its_camera_writes_in_place_does_not_change_the_snapshot(camera: Path, place: LinePaths) -> None:
    ingest(place, camera)
    before = (place.snapshot / "train/good/000.png").read_bytes()
    (camera / "train/good/000.png").write_bytes(b"half of a new im")
    assert (place.snapshot / "train/good/000.png").read_bytes() == before
    with pytest.raises(BadInputError, match=r"train/good/000\.png: not a JPEG"):
        ingest(place, camera)
    assert (place.snapshot / "train/good/000.png").read_bytes() == before


def test_a_file_written_a_moment_ago_is_read_again(camera: Path, place: LinePaths) -> None:
    """Within a tick of its clock it may change once more without a trace in size and time."""
    path = camera / "train/good/000.png"
    Image.new("L", (24, 24), 10).save(path)
    os.utime(path, (time.time() + 3600, time.time() + 3600))  # however slow this machine is
    ingest(place, camera)
    status = path.stat()
    other = path.read_bytes()
    Image.new("L", (24, 24), 11).save(path)
    assert path.stat().st_size == len(other)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ingest(place, camera) == (0, 1, 0)
    assert (place.snapshot / "train/good/000.png").read_bytes() == path.read_bytes()


def test_touched_files_are_read_but_not_decoded(camera: Path, place: LinePaths, decoded: list[str]) -> None:
    ingest(place, camera)
    manifest = place.manifest.read_bytes()
    for path in camera.rglob("*.png"):
        os.utime(path, (1_700_000_007, 1_700_000_007))
    decoded.clear()
    assert ingest(place, camera) == (0, 0, 0)
    assert decoded == []
    assert place.manifest.read_bytes() == manifest


def test_a_snapshot_that_was_tampered_with_is_made_good(camera: Path, place: LinePaths, decoded: list[str]) -> None:
    ingest(place, camera)
    whole = (place.snapshot / "train/good/000.png").read_bytes()
    (place.snapshot / "train/good/000.png").write_bytes(b"x" * len(whole))
    (place.snapshot / "train/good/001.png").unlink()
    (place.snapshot / "train/good/stray.png").write_bytes(b"x")
    (place.snapshot / "masks/test/spot/001.png").unlink()
    decoded.clear()
    assert ingest(place, camera) == (0, 0, 0)
    assert decoded == []
    assert (place.snapshot / "train/good/000.png").read_bytes() == whole
    for row in read_manifest(place.manifest).itertuples():
        assert (place.snapshot / str(row.path)).is_file()
        assert not row.mask or (place.snapshot / str(row.mask)).is_file()
    assert not (place.snapshot / "train/good/stray.png").exists()


@pytest.mark.parametrize("spoil", ["garbage", "foreign", "another version", "row", "gone"])
def test_a_memory_that_cannot_be_trusted_is_made_anew(
    camera: Path, place: LinePaths, spoil: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest(place, camera)
    manifest, index = place.manifest.read_bytes(), place.memory / "index.sqlite"
    if spoil == "garbage":
        index.write_bytes(os.urandom(5000))
    elif spoil == "gone":
        index.unlink()
    else:
        if spoil == "foreign":
            index.unlink()
        database = sqlite3.connect(index)
        database.execute(
            {
                "foreign": "CREATE TABLE customers (name TEXT)",
                "another version": "PRAGMA user_version = 99",
                "row": "UPDATE image SET found = replace(found, 'L', 'M') WHERE name LIKE '%000.png'",
            }[spoil]
        )
        database.commit()
        database.close()
    ingest(place, camera)
    assert place.manifest.read_bytes() == manifest
    assert ("begun anew" in capsys.readouterr().err) == (spoil in {"garbage", "foreign", "another version"})
    assert ingest(place, camera) == (0, 0, 0)


def test_other_terms_describe_anew(camera: Path, place: LinePaths, decoded: list[str]) -> None:
    ingest(place, camera)
    decoded.clear()
    ingest(place, camera, white_level=4095)
    assert len(decoded) == 14


def test_rejects_are_remembered_too(camera: Path, place: LinePaths, decoded: list[str]) -> None:
    (camera / "train/good/000.png").write_bytes(b"junk")
    os.utime(camera / "train/good/000.png", (1_700_000_000, 1_700_000_000))
    assert ingest(place, camera, max_rejects=1) == (13, 0, 0)
    decoded.clear()
    assert ingest(place, camera, max_rejects=1) == (0, 0, 0)
    assert decoded == []
    assert "not a JPEG" in place.rejects.read_text()
    with pytest.raises(BadInputError, match="1 of 14 images cannot be used, 0 may"):
        ingest(place, camera)


SLOW_INGEST = """
import sys, time
from pathlib import Path
from morphad.data.snapshot import describing
from morphad.settings import IngestSettings, LineSettings
from morphad.steps.ingest import ingest
from morphad.steps.paths import LinePaths
decode = describing.decode
def slow(*arguments, **named):
    time.sleep(0.3)
    return decode(*arguments, **named)
describing.decode = slow
place = LinePaths.checkout(Path(sys.argv[1]), "caps")
ingest(LineSettings(ingest=IngestSettings(path=sys.argv[2])), place)
"""


def test_a_killed_run_leaves_the_old_snapshot_and_what_it_learned(
    camera: Path, place: LinePaths, decoded: list[str], make_set: Callable[..., Path]
) -> None:
    ingest(place, camera)
    before, manifest = state(place.snapshot), place.manifest.read_bytes()
    for number in range(60):
        draw(camera / f"train/good/new{number}.png", seed=number)
    child = subprocess.Popen([sys.executable, "-c", SLOW_INGEST, str(place.manifest.parents[2]), str(camera)])
    temporary: list[Path] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and sum(1 for folder in temporary for _ in folder.rglob("new*.png")) < 20:
        temporary = list(place.snapshot.parent.glob(".images.*"))
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert temporary
    assert state(place.snapshot) == before
    assert place.manifest.read_bytes() == manifest
    decoded.clear()
    assert ingest(place, camera) == (60, 0, 0)
    assert len(decoded) < 60  # all but those of the last seconds
    assert not list(place.snapshot.parent.glob(".images.*"))  # what the killed run left lying about


def test_the_lock_is_free_after_a_failure(camera: Path, place: LinePaths) -> None:
    with pytest.raises(BadInputError, match="folder not found"):
        ingest(place, camera / "none")
    assert ingest(place, camera) == (14, 0, 0)
    with open_memory(place.memory, LINE) as memory, pytest.raises(BadInputError, match="is being ingested by process"):
        assert len(memory.images()) == 14
        ingest(place, camera)


def test_lots_shifts_and_cameras_from_paths_and_files_beside_images(tmp_path: Path, place: LinePaths) -> None:
    folder = tmp_path / "camera"
    for lot in ("L1", "L2"):
        (folder / lot).mkdir(parents=True)
        for number in range(3):
            draw(folder / lot / f"{number}.png", seed=number)
            (folder / lot / f"{number}.json").write_text('{"kind": "%s"}' % ("" if number else "scratch"))
    metadata = {"pattern": r"^(?P<lot>L\d)/", "sidecar": {"defect": "kind"}}
    ingest(place, folder, metadata=metadata)
    rows = read_manifest(place.manifest).set_index("path")
    assert rows["lot"].tolist() == ["L1"] * 3 + ["L2"] * 3
    assert rows.loc["L2/0.png", ["label", "defect"]].tolist() == ["defect", "scratch"]
    assert rows.loc["L2/1.png", ["label", "defect"]].tolist() == ["good", ""]
