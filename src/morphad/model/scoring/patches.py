"""The score by densities of patch features: how far each place of an image lies from good ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from morphad.model.morphology import Case, parse_case, transform
from morphad.model.network import MorphologyNetwork
from morphad.model.resolution import PLACE
from morphad.model.scoring import fusion
from morphad.model.scoring.base import (
    BATCH,
    FOLDS,
    Closer,
    Report,
    Scored,
    Scorer,
    forward_pass,
    held_out_folds,
    unreported,
)
from morphad.model.scoring.density import Density
from morphad.model.scoring.gaussian import GaussianDensity
from morphad.model.scoring.memory_bank import sharp_and_steady
from morphad.model.scoring.subspace import SubspaceDensity
from morphad.model.scoring.synthetic import with_anomalies
from morphad.settings import ScoreSettings


class DensityScorer(Scorer):
    """Distance of patch features from those of good images, seen in one or more morphological views.

    A view is a case that train and test images alike are transformed by; each view and kind of density is a component
    with a map, the memory beside other kinds with the first view alone. There are two memories, of features as they
    are, which is sharp, and averaged over neighbours, which is steady; the component is their mean. The others blur and
    get its contours: they are multiplied by how far it stands out from its surroundings. Good images that
    the densities were not fitted on set how much places near the edge count in each density, the scale of each
    component (the deviation of its maps' peaks) and, once more with synthetic anomalies, its weight: by how many such
    deviations these raise the peak, which is the linear discriminant's weight for independent components. The
    fused map is the weighted mean, and the image's score is its peak: the mean of the most abnormal hundredth of it.
    """

    MIN_IMAGES = 2 * FOLDS
    SYNTHETIC = 128  # images with synthetic anomalies behind the weights, at least
    SMOOTHING = 2 / 224  # standard deviation of the map's smoothing as a share of its shorter side
    PEAK = 0.01  # share of a map whose mean is its peak: a maximum alone follows the noise of single places

    def __init__(
        self, settings: ScoreSettings, seed: int, dtype: torch.dtype | None, inside: Tensor | None = None
    ) -> None:
        super().__init__(dtype, inside)
        self._settings = settings
        self._seed = seed
        self._layers = settings.layers
        self._views = [parse_case(name) for name in settings.views]
        self._components = self._new_components()
        self._edge_gains = self._centres = self._scales = self._weights = self._level = torch.empty(0)

    def _new_components(self) -> list[dict[str, list[Density]]]:
        """The densities of each view by kind; beside others, the memory is in the first view alone: it is slowest."""
        settings, seed = self._settings, self._seed
        views: list[dict[str, list[Density]]] = [{} for _ in self._views]
        for i, made in enumerate(views):
            if "gaussian" in settings.densities:
                made["gaussian"] = [GaussianDensity(settings.channels, seed)]
            if "subspace" in settings.densities:
                made["subspace"] = [SubspaceDensity(seed)]
            if "memory" in settings.densities and (i == 0 or len(settings.densities) == 1):
                made["memory"] = [*sharp_and_steady(settings, seed)]
        return views

    def fit(self, network: MorphologyNetwork, images: Tensor, report: Report, closer: Closer | None = None) -> Self:
        """As in `Scorer`."""
        self.check_count(len(images))
        distances, spoilt = self._fit_in_folds(network, images, report)
        self._edge_gains = fusion.edge_gains(distances, self._inside_grid(distances[..., 0]))
        clean = self._peaks(distances)
        self._centres = clean.mean(0)
        self._scales = clean.std(0).clamp_min(1e-3 * self._centres.abs().max()).clamp_min(1e-6)
        raised = torch.stack([self._peaks(of_all) for of_all in spoilt]).mean(0)
        self._weights = fusion.component_weights(clean, raised, self._scales)
        peaks = torch.cat([self._peak(self._fused(batch)) for batch in torch.split(distances, BATCH)])
        self._level = torch.stack([peaks.mean(), peaks.std().clamp_min(1e-6)])
        return self

    def _fit_in_folds(self, network: MorphologyNetwork, images: Tensor, report: Report) -> tuple[Tensor, list[Tensor]]:
        """Fit the densities to all images, after those of `held_out_folds` were judged by densities without them.

        Returns:
            Distances of the N images that were held out, as `_distances` gives them, and the same of these images with
            synthetic anomalies, in several rounds.
        """
        fold, held_out = torch.arange(len(images)) % FOLDS, held_out_folds(len(images))
        rounds = -(-self.SYNTHETIC // sum(int((fold == i).sum()) for i in held_out))
        clean: list[Tensor] = []
        spoilt: list[list[Tensor]] = [[] for _ in range(rounds)]
        for i in held_out:
            self._components = self._new_components()
            self._take_in(network, images[fold != i], report if i == held_out[-1] else unreported)
            unseen = images[fold == i]
            clean.append(self._distances(network, unseen))
            for j, of_round in enumerate(spoilt):
                seed = self._seed + len(held_out) * j + FOLDS - 1 - i
                of_round.append(self._distances(network, with_anomalies(unseen, seed, self._inside)))
        self._take_in(network, unseen, report)
        return torch.cat(clean), [torch.cat(of_round) for of_round in spoilt]

    def rehearse(self, network: MorphologyNetwork, images: Tensor) -> None:
        """As in `Scorer`."""
        self._take_in(network, images, unreported)
        self._edge_gains = torch.ones((), device=images.device)
        components = sum(map(len, self._components))
        self._centres = torch.zeros(components, device=images.device)
        self._scales = self._weights = torch.ones(components, device=images.device)
        self._level = torch.tensor([0.0, 1.0], device=images.device)

    def score(self, network: MorphologyNetwork, images: Tensor, closer: Sequence[Tensor] = ()) -> Scored:
        """As in `Scorer`."""
        fused = self._fused(self._distances(network, images))
        return Scored(self._peak(fused).double(), fused)

    def relative(self, scored: Scored) -> Scored:
        """What `score` gave, in deviations of good images' scores from their mean."""
        mean, deviation = self._level
        return Scored((scored.scores - mean) / deviation, (scored.maps - mean) / deviation)

    def state(self) -> dict[str, Tensor]:
        """As in `Scorer`."""
        tensors = {
            f"{prefix}{name}": tensor for prefix, density in self._named() for name, tensor in density.state().items()
        }
        return tensors | {
            "edge_gains": self._edge_gains,
            "centres": self._centres,
            "scales": self._scales,
            "weights": self._weights,
            "level": self._level,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As in `Scorer`."""
        for prefix, density in self._named():
            density.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self._edge_gains = state["edge_gains"]
        self._centres, self._scales, self._weights = state["centres"], state["scales"], state["weights"]
        self._level = state["level"]

    def _named(self) -> Iterator[tuple[str, Density]]:
        """All densities and what their tensors' names start with."""
        for i, components in enumerate(self._components):
            for kind, densities in components.items():
                for j, density in enumerate(densities):
                    yield f"view{i}.{kind}{j}.", density

    def _take_in(self, network: MorphologyNetwork, images: Tensor, report: Report) -> None:
        for batch in torch.split(images, BATCH):
            for view, components in zip(self._views, self._components, strict=True):
                features = self._features(network, batch, view)
                for density in chain(*components.values()):
                    found = features(density.neighbourhoods)
                    density.update(found, self._inside_grid(found))
            report(len(batch))
        for _, density in self._named():
            density.finish()

    def _features(self, network: MorphologyNetwork, images: Tensor, view: Case) -> Callable[[bool], Tensor]:
        """As `features_on_grid`; the images' size is that of the maps from now on."""
        self._input_size = tuple(images.shape[-2:])
        return features_on_grid(network, images, self._layers, view, self._dtype)

    def _distances(self, network: MorphologyNetwork, images: Tensor) -> Tensor:
        """[N, h, w, densities] on the grid, view by view, kind by kind: an eighth of the images' own bytes."""
        batches = []
        for batch in torch.split(images, BATCH):
            maps = []
            for view, components in zip(self._views, self._components, strict=True):
                features = self._features(network, batch, view)
                maps += [d.distances(features(d.neighbourhoods)) for d in chain(*components.values())]
            batches.append(torch.stack(maps, -1))
        return torch.cat(batches)

    def _component_maps(self, distances: Tensor) -> Tensor:
        """[N, h, w, components]: the edge brought down, distances of one kind averaged, others by the contrast."""
        components = [item for of_view in self._components for item in of_view.items()]
        parts = torch.split(distances * self._edge_gains, [len(densities) for _, densities in components], -1)
        maps = [(kind, part.mean(-1)) for (kind, _), part in zip(components, parts, strict=True)]
        memory = next((m for kind, m in maps if kind == "memory"), None)  # one at most beside others
        inside = self._inside_grid(distances[..., 0])
        contrast = 1 if memory is None else fusion.contrast_with_surroundings(memory, inside)
        return torch.stack([m if kind == "memory" else m * contrast for kind, m in maps], -1)

    def _fused(self, distances: Tensor) -> Tensor:
        """[N, H, W] at input size, in deviations: the weighted mean of the components, smoothed."""
        maps = self._component_maps(distances)
        return self._smoothed(((maps - self._centres) / self._scales) @ self._weights)

    def _peaks(self, distances: Tensor) -> Tensor:
        """[N, components]: the peak of each component's smoothed map."""
        return torch.cat(
            [
                torch.stack([self._peak(self._smoothed(m)) for m in self._component_maps(batch).unbind(-1)], 1)
                for batch in torch.split(distances, BATCH)
            ]
        )

    def _peak(self, maps: Tensor) -> Tensor:
        """[B]: the mean of the highest `PEAK` of each map [B, H, W], of the places that count."""
        pixels = self._counting(maps)
        return pixels.topk(max(1, round(self.PEAK * pixels.shape[1])), 1).values.mean(1)

    def _smoothed(self, maps: Tensor) -> Tensor:
        """Maps [B, h, w] brought to input size [B, H, W] and smoothed."""
        height, width = self._input_size
        sigma = max(0.5, self.SMOOTHING * min(height, width))
        return _smoothing(maps.shape[1], height, sigma, maps) @ maps @ _smoothing(maps.shape[2], width, sigma, maps).T


def features_on_grid(
    network: MorphologyNetwork, images: Tensor, layers: Sequence[str], view: Case, dtype: torch.dtype | None
) -> Callable[[bool], Tensor]:
    """Gives features [B, C, h, w] float32 of all layers on one grid of 8 px, with `neighbourhoods` or not.

    Args:
        network: The trained one.
        images: [B, C, H, W] uint8.
        layers: Of the network; none: those that the backbone has scored by default.
        view: Through which it sees the images.
        dtype: As in `Scorer`.
    """
    with forward_pass(images, dtype):
        maps = network.features(transform(images, view), layers or network.backbone.scored_layers)
    grid = (max(1, images.shape[-2] // PLACE), max(1, images.shape[-1] // PLACE))

    @cache
    def on_grid(neighbourhoods: bool) -> Tensor:
        return torch.cat([_to_grid(found.float(), grid, neighbourhoods=neighbourhoods) for found in maps.values()], 1)

    return on_grid


def _smoothing(places: int, size: int, sigma: float, like: Tensor) -> Tensor:
    """[size, places]: what interpolates and then smooths one side of a map; far faster than smoothing all pixels."""
    rows = torch.eye(places, dtype=like.dtype, device=like.device)[None]
    rows = functional.interpolate(rows, size=size, mode="linear", align_corners=False)
    smoothed: Tensor = transforms.gaussian_blur(rows, [2 * round(3 * sigma) + 1, 1], [sigma, sigma])
    return smoothed[0].T


def _to_grid(features: Tensor, grid: tuple[int, int], *, neighbourhoods: bool) -> Tensor:
    """Features [B, C, h, w] averaged down or interpolated up to the grid.

    Args:
        features: Of one layer.
        grid: Rows and columns.
        neighbourhoods: Average a layer that is coarser than the grid over 3 x 3 of its places first, zeros beyond the
            edge among them: they set the places there apart, so that a memory compares them with each other.
    """
    if features.shape[-2] >= grid[0] and features.shape[-1] >= grid[1]:
        return functional.adaptive_avg_pool2d(features, grid)
    if neighbourhoods:
        features = functional.avg_pool2d(features, 3, 1, 1)
    return functional.interpolate(features, size=grid, mode="bilinear", align_corners=False)
