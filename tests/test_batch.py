"""Batch prediction: any number of images, in shards or not, into one table; what cannot be read is a row."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import hypothesis
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from morphad.base.errors import BadInputError, CheckFailedError, ServiceError
from morphad.data.source.worklist import count_shard, open_shard, write_batch
from morphad.inspection import DetectorModel
from morphad.jobs import batch
from morphad.jobs.predict import find_to_predict
from morphad.jobs.predict import predict as predict_files
from morphad.model.detector import Detector
from morphad.settings import IngestSettings, LineSettings
from morphad.settings.reading import resolve

INGEST = IngestSettings(path="x")


@pytest.fixture(scope="module")
def settings() -> LineSettings:
    return resolve({"lines": {"weave": {"ingest": {"path": "x"}}}}).line("weave")


@pytest.fixture
def folder(tmp_path: Path, make_set: Callable[..., Path]) -> Path:
    """47 images at several depths, and three files that are none."""
    root = make_set(tmp_path / "incoming", good=30, test_good=10, defects=6) / "test"
    (root.parent / "ground_truth").rename(tmp_path / "masks")
    (root / "good" / "empty.png").write_bytes(b"")
    (root / "good" / "torn.png").write_bytes((root / "good" / "000.png").read_bytes()[:90])
    (root / "spot" / "note.jpg").write_text("not an image")
    (root / "spot" / "colour.png").unlink(missing_ok=True)
    Image.fromarray(np.full((50, 70, 3), 120, np.uint8)).save(root / "spot" / "colour.png")
    return root.parent


def predict(settings: LineSettings, detector: Path, source: Path | str, out: Path, **options: Any) -> pd.DataFrame:
    batch.predict("weave", settings, str(source), out=out, detector=detector, **options)
    assert sorted(path.name for path in out.parent.iterdir() if path.name.startswith(".")) == []
    return pd.read_parquet(out) if out.suffix == ".parquet" else pd.read_csv(out, float_precision="round_trip")


def test_every_image_has_its_row_in_order_as_predict_sees_it(
    settings: LineSettings, tiny_detector: Path, folder: Path, tmp_path: Path
) -> None:
    table = predict(settings, tiny_detector, folder, tmp_path / "table.parquet")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert table["path"].tolist() == [path.relative_to(folder).as_posix() for path in files]
    assert table["sha256"].tolist() == [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    unreadable = table[table["error"] != ""].set_index("path")
    assert unreadable["error"].to_dict() == {
        "test/good/empty.png": "is empty (0 bytes)",
        "test/good/torn.png": unreadable.loc["test/good/torn.png", "error"],
        "test/spot/note.jpg": "not a JPEG, PNG, BMP, TIFF or WebP image",
    }
    assert "damaged" in unreadable.loc["test/good/torn.png", "error"]
    assert unreadable[["score", "p_value", "rejected"]].isna().all(axis=None)
    read = table[table["error"] == ""]
    model = DetectorModel(Detector.load(tiny_detector))
    seen = dict(predict_files(model, find_to_predict([folder / path for path in read["path"]]), INGEST))
    for row in read.itertuples():
        answer = seen[folder / str(row.path)]
        assert row.score == pytest.approx(answer.score, rel=1e-5)
        assert (row.rejected, row.p_value) == (answer.rejected, answer.p_value)
    calibration = Detector.load(tiny_detector).calibration_
    assert calibration is not None
    assert set(table["threshold"]) == {calibration.threshold}
    assert table["model"].str.fullmatch("detector [0-9a-f]{12}").all()


def test_shards_are_repeated_to_the_byte_and_joined_as_if_there_were_none(
    settings: LineSettings, tiny_detector: Path, folder: Path, tmp_path: Path
) -> None:
    whole = predict(settings, tiny_detector, folder, tmp_path / "whole.parquet")
    model, listed = tmp_path / "model", tmp_path / "batch.parquet"
    planned = batch.plan("weave", settings, str(folder), model=model, batch=listed, detector=tiny_detector)
    assert planned["images"] == len(whole)
    tables = []
    for shard in range(5):
        tables.append(tmp_path / f"{shard}.parquet")
        figures = batch.predict_shard(shard, 5, model=model, batch=listed, table=tables[-1])
        assert figures["images"] == len(pd.read_parquet(tables[-1])) > 0
        again = tmp_path / "again.parquet"
        batch.predict_shard(shard, 5, model=model, batch=listed, table=again)
        assert again.read_bytes() == tables[-1].read_bytes()
    figures = batch.merge(tables[::-1], tmp_path / "joined.parquet")
    joined = pd.read_parquet(tmp_path / "joined.parquet")
    # An image's score rounds differently in the company of others: it is the same up to float32.
    pd.testing.assert_frame_equal(joined, whole, rtol=1e-5, atol=1e-5)
    assert figures == {"images": 50, "unreadable": 3, "undecided": 0} | {
        kind: int((joined["rejected"] == verdict).sum()) for kind, verdict in (("rejected", True), ("accepted", False))
    }
    for wrong, told in ((tables[:4], "0, 1, 2, 3 of 0 to 4"), ([*tables, tables[2]], "2, 2"), ([], "none is given")):
        with pytest.raises(BadInputError, match=told):
            batch.merge(wrong, tmp_path / "wrong.parquet")
    batch.plan("weave", settings, str(folder / "test"), model=model, batch=listed, detector=tiny_detector)
    batch.predict_shard(4, 5, model=model, batch=listed, table=tables[4])
    with pytest.raises(BadInputError, match="several batches"):
        batch.merge(tables, tmp_path / "wrong.parquet")
    assert not (tmp_path / "wrong.parquet").exists()


def test_a_table_as_csv_says_the_same(
    settings: LineSettings, tiny_detector: Path, folder: Path, tmp_path: Path
) -> None:
    one = predict(settings, tiny_detector, folder, tmp_path / "table.parquet", shards=3)
    other = predict(settings, tiny_detector, folder, tmp_path / "table.csv", shards=3)
    one, other = (table.astype(object).where(table.notna(), "") for table in (one, other))
    pd.testing.assert_frame_equal(one, other, check_dtype=False)


def test_names_that_look_like_formulas_are_harmless_in_a_table_and_found_again(
    settings: LineSettings, tiny_detector: Path, folder: Path, tmp_path: Path
) -> None:
    names = ["+1.png", "-2.png", "=cmd.png", "@x.png", "plain.png"]
    there = tmp_path / "in"
    there.mkdir()
    for name in names:
        shutil.copy(folder / "train" / "good" / "000.png", there / name)
    predict(settings, tiny_detector, there, there / "table.csv")
    lines = (there / "table.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["'+1.png", "'-2.png", "'=cmd.png", "'@x.png", "plain.png"]
    again = predict(settings, tiny_detector, there / "table.csv", tmp_path / "again.parquet")
    assert again["path"].tolist() == names
    assert again["error"].tolist() == [""] * 5


def test_images_may_come_from_a_table_of_paths_such_as_a_manifest(
    settings: LineSettings, tiny_detector: Path, folder: Path, tmp_path: Path
) -> None:
    paths = [
        "good/000.png",
        str(folder / "train" / "good" / "001.png"),
        "good/gone, or never there.png",
        "good/000.png",
    ]
    pd.DataFrame({"group": [1, 2, "x", None], "path": paths}).to_csv(folder / "test" / "list.csv", index=False)
    table = predict(settings, tiny_detector, folder / "test" / "list.csv", tmp_path / "table.parquet")
    assert table["path"].tolist() == paths
    assert table["error"].tolist() == ["", "", "not found", ""]
    assert table["score"].iloc[0] == pytest.approx(table["score"].iloc[3], rel=1e-5)
    pd.DataFrame({"path": paths[:1], "line": ["a"]}).to_parquet(tmp_path / "manifest.parquet")
    table = predict(
        settings, tiny_detector, tmp_path / "manifest.parquet", tmp_path / "table.parquet", root=str(folder / "test")
    )
    assert table["error"].tolist() == [""]


def test_images_in_a_bucket_are_read_one_by_one(
    settings: LineSettings,
    tiny_detector: Path,
    folder: Path,
    tmp_path: Path,
    s3_bucket: str,
) -> None:
    client, files = boto3.client("s3"), sorted((folder / "test" / "spot").iterdir())
    for file in files:
        client.put_object(Bucket=s3_bucket, Key=f"in/lot 7/{file.name}", Body=file.read_bytes())
    client.put_object(Bucket=s3_bucket, Key="in/lot 7/notes.txt", Body=b"x")
    client.put_object(Bucket=s3_bucket, Key="inbox/other.png", Body=b"x")
    there = predict(settings, tiny_detector, f"s3://{s3_bucket}/in", tmp_path / "there.parquet", shards=2)
    here = predict(settings, tiny_detector, folder / "test" / "spot", tmp_path / "here.parquet")
    assert there["path"].tolist() == [f"lot 7/{path}" for path in here["path"]]
    pd.testing.assert_frame_equal(there.drop(columns="path"), here.drop(columns="path"), rtol=1e-5)
    # A table of keys, one of which is gone.
    pd.DataFrame({"path": [files[0].name, "gone.png"]}).to_csv(tmp_path / "keys.csv", index=False)
    table = predict(
        settings, tiny_detector, tmp_path / "keys.csv", tmp_path / "t.parquet", root=f"s3://{s3_bucket}/in/lot 7"
    )
    assert table["error"].iloc[0] == ""
    assert "gone.png: not found" in table["error"].iloc[1]
    # A server that does not answer is no image that cannot be read.
    ingest = settings.ingest.model_copy(update={"patience_seconds": 0})
    hasty = settings.model_copy(update={"ingest": ingest})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:9"):
        patch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        predict(hasty, tiny_detector, tmp_path / "keys.csv", tmp_path / "u.parquet", root=f"s3://{s3_bucket}/in")
    assert not (tmp_path / "u.parquet").exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("list.csv", b"file,label\na.png,good\n", "no column `path`; its columns are file, label"),
        ("list.csv", b"Path,label\na.png,good\n", "no column `path`; rename the column 'Path' to path"),
        ("list.csv", b"path;label\na.png;good\n", "no column `path`: its cells are separated by semicolons"),
        ("list.csv", b"path,label\n,good\n", "image 1 has no path"),
        ("list.csv", b"path\n", "no images found"),
        ("list.csv", b"", "not a readable table"),
        ("list.csv", b"path\n\xff\xfe\n", "not a readable table"),
        ("list.parquet", b"PAR1", "not a readable table"),
        ("list.txt", b"a.png", "is a .csv or .parquet file"),
        (None, b"", "not found"),
    ],
)
def test_a_batch_that_is_none_is_told(tmp_path: Path, name: str | None, content: bytes, told: str) -> None:
    source = tmp_path / (name or "nowhere")
    if name:
        source.write_bytes(content)
    with pytest.raises(BadInputError, match=told) as refused:
        write_batch(str(source), "", INGEST, tmp_path / "batch.parquet")
    assert str(source) in str(refused.value)
    assert not (tmp_path / "batch.parquet").exists()


def test_names_that_no_table_can_hold_are_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "caf\udce9.png").write_bytes(b"x")
    with pytest.raises(BadInputError, match=r"caf\\udce9\.png.* rename it"):
        write_batch(str(tmp_path / "in"), "", INGEST, tmp_path / "batch.parquet")


def test_a_batch_without_a_readable_image_fails_and_says_why_of_each(
    settings: LineSettings, tiny_detector: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    with pytest.raises(CheckFailedError, match=r"not one of 1 images .*table\.csv says why"):
        predict(settings, tiny_detector, tmp_path / "in", tmp_path / "table.csv")
    assert pd.read_csv(tmp_path / "table.csv")["error"].tolist() == ["is empty (0 bytes)"]


def test_without_threshold_nothing_is_decided(
    settings: LineSettings, tiny_detector: Path, folder: Path, tmp_path: Path
) -> None:
    detector = Detector.load(tiny_detector)
    detector.calibration_ = detector.heatmap_scale_ = None
    detector.save(tmp_path / "detector")
    figures = batch.predict(
        "weave", settings, str(folder), out=tmp_path / "table.parquet", detector=tmp_path / "detector"
    )
    assert (figures["undecided"], figures["unreadable"]) == (47, 3)
    assert "47 undecided" in batch.told(figures)
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert table[["rejected", "threshold", "p_value"]].isna().all(axis=None)
    assert table["score"].notna().sum() == 47


@pytest.mark.parametrize("out", ["table.xlsx", "no-suffix"])
def test_another_kind_of_table_is_refused_before_work(settings: LineSettings, tmp_path: Path, out: str) -> None:
    with pytest.raises(BadInputError, match=r"ends in \.parquet or \.csv"):
        batch.predict("weave", settings, "nowhere", out=tmp_path / out)
    with pytest.raises(BadInputError, match="0 shards"):
        batch.predict("weave", settings, "nowhere", out=tmp_path / "table.csv", shards=0)
    assert list(tmp_path.iterdir()) == []


@hypothesis.settings(deadline=None, max_examples=30)
@given(st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1), st.integers(1, 9))
def test_each_image_is_in_one_shard_that_follows_from_its_path(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], shards: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")

    def shard_of(listed: list[str]) -> dict[str, int]:
        pd.DataFrame({"path": listed}).to_parquet(folder / "list.parquet")
        write_batch(str(folder / "list.parquet"), "", INGEST, folder / "batch.parquet")
        found = [
            (image.path, shard)
            for shard in range(shards)
            for image in open_shard(folder / "batch.parquet", shard, shards, INGEST)
        ]
        assert sorted(path for path, _ in found) == sorted(listed)
        assert sum(count_shard(folder / "batch.parquet", shard, shards) for shard in range(shards)) == len(listed)
        return dict(found)

    whole, part = shard_of(sorted(names)), shard_of(sorted(names, reverse=True)[:3])
    assert all(whole[name] == shard for name, shard in part.items())


SCRIPT = """
import sys, time
from pathlib import Path
from morphad.jobs import batch
from morphad.settings.reading import resolve
from morphad.inspection import DetectorModel
from morphad.model.detector import Detector
slow = Detector.score_samples
def scoring(self, images):
    time.sleep(0.1)
    return slow(self, images)
