"""The snapshot holds the bytes, the manifest describes them, and what cannot be used is named."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow
from scipy import ndimage

from morphad.base.errors import BadInputError
from morphad.base.files import sha256_file
from morphad.data.manifest import (
    SCHEMA,
    manifest_id,
    read_manifest,
    snapshot_id,
    write_manifest,
)
from morphad.data.snapshot.copying import Reject, snapshot
from morphad.data.source.finding import find_images
from morphad.data.source.image import SourceImage
from morphad.settings import IngestSettings

RNG = np.random.default_rng(0)


def put(root: Path, name: str, height: int = 20, width: int = 24) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(RNG.integers(0, 256, (height, width), np.uint8)).save(root / name, "PNG")
    return root / name


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    root = tmp_path / "camera"
    for number in range(8):
        put(root, f"train/good/{number}.png")
    put(root, "test/crack/0.jpeg")
    mask = np.zeros((20, 24), np.uint8)
    mask[5:10, 6:12] = 255
    (root / "ground_truth/crack").mkdir(parents=True)
    Pillow.fromarray(mask).save(root / "ground_truth/crack/0_mask.png")
    return root


def take(root: Path, destination: Path, max_rejects: int = 0) -> tuple[pd.DataFrame, list[Reject]]:
    settings = IngestSettings(path=str(root), max_rejects=max_rejects)
    return snapshot(find_images(settings), destination, settings, "caps")


def test_snapshot_copies_bytes_and_describes_them(camera: Path, tmp_path: Path) -> None:
    manifest, rejects = take(camera, tmp_path / "out")
    assert rejects == []
    assert list(manifest.columns) == SCHEMA.names
    assert list(manifest["path"]) == sorted(manifest["path"])
    for row in manifest.itertuples():
        original = (camera / str(row.path)).read_bytes()
        assert (tmp_path / "out" / str(row.path)).read_bytes() == original
        assert row.sha256 == hashlib.sha256(original).hexdigest()
        assert row.bytes == len(original)
    crack = manifest[manifest["label"] == "defect"].iloc[0]
    assert (crack["mask"], crack["defect"], crack["origin"]) == ("masks/test/crack/0.jpeg.png", "crack", "test/crack")
    assert crack["masked"] == pytest.approx(30 / 480)
    assert (tmp_path / "out" / crack["mask"]).is_file()
    assert crack["mask_sha256"] == sha256_file(tmp_path / "out" / crack["mask"])
    assert set(manifest["line"]) == {"caps"}


def test_statistics_are_what_they_say(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (30, 40), np.uint8)
    pixels[:3], pixels[3:9] = 0, 255
    (tmp_path / "in").mkdir()
    Pillow.fromarray(pixels).save(tmp_path / "in/a.png")
    row = take(tmp_path / "in", tmp_path / "out")[0].iloc[0]
    assert row["brightness"] == pytest.approx(pixels.mean())
    assert row["contrast"] == pytest.approx(pixels.std())
    assert row["sharpness"] == pytest.approx(ndimage.laplace(pixels.astype(float)).var(), rel=1e-6)
    assert row["dark"] == pytest.approx((pixels == 0).mean())
    assert row["saturated"] == pytest.approx((pixels == 255).mean())
    assert (row["height"], row["width"], row["mode"], row["bit_depth"]) == (30, 40, "L", 8)
    assert len(row["perceptual_hash"]) == 64


def test_manifest_survives_the_file(camera: Path, tmp_path: Path) -> None:
    manifest, _ = take(camera, tmp_path / "out")
    write_manifest(manifest, tmp_path / "manifest.parquet")
    assert read_manifest(tmp_path / "manifest.parquet").equals(manifest)
    manifest["role"] = "train"
    write_manifest(manifest, tmp_path / "split.parquet")
    assert set(read_manifest(tmp_path / "split.parquet")["role"]) == {"train"}


def test_what_is_no_manifest_is_refused(camera: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    with pytest.raises(BadInputError, match="run `morphad ingest` first"):
        read_manifest(path)
    path.write_text("no")
    with pytest.raises(BadInputError, match="not a parquet file"):
        read_manifest(path)
    manifest, _ = take(camera, tmp_path / "out")
    manifest.drop(columns="sha256").to_parquet(path)
    with pytest.raises(BadInputError, match="'sha256' is missing"):
        read_manifest(path)
    manifest.assign(height="tall").to_parquet(path)
    with pytest.raises(BadInputError, match="'height' holds"):
        read_manifest(path)
    manifest.assign(label=None).to_parquet(path)
    with pytest.raises(BadInputError, match="'label' has empty cells"):
        read_manifest(path)


def test_a_manifest_that_was_edited_is_refused(camera: Path, tmp_path: Path) -> None:
    manifest, _ = take(camera, tmp_path / "out")
    path = tmp_path / "manifest.parquet"
    write_manifest(manifest, path)
    written = path.read_bytes()
    write_manifest(read_manifest(path), path)
    assert path.read_bytes() == written
    # By pandas, which drops the hash, and by something that keeps it.
    table = pq.read_table(path)
    manifest.assign(label="good").to_parquet(path)
    with pytest.raises(BadInputError, match=r"manifest\.parquet: its rows are not those .*hash mismatch.*edited"):
        read_manifest(path)
    for column, value in (("label", "good"), ("mask", ""), ("sharpness", 1.0), ("bytes", 7)):
        cells = pa.array([value] * table.num_rows, table.schema.field(column).type)
        pq.write_table(table.set_column(table.column_names.index(column), column, cells), path)
        with pytest.raises(BadInputError, match="hash mismatch"):
            read_manifest(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(BadInputError, match="hash mismatch"):
        read_manifest(path)
    pq.write_table(table, path)
    assert read_manifest(path).equals(manifest)


def test_data_hash_follows_content_and_labels_not_order_or_names(camera: Path, tmp_path: Path) -> None:
    manifest, _ = take(camera, tmp_path / "out")
    renamed = manifest.assign(path=[f"{n}.png" for n in range(len(manifest))]).sample(frac=1, random_state=0)
    assert manifest_id(renamed) == manifest_id(manifest)
    assert manifest_id(manifest.assign(group="lot1")) != manifest_id(manifest)
    assert manifest_id(manifest.iloc[1:]) != manifest_id(manifest)


def test_snapshot_id_follows_whatever_is_given_but_not_order_or_figures(camera: Path, tmp_path: Path) -> None:
    manifest, _ = take(camera, tmp_path / "out")
    same = manifest.assign(brightness=0.0, role="train", reason="").sample(frac=1, random_state=0)
    assert snapshot_id(same) == snapshot_id(manifest)
    for changed in (
        *(manifest.assign(**{column: "x"}) for column in ("label", "mask_sha256", "group", "acquired", "verdict")),
        manifest.assign(path=[f"{n}.png" for n in range(len(manifest))]),
        manifest.iloc[1:],
    ):
        assert snapshot_id(changed) != snapshot_id(manifest)


def test_rejects_are_borne_up_to_the_limit_and_leave_nothing_behind(camera: Path, tmp_path: Path) -> None:
    (camera / "train/good/3.png").write_bytes(b"")
    whole = (camera / "train/good/5.png").read_bytes()
    (camera / "train/good/5.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInputError) as caught:
        take(camera, tmp_path / "strict", max_rejects=1)
    assert "2 of 9 images cannot be used, 1 may be left out" in str(caught.value)
    assert "train/good/3.png: is empty (0 bytes)" in str(caught.value)
    assert "train/good/5.png: damaged" in str(caught.value)
    manifest, rejects = take(camera, tmp_path / "out", max_rejects=2)
    assert [reject.name for reject in rejects] == ["train/good/3.png", "train/good/5.png"]
    assert len(manifest) == 7
    assert not (tmp_path / "out/train/good/5.png").exists()


def test_a_twentieth_of_corrupt_files_lists_the_first_ten(tmp_path: Path) -> None:
    for number in range(240):
        put(tmp_path / "in", f"{number:03}.png", 8, 8)
        if number % 20 == 0:
            (tmp_path / f"in/{number:03}.png").write_bytes(b"junk")
    with pytest.raises(BadInputError) as caught:
        take(tmp_path / "in", tmp_path / "out")
    message = str(caught.value)
    assert "12 of 240" in message
    assert "180.png: not a JPEG" in message
    assert "200.png" not in message
    assert "and 2 more" in message


def test_a_mask_that_does_not_fit_rejects_its_image(camera: Path, tmp_path: Path) -> None:
    put(camera, "ground_truth/crack/0_mask.png", 10, 24)
    with pytest.raises(
        BadInputError, match=r"test/crack/0\.jpeg: its mask 0_mask\.png is 10 x 24 px, the image 20 x 24"
    ):
        take(camera, tmp_path / "out")
    (camera / "ground_truth/crack/0_mask.png").write_bytes(b"junk")
    with pytest.raises(BadInputError, match=r"test/crack/0\.jpeg: its mask 0_mask\.png not a JPEG"):
        take(camera, tmp_path / "out")
    _, rejects = take(camera, tmp_path / "borne", max_rejects=1)
    assert [reject.name for reject in rejects] == ["test/crack/0.jpeg"]
    assert not [path for path in (tmp_path / "borne").rglob("*") if path.is_file() and "crack" in str(path)]


def test_two_images_of_one_name_are_refused(camera: Path, tmp_path: Path) -> None:
    same = [SourceImage(camera / part, "a.png", "good") for part in ("train", "test")]
    with pytest.raises(BadInputError, match=r"train/a\.png and .*test/a\.png would both be a\.png"):
        snapshot(same, tmp_path / "out", IngestSettings(path="x"), "caps")


def test_all_rejected_is_an_error_whatever_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"junk")
    with pytest.raises(BadInputError, match="1 of 1 images cannot be used"):
        take(tmp_path, tmp_path / "out", max_rejects=5)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read and write everything")
def test_permissions(camera: Path, tmp_path: Path) -> None:
    (camera / "train/good/0.png").chmod(0)
    with pytest.raises(BadInputError, match=r"train/good/0\.png: cannot be read"):
        take(camera, tmp_path / "out")


def test_a_destination_that_cannot_be_written_is_named(camera: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(BadInputError, match="cannot write"):
        take(camera, tmp_path / "out")


def test_a_manifest_without_rows_is_written_and_read(camera: Path, tmp_path: Path) -> None:
    manifest, _ = take(camera, tmp_path / "out")
    write_manifest(manifest.iloc[:0].assign(role=""), tmp_path / "none.parquet")
    assert read_manifest(tmp_path / "none.parquet").empty
