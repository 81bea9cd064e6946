from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import textures
from benchmarks.textures import KINDS, SIDE, write_set
from morphad.jobs.benchmark import read_set


def test_train_and_test_come_from_different_parts_and_defects_have_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRAIN", "GOOD", "DEFECTS"):
        monkeypatch.setattr(textures, name, 3)
    texture = np.full((200, 512), 50, np.uint8)
    texture[:, 320:] = 200
    write_set(texture, tmp_path / "set", 0)
    training, test = read_set(tmp_path / "set")
    assert (len(training), len(test)) == (3, 3 + 3 * len(KINDS))
    assert all(np.asarray(Image.open(image.file)).mean() < 100 for image in training)
    assert all(np.asarray(Image.open(image.file)).mean() > 120 for image in test)
    assert all((image.mask is not None) == (image.label == "defect") for image in test)


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_is_where_its_mask_is(kind: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(100, 150, (SIDE, SIDE))
    for _ in range(5):
        changed, mask = KINDS[kind](pixels, rng)
        change = np.abs(changed - pixels)
        assert 0 < mask.mean() < 0.1
        assert change[mask].mean() > 5
        assert change[mask].mean() > 5 * change[~mask].mean()
