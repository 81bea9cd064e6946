"""Pixels come in order, a few at a time, and damage since ingestion is named."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageFilter

from morphad.data.images import UnreadableImageError
from morphad.data.loading import in_order, read_mask, read_masks, read_pixels
from morphad.data.pictures import Snapshot
from morphad.data.snapshot.copying import snapshot
from morphad.data.source.finding import find_images
from morphad.settings import IngestSettings

RNG = np.random.default_rng(0)


def test_in_order_keeps_the_order_and_looks_only_a_little_ahead() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun.append(item)
        time.sleep(0.001 * (item % 3))
        return item * item

    results = in_order(work, range(10_000))
    assert [next(results) for _ in range(50)] == [item * item for item in range(50)]
    results.close()  # type: ignore[attr-defined]
    assert len(begun) < 50 + 300
    assert list(in_order(work, range(20))) == [item * item for item in range(20)]
    assert list(in_order(work, [])) == []


def test_in_order_passes_errors_on() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda item: 1 // item, [1, 0, 1]))


def test_pixels_come_in_the_order_of_the_rows(tmp_path: Path) -> None:
    pictures = {f"{n}.png": RNG.integers(0, 256, (9, 7, 3) if n % 2 else (9, 7), np.uint8) for n in range(12)}
    (tmp_path / "in").mkdir()
    for name, pixels in pictures.items():
        Pillow.fromarray(pixels).save(tmp_path / "in" / name)
    settings = IngestSettings(path=str(tmp_path / "in"))
    manifest, _ = snapshot(find_images(settings), tmp_path / "out", settings, "caps")
    rows = manifest.sample(frac=1, random_state=0)
    read = list(read_pixels(rows, Snapshot(tmp_path / "out", "caps"), settings.decoding, "test"))
    assert all(np.array_equal(a, pictures[path]) for a, path in zip(read, rows["path"], strict=True))
    (tmp_path / "out/3.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"3\.png: not found in the snapshot .*`morphad ingest caps` again"):
        list(read_pixels(rows, Snapshot(tmp_path / "out", "caps"), settings.decoding, "test"))


def test_masks(tmp_path: Path) -> None:
    marked = RNG.random((6, 5)) > 0.5
    Pillow.fromarray(marked * np.uint8(1)).save(tmp_path / "grey.png")
    Pillow.fromarray(np.dstack([marked * np.uint8(9), np.zeros((6, 5, 2), np.uint8)])).save(tmp_path / "red.png")
    Pillow.fromarray(marked).save(tmp_path / "bits.png")
    for name in ("grey.png", "red.png", "bits.png"):
        assert np.array_equal(read_mask(tmp_path / name), marked)


def test_a_mask_is_cut_in_the_middle_where_its_two_levels_are_blurred(tmp_path: Path) -> None:
    marked = np.zeros((64, 64), bool)
    marked[20:41, 10:33] = True
    clean = Pillow.fromarray(marked * np.uint8(255))
    clean.save(tmp_path / "compressed.jpg", quality=75)
    clean.convert("RGB").save(tmp_path / "colour.jpg", quality=75)
    clean.filter(ImageFilter.GaussianBlur(1.5)).save(tmp_path / "soft.png")
    for name in ("compressed.jpg", "colour.jpg", "soft.png"):
        off = read_mask(tmp_path / name) != marked
        assert off.mean() < 0.002, name
        assert np.asarray(Pillow.open(tmp_path / name).convert("L"))[off].size < 10


def test_every_kind_of_a_numbered_mask_is_marked(tmp_path: Path) -> None:
    kinds = RNG.integers(0, 6, (40, 40), np.uint8)
    for factor in (1, 50):
        Pillow.fromarray(kinds * np.uint8(factor)).save(tmp_path / "kinds.png")
        assert np.array_equal(read_mask(tmp_path / "kinds.png"), kinds > 0)


def test_masks_of_rows(tmp_path: Path) -> None:
    for name in ("train/good/0.png", "test/a/0.png", "test/a/1.png", "ground_truth/a/0.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.new("L", (5, 6), 255).save(tmp_path / "in" / name)
    settings = IngestSettings(path=str(tmp_path / "in"))
    manifest, _ = snapshot(find_images(settings), tmp_path / "out", settings, "caps")
    with_mask, without, good = read_masks(manifest, Snapshot(tmp_path / "out", "caps"))
    assert with_mask is not None and with_mask.all()
    assert without is None
    assert good is not None and good.shape == (6, 5) and not good.any()
