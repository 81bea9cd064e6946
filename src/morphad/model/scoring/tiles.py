"""What is too small to be seen in the whole picture: its places seen closer, tile by tile, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Self

import torch
from torch import Tensor

from morphad.model.morphology import parse_case
from morphad.model.network import MorphologyNetwork
from morphad.model.resolution import PLACE, spans
from morphad.model.scoring.base import FOLDS, Closer, held_out_folds, shrunk_mask, unreported
from morphad.model.scoring.fusion import edge_gains
from morphad.model.scoring.memory_bank import sharp_and_steady
from morphad.model.scoring.patches import features_on_grid
from morphad.settings import ScoreSettings

_IDENTITY = parse_case("identity")


class TileScorer:
    """Distances of places from a memory of good ones, in tiles of pictures that are larger than the network sees whole.

    One memory serves all places: its size depends neither on the pictures' nor on their number. As in `DensityScorer`
    there are two, sharp and steady, and good images that they were not fitted on set the gains near the edge, and
    centre and deviation of the peaks. A peak is the mean of the `PEAK` most abnormal places: a small defect has no
    more.

    Args:
        settings: Of the score.
        seed: Of the memories' samples.
        dtype: As in `Scorer`.
        size: Height and width, px, of pictures that are cut into tiles.
        inside: bool [H, W] at that size, true where the picture is inspected; None: everywhere.
    """

    PEAK = 4

    def __init__(
        self,
        settings: ScoreSettings,
        seed: int,
        dtype: torch.dtype | None,
        size: tuple[int, int],
        inside: Tensor | None = None,
    ) -> None:
        self.size = size
        self._layers = settings.layers
        self._dtype = dtype
        self._inside = inside
        self._settings = settings
        self._seed = seed
        self._memories = sharp_and_steady(self._settings, self._seed)
        self._edge_gains = self._level = torch.empty(0)

    def fit(self, network: MorphologyNetwork, images: Closer) -> Self:
        """Learn good images at the tiled size; they are read twice for each of `held_out_folds`."""
        found: list[Tensor] = []
        held_out = held_out_folds(images.count)
        for fold in held_out:
            report = images.report if fold == held_out[-1] else unreported
            self._memories = sharp_and_steady(self._settings, self._seed)
            for i, image in enumerate(images.read()):
                if i % FOLDS != fold:
                    self._take_in(network, image)
                    report(1)
            self._finish()
            for i, image in enumerate(images.read()):
                if i % FOLDS == fold:
                    found.append(self._distances(network, image))
                    self._take_in(network, image)
                    report(1)
        self._finish()
        distances = torch.stack(found)
        self._edge_gains = edge_gains(distances, self._inside_grid(distances[0, ..., 0]))
        peaks = torch.stack([self._peak(self._map(image)) for image in distances])
        self._level = torch.stack([peaks.mean(), peaks.std().clamp_min(1e-6)])
        return self

    def rehearse(self, network: MorphologyNetwork, images: Iterable[Tensor]) -> None:
        """Learn images, of any size, only so far that `score` does all its work, as in `Scorer`."""
        for image in images:
            self._take_in(network, image)
        self._finish()
        self._edge_gains, self._level = torch.ones(()), torch.tensor([0.0, 1.0])

    def score(self, network: MorphologyNetwork, image: Tensor) -> tuple[Tensor, Tensor]:
        """Score an image [C, H, W] uint8 at the tiled size.

        Returns:
            Score, and map [H / 8, W / 8], in deviations of good images' scores from their mean.
        """
        mean, deviation = self._level
        found = (self._map(self._distances(network, image)) - mean) / deviation
        return self._peak(found), found

    def state(self) -> dict[str, Tensor]:
        """Tensors for `load_state`."""
        tensors = {
            f"memory{i}.{name}": tensor
            for i, memory in enumerate(self._memories)
            for name, tensor in memory.state().items()
        }
        return tensors | {"edge_gains": self._edge_gains, "level": self._level}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave."""
        for i, memory in enumerate(self._memories):
            prefix = f"memory{i}."
            memory.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self._edge_gains, self._level = state["edge_gains"], state["level"]

    def _take_in(self, network: MorphologyNetwork, image: Tensor) -> None:
        inside = self._inside_grid(torch.empty(*_grid(image)))
        for places, shown, features in self._tiles(network, image):
            for memory in self._memories:
                found = features(memory.neighbourhoods)[:, :, *shown]
                memory.update(found, None if inside is None else inside[places])

    def _finish(self) -> None:
        for memory in self._memories:
            memory.finish()

    def _distances(self, network: MorphologyNetwork, image: Tensor) -> Tensor:
        """[h, w, memories] of an image [C, H, W]."""
        whole = torch.empty(*_grid(image), len(self._memories), device=_device(network))
        for places, shown, features in self._tiles(network, image):
            for i, memory in enumerate(self._memories):
                whole[*places, i] = memory.distances(features(memory.neighbourhoods)[:, :, *shown])[0]
        return whole

    def _tiles(
        self, network: MorphologyNetwork, image: Tensor
    ) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], Callable[[bool], Tensor]]]:
        """For each tile: the places [h, w] of the image that it answers for, the same places in the tile, and features.

        Features are those of the whole tile, as `features_on_grid` gives them.
        """
        for down, across in product(spans(image.shape[-2]), spans(image.shape[-1])):
            tile = image[None, :, down.shown, across.shown].to(_device(network))
            yield (
                (_places(down.kept), _places(across.kept)),
                (_places(down.kept, down.shown.start), _places(across.kept, across.shown.start)),
                features_on_grid(network, tile, self._layers, _IDENTITY, self._dtype),
            )

    def _map(self, distances: Tensor) -> Tensor:
        """[h, w] of distances [h, w, memories]."""
        return (distances * self._edge_gains).mean(-1)

    def _peak(self, values: Tensor) -> Tensor:
        inside = self._inside_grid(values)
        counting = values.flatten() if inside is None else values[inside]
        return counting.topk(min(self.PEAK, len(counting))).values.mean()

    def _inside_grid(self, values: Tensor) -> Tensor | None:
        """`inside` on the grid of values [h, w]."""
        return None if self._inside is None else shrunk_mask(self._inside, *values.shape).to(values.device)


def _places(pixels: slice, origin: int = 0) -> slice:
    return slice((pixels.start - origin) // PLACE, (pixels.stop - origin) // PLACE)


def _grid(image: Tensor) -> tuple[int, int]:
    return image.shape[-2] // PLACE, image.shape[-1] // PLACE


def _device(network: MorphologyNetwork) -> torch.device:
    return next(network.parameters()).device
