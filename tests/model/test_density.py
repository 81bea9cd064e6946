"""Patch densities against plain formulas."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, mahalanobis
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from torch import Tensor

from morphad.base.errors import BadInputError
from morphad.model.scoring.density import SHRINKAGE, Density
from morphad.model.scoring.gaussian import GaussianDensity
from morphad.model.scoring.memory_bank import MemoryDensity, _greedy_centres
from morphad.model.scoring.subspace import SubspaceDensity


def features(count: int, channels: int = 12, height: int = 3, width: int = 2, seed: int = 0) -> Tensor:
    """Features [B, C, h, w] whose channels are correlated, unequal in scale and far from zero."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, height, width, channels, generator=generator)
    mixing = torch.randn(channels, channels, generator=torch.Generator().manual_seed(9))
    return (mixed @ mixing + torch.linspace(-5, 20, channels)).permute(0, 3, 1, 2)


def averaged(images: Tensor) -> Tensor:
    """Each place with those around it, as far as there are any."""
    around = [
        [images[..., max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].mean((2, 3)) for x in range(images.shape[3])]
        for y in range(images.shape[2])
    ]
    return torch.stack([torch.stack(row, -1) for row in around], -2)


class TestGaussian:
    def fitted(self, good: Tensor, batch: int = 100) -> GaussianDensity:
        density = GaussianDensity(channels=5, seed=3)
        for part in torch.split(good, batch):
            density.update(part)
        return density.finish()

    @pytest.mark.parametrize("offset", [0.0, 3000.0])
    def test_distance_is_that_of_mahalanobis_at_each_place(self, offset: float) -> None:
        good, new = features(40).double() + offset, features(6, seed=1).double() + offset
        density = self.fitted(good.float(), 7)
        chosen = density.state()["chosen"]
        distances = density.distances(new.float())

        assert distances.shape == (6, 3, 2)
        assert distances.dtype == torch.float32
        good, new = (averaged(images) for images in (good, new))
        for y in range(3):
            for x in range(2):
                here = good[:, chosen, y, x].numpy()
                inverse = np.linalg.inv(np.cov(here.T) + SHRINKAGE * np.eye(5))
                expected = [mahalanobis(row, here.mean(0), inverse) for row in new[:, chosen, y, x].numpy()]
                np.testing.assert_allclose(distances[:, y, x], expected, rtol=2e-3 if offset else 1e-4)

    def test_channels_are_a_fixed_choice_without_repetition(self) -> None:
        chosen = self.fitted(features(20)).state()["chosen"].tolist()
        assert len(set(chosen)) == 5
        assert chosen == self.fitted(features(20, seed=5)).state()["chosen"].tolist()
        few = GaussianDensity(channels=100, seed=0)
        few.update(features(20))
        assert few.finish().state()["chosen"].tolist() == list(range(12))

    def test_neither_order_nor_size_of_batches_matters(self) -> None:
        good, new = features(40), features(6, seed=1)
        whole = self.fitted(good).distances(new)
        torch.testing.assert_close(self.fitted(good, 1).distances(new), whole, rtol=1e-4, atol=1e-4)
        shuffled = good[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
        torch.testing.assert_close(self.fitted(shuffled, 9).distances(new), whole, rtol=1e-4, atol=1e-4)

    def test_a_channel_that_never_varies_does_not_decide_alone(self) -> None:
        good = features(40)
        good[:, 3:8] = 7.0
        new = features(6, seed=1)
        new[:, 3:8] = 7.01
        assert self.fitted(good).distances(new).isfinite().all()
        assert self.fitted(torch.full((9, 12, 3, 2), 250.0)).distances(torch.full((1, 12, 3, 2), 250.0)).max() < 1e-3

    def test_one_image_is_too_few(self) -> None:
        density = GaussianDensity(channels=5, seed=3)
        with pytest.raises(BadInputError, match=r"at least 2 good images, got 0"):
            density.finish()
        density.update(features(1))
        with pytest.raises(BadInputError, match=r"at least 2 good images, got 1"):
            density.finish()


class TestMemory:
    def fitted(self, good: Tensor, size: int = 10_000, neighbours: int = 1) -> MemoryDensity:
        density = MemoryDensity(size, neighbours, seed=0)
        for part in torch.split(good, 7):
            density.update(part)
        return density.finish()

    @pytest.mark.parametrize("neighbours", [1, 3])
    def test_distance_is_to_the_nearest_whitened_patches(self, neighbours: int) -> None:
        good, new = features(20), features(6, seed=1)
        patches = good.permute(0, 2, 3, 1).reshape(-1, 12).double().numpy()
        fitted = EmpiricalCovariance().fit(patches)
        covariance = fitted.covariance_ * len(patches) / (len(patches) - 1) + SHRINKAGE * np.eye(12)
        whole = cdist(
            new.permute(0, 2, 3, 1).reshape(-1, 12).double().numpy(),
            patches,
            "mahalanobis",
            VI=np.linalg.inv(covariance),
        )
        expected = np.sort(whole, axis=1)[:, :neighbours].mean(1).reshape(6, 3, 2)

        distances = self.fitted(good, neighbours=neighbours).distances(new)

        assert distances.dtype == torch.float32
        np.testing.assert_allclose(distances, expected, rtol=1e-3)

    def test_a_remembered_patch_is_at_no_distance(self) -> None:
        good = features(20)
        assert self.fitted(good).distances(good).max() < 0.02

    def test_an_image_is_judged_alone(self) -> None:
        density, new = self.fitted(features(20), 30), features(6, seed=1)
        alone = torch.cat([density.distances(image[None]) for image in new])
        assert torch.equal(density.distances(new), alone)

    def test_memory_does_not_grow_with_the_images(self) -> None:
        density = MemoryDensity(size=4, neighbours=1, seed=0)
        for seed in range(30):
            density.update(features(5, seed=seed))
            assert density._candidates._count <= 2 * 4 * MemoryDensity.CANDIDATES_PER_PATCH
        assert density.finish().state()["memory"].shape == (4, 12)

    def test_candidates_come_from_all_images_alike(self) -> None:
        density = MemoryDensity(size=8, neighbours=1, seed=0)
        for image in range(200):  # the image's number is in its patches
            density.update(torch.full((1, 2, 4, 4), float(image)))
        density.finish()
        numbers = density._candidates.rows()[:, 0]
        assert len(numbers) == 8 * MemoryDensity.CANDIDATES_PER_PATCH
        assert abs(float(numbers.mean()) - 99.5) < 10
        assert len(numbers.unique()) > 150

    def test_too_few_patches_are_told(self) -> None:
        with pytest.raises(BadInputError, match=r"for 9 neighbours.*got 6; add images or lower"):
            self.fitted(features(1), neighbours=9)
        with pytest.raises(BadInputError, match="got 0"):
            MemoryDensity(10, 1, 0).finish()

    def test_one_channel_and_constant_patches_work(self) -> None:
        density = self.fitted(torch.full((4, 1, 3, 3), 7.0))
        assert density.distances(torch.full((1, 1, 3, 3), 7.0)).max() < 1e-3
        assert density.distances(torch.full((1, 1, 3, 3), 9.0)).min() > 1


class TestGreedyCentres:
    def test_they_are_those_of_a_plain_greedy_search(self) -> None:
        rows = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
        gaps = cdist(rows, rows)
        chosen = [int(np.square(rows - rows.mean(0)).sum(1).argmax())]
        while len(chosen) < 20:
            chosen.append(int(gaps[:, chosen].min(1).argmax()))
        assert _greedy_centres(rows, 20).tolist() == chosen

    def test_they_leave_smaller_gaps_than_chance(self) -> None:
        generator = torch.Generator().manual_seed(0)
        rows = torch.cat([torch.randn(950, 3, generator=generator), 6 + torch.randn(50, 3, generator=generator)])
        gap = cdist(rows, rows[_greedy_centres(rows, 40)]).min(1).max()
        by_chance = [cdist(rows, rows[torch.randperm(1000, generator=generator)[:40]]).min(1).max() for _ in range(20)]
        assert gap < min(by_chance)

    def test_more_than_there_are_gives_all_of_them_once(self) -> None:
        rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
        assert sorted(_greedy_centres(rows, 50).tolist()) == list(range(9))

    def test_many_channels_are_projected_for_the_choice_only(self) -> None:
        density = MemoryDensity(size=10, neighbours=1, seed=0)
        density.update(features(20, channels=100))
        assert density.finish().state()["memory"].shape == (10, 100)


class TestSubspace:
    def fitted(self, good: Tensor, batch: int = 7) -> SubspaceDensity:
        density = SubspaceDensity(seed=0)
        for part in torch.split(good, batch):
            density.update(part)
        return density.finish()

    def test_distance_is_what_principal_components_leave_of_each_cell(self) -> None:
        good, new = features(40), features(6, seed=1)
        components = PCA(SubspaceDensity.VARIANCE, svd_solver="full").fit(good.flatten(1).double().numpy())
        rows = new.flatten(1).double().numpy()
        left = rows - components.inverse_transform(components.transform(rows))

        distances = self.fitted(good).distances(new)

        assert distances.dtype == torch.float32
        np.testing.assert_allclose(distances, np.linalg.norm(left.reshape(new.shape), axis=1), rtol=1e-3)

    def test_what_varies_in_good_images_too_is_no_defect(self) -> None:
        light = torch.linspace(-9, 9, 40)[:, None, None, None] * torch.linspace(1, 2, 4)
        good = features(1, height=3, width=4) + light + 0.01 * features(40, height=3, width=4)
        brighter, spoilt = good[:1] + 8, good[:1].clone()
        spoilt[:, :, 1, 2] += 8
        density = self.fitted(good)
        light_again = good[:1] + torch.linspace(1, 2, 4)
        assert density.distances(light_again).max() < 1
        assert density.distances(spoilt).flatten().argmax() == 6
        assert density.distances(brighter).max() < density.distances(spoilt).max()

    def test_cells_of_a_large_map_are_its_averages(self) -> None:
        good, new = features(30, height=14, width=21), features(6, height=14, width=21, seed=1)
        coarse = [images.unfold(2, 2, 2).unfold(3, 3, 3).mean((4, 5)) for images in (good, new)]
        expected = self.fitted(coarse[0]).distances(coarse[1])
        found = self.fitted(good).distances(new)
        assert found.shape == (6, 14, 21)
        torch.testing.assert_close(found[:, 1::2, 1::3].amax((1, 2)), expected.amax((1, 2)), rtol=0.35, atol=0.1)

    def test_no_more_images_are_kept_than_the_sample(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SubspaceDensity, "SAMPLE", 10)
        assert self.fitted(features(40)).state()["components"].shape[0] <= 10

    def test_images_that_are_all_alike_have_no_components(self) -> None:
        same = features(1).expand(9, -1, -1, -1)
        density = self.fitted(same)
        assert density.distances(same).max() < 1e-3
        assert density.distances(same + 1).min() > 1

    def test_one_image_is_too_few(self) -> None:
        density = SubspaceDensity(seed=3)
        density.update(features(1))
        with pytest.raises(BadInputError, match=r"at least 2 good images, got 1"):
            density.finish()


MAKE: dict[str, Callable[[], Density]] = {
    "gaussian": lambda: GaussianDensity(5, 3),
    "subspace": lambda: SubspaceDensity(3),
    "memory": lambda: MemoryDensity(15, 2, 3),
}


@pytest.mark.parametrize("kind", list(MAKE))
class TestEveryDensity:
    def test_a_stored_density_gives_the_same_distances(self, kind: str) -> None:
        density, new = MAKE[kind](), features(6, seed=1)
        density.update(features(20))
        density.finish()
        other = MAKE[kind]()
        other.load_state({name: tensor.clone() for name, tensor in density.state().items()})
        assert torch.equal(other.distances(new), density.distances(new))

    def test_finished_twice_it_is_that_of_all_images(self, kind: str) -> None:
        good, new = features(20), features(6, seed=1)
        in_turns, at_once = MAKE[kind](), MAKE[kind]()
        in_turns.update(good[:15])
        first = in_turns.finish().distances(new)
        in_turns.update(good[15:])
        at_once.update(good[:15])
        at_once.update(good[15:])
        second = in_turns.finish().distances(new)
        assert torch.equal(second, at_once.finish().distances(new))
        assert not torch.equal(first, second)

    def test_odd_images_lie_farther_than_good_ones(self, kind: str) -> None:
        density = MAKE[kind]()
        density.update(features(100, height=5, width=4))
        density.finish()
        odd = features(6, height=5, width=4, seed=1)
        odd[:, :, 4, 3] += 60
        distances = density.distances(odd)
        assert distances[:, 4, 3].min() > distances[:, :3].max()
