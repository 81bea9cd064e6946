"""Synthetic anomalies: small, reproducible, and nowhere but in the copies."""

import pytest
import torch
from torch import Tensor

from morphad.model.scoring.synthetic import with_anomalies


def images(count: int = 6, channels: int = 3, height: int = 56, width: int = 84) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def test_equal_seeds_give_equal_anomalies_and_others_do_not() -> None:
    good = images()
    assert torch.equal(with_anomalies(good, 3), with_anomalies(good, 3))
    assert not torch.equal(with_anomalies(good, 3), with_anomalies(good, 4))
    torch.manual_seed(5)
    assert torch.equal(with_anomalies(good, 3), with_anomalies(good, 3))


def test_the_images_and_the_global_random_state_stay_as_they_were() -> None:
    good = images()
    before, state = good.clone(), torch.get_rng_state()
    changed = with_anomalies(good, 3)
    assert torch.equal(good, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert changed.data_ptr() != good.data_ptr()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (56, 84), (224, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_region_of_the_stated_size_changes(height: int, width: int, channels: int) -> None:
    good = images(20, channels, height, width)
    seen = 0
    for seed in range(5):
        changed = with_anomalies(good, seed)
        assert changed.shape == good.shape
        assert changed.dtype == torch.uint8
        for differs in (changed != good).any(1):
            rows, columns = differs.any(1).nonzero().flatten(), differs.any(0).nonzero().flatten()
            if len(rows):
                seen += 1
                assert rows[-1] - rows[0] + 1 <= max(2, height / 7)
                assert columns[-1] - columns[0] + 1 <= max(2, width / 7)
    assert seen > 80  # a copy from the same place, or a closing of what is closed, changes nothing


def test_a_region_is_an_ellipse_not_a_box() -> None:
    good = images(40, 1, 224, 224)
    for differs in (with_anomalies(good, 0) != good).any(1):
        rows, columns = differs.any(1).nonzero().flatten(), differs.any(0).nonzero().flatten()
        if len(rows) > 10 and len(columns) > 10:
            assert not differs[rows[0], columns[0]]
            assert not differs[rows[-1], columns[-1]]


def test_a_single_image_gives_to_itself() -> None:
    assert with_anomalies(images(1), 0).shape == (1, 3, 56, 84)
