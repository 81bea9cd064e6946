"""The parts of the peers' benchmark that need no peer."""

import numpy as np
import torch

from benchmarks.parted import choose
from benchmarks.peers import MODELS, OURS, farthest_points, thumbnail
from morphad.settings.presets import PRESETS


def test_the_greedy_choice_takes_the_farthest_row_each_time() -> None:
    torch.manual_seed(0)
    rows = torch.randn(60, 5)
    chosen = farthest_points(rows, 12)
    assert len(set(chosen)) == 12
    for count in range(1, 12):
        gaps = torch.cdist(rows, rows[chosen[:count]]).amin(1)
        assert torch.isclose(gaps[chosen[count]], gaps.max(), atol=1e-3)


def test_copies_score_nothing_and_what_is_like_no_training_image_much() -> None:
    images = torch.randn(5, 3, 48, 48)
    scores, maps = thumbnail(images, 0)(torch.cat([images[3:4] * 2 + 1, torch.randn(1, 3, 48, 48)]))
    assert maps is None
    assert scores[0].abs() < 1e-5  # a copy, brighter
    assert scores[1] > 0.5


def test_our_models_are_presets() -> None:
    assert set(OURS.values()) <= set(PRESETS)
    assert set(OURS) <= set(MODELS)


def test_near_copies_do_not_part() -> None:
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(20, 576))
    rows = np.repeat(origins, 3, axis=0) + rng.normal(size=(60, 576)) * 0.1
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    chosen = choose(rows, 16, 0).reshape(20, 3)
    assert chosen.sum() == 15  # five groups of three; a sixth does not fit
    assert (chosen.all(1) | ~chosen.any(1)).all()