Detector.score_samples = scoring
settings = resolve({"lines": {"weave": {"ingest": {"path": "x"}}}}).line("weave")
batch.predict("weave", settings, sys.argv[1], out=Path(sys.argv[2]), shards=8, detector=Path(sys.argv[3]))
"""


@pytest.mark.slow
def test_a_batch_that_was_killed_goes_on_behind_its_last_whole_shard(
    settings: LineSettings, tiny_detector: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good/empty.png", "good/torn.png", "spot/note.jpg"):
        (folder / "test" / name).unlink()
    whole = predict(settings, tiny_detector, folder, tmp_path / "whole.parquet", shards=8)
    out = tmp_path / "table.parquet"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(out), str(tiny_detector)])
    parts = tmp_path / ".table.parquet.parts"
    deadline = time.monotonic() + 60
    while len(list(parts.glob("shard-*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    done = {path.name for path in parts.glob("shard-*.parquet")}
    assert 3 <= len(done) < 8
    assert not out.exists()
    changed = folder / "train" / "good" / "000.png"
    again: list[int] = []
    shard_by_shard = batch.predict_shard
    monkeypatch.setattr(
        batch, "predict_shard", lambda shard, *a, **n: again.append(shard) or shard_by_shard(shard, *a, **n)
    )
    pd.testing.assert_frame_equal(predict(settings, tiny_detector, folder, out, shards=8), whole)
    assert [f"shard-8-{shard}.parquet" for shard in again] == sorted(
        {f"shard-8-{shard}.parquet" for shard in range(8)} - done
    )
    # A batch that is another one by one image's bytes begins anew.
    again.clear()
    os.utime(changed, ns=(1, 1))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(batch, "_merged", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        batch.predict("weave", settings, str(folder), out=out, shards=2, detector=tiny_detector)
    os.utime(changed, ns=(2, 2))
    predict(settings, tiny_detector, folder, out, shards=2)
    assert again == [0, 1, 0, 1]


def test_memory_does_not_grow_with_the_batch(tiny_detector: Path, settings: LineSettings, tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 32), 100, np.uint8)).save(tmp_path / "a.png")
    pd.DataFrame({"path": ["a.png"] * 3000}).to_parquet(tmp_path / "list.parquet")
    model, listed, table = tmp_path / "model", tmp_path / "batch.parquet", tmp_path / "table.parquet"
    batch.plan("weave", settings, str(tmp_path / "list.parquet"), model=model, batch=listed, detector=tiny_detector)
    most = 0
    opened, written = batch.open_shard, batch._written
    ahead = 0

    def opening(*arguments: Any) -> Any:
        nonlocal most, ahead
        for image in opened(*arguments):
            ahead += 1
            most = max(most, ahead)
            yield image

    def writing(rows: Any, write: Any) -> Any:
        def each() -> Any:
            nonlocal ahead
            for row in rows:
                ahead -= 1
                yield row

        return written(each(), write)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "open_shard", opening)
        patch.setattr(batch, "_written", writing)
        batch.predict_shard(0, 1, model=model, batch=listed, table=table)
    assert most <= 64
    assert pq.ParquetFile(table).num_row_groups == 3
