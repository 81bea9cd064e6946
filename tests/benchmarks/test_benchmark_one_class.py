"""One-class benchmark: IDX files as they are published, and what the baselines change in an image."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import one_class
from benchmarks.one_class import read_idx, read_part
from benchmarks.readings import READINGS
from benchmarks.self_supervised import BASELINES, Budget, geometric, pasted, rotations
from morphad.base.errors import BadInputError


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_set(folder: Path, count: int = 40) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        labels = np.arange(count) % 2
        images = rng.integers(0, 80, (count, 28, 28)) + labels[:, None, None] * 150
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))


def test_idx_compressed_and_not_give_images_with_a_border(tmp_path: Path) -> None:
    write_set(tmp_path)
    images, labels = read_part(tmp_path, "train")
    assert images.shape == (40, 1, 32, 32)
    assert images[:, :, :2].max() == 0
    assert labels.tolist() == [0, 1] * 20
    assert images[1, 0, 2:-2, 2:-2].float().mean() > 150


@pytest.mark.parametrize(
    "data", [b"", b"\x00\x00\x08", b"\x00\x00\x08\x02\x00\x00\x00\x01", b"\x00\x00\x0d\x01" + b"\x00" * 8]
)
def test_what_is_no_whole_idx_file_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken"
    path.write_bytes(data)
    with pytest.raises(BadInputError, match="broken"):
        read_idx(path)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((3, 4))))[:-6])
    with pytest.raises(BadInputError, match=r"short\.gz"):
        read_idx(path)
    path.write_bytes(idx(np.zeros((3, 4)))[:-1])
    with pytest.raises(BadInputError, match="11 bytes"):
        read_idx(path)


def test_a_run_learns_and_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path)
    tiny = {
        **one_class.SETTINGS,
        "optimiser": {"steps": 2, "batch_size": 4},
        "cases": {"heights": (1, 3), "widths": (1, 3)},
    }
    monkeypatch.setattr(one_class, "SETTINGS", tiny)
    row = one_class.run(tmp_path, 0, "morphad", 0)
    assert set(row["scores"]) == set(READINGS)
    assert row["image_auroc"] > 0.9  # dark against bright


@pytest.mark.parametrize("name", sorted({*one_class.OURS} - {"morphad"}))
def test_every_variant_differs_from_morphad_and_keeps_its_sizes(name: str) -> None:
    settings, base = one_class.settings_of(name), one_class.settings_of("morphad")
    assert settings != base
    assert settings.image_size == base.image_size
    assert settings.optimiser.batch_size == base.optimiser.batch_size


def test_geometric_changes_are_all_different_and_the_first_turns_are_rotations() -> None:
    image = torch.randint(0, 255, (1, 1, 16, 16), dtype=torch.uint8)
    changed = geometric(image.expand(72, -1, -1, -1), torch.arange(72))
    assert len({row.numpy().tobytes() for row in changed}) == 72
    still = 8 + 24  # neither shifted nor mirrored
    turned = geometric(image.expand(4, -1, -1, -1), torch.arange(4) + still)
    assert torch.equal(turned, rotations(image.expand(4, -1, -1, -1), torch.arange(4)))
    assert torch.equal(turned[0], image[0])


def test_pasting_changes_a_part_of_a_copy() -> None:
    images = torch.randint(0, 255, (20, 1, 32, 32), dtype=torch.uint8)
    before = images.clone()
    share = (pasted(images, np.random.default_rng(0)) != images).float().mean((1, 2, 3))
    assert torch.equal(images, before)
    assert ((share > 0) & (share < 0.25)).all()


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_gives_finite_scores_that_the_seed_decides(name: str) -> None:
    images = torch.randint(0, 255, (12, 1, 32, 32), dtype=torch.uint8)
    first, again = (BASELINES[name](images, Budget(2, 4), 1)(images[:3]) for _ in range(2))
    assert first.shape == (3,)
    assert torch.isfinite(first).all()
    assert torch.equal(first, again)
