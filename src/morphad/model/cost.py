"""What a picture takes, known before the training."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from morphad.base.errors import BadInputError
from morphad.model.device import Placement, within_gpu_memory
from morphad.model.morphology import Case
from morphad.model.network import MorphologyNetwork
from morphad.model.resolution import PLACE, TILE, tile_count, whole_strides
from morphad.model.scorers import tile_scorer, whole_scorer
from morphad.settings import TrainSettings

_TRIES = 3


@dataclass(frozen=True)
class Cost:
    """Time for a picture on one machine, decoding and heatmap left aside.

    Attributes:
        whole_ms: For the whole picture.
        tile_ms: For one of its tiles, of the largest size; 0 without tiles.
        tiled_size: Height and width, px, that are cut into tiles; None: there are none.
    """

    whole_ms: float
    tile_ms: float
    tiled_size: tuple[int, int] | None

    @property
    def tiles(self) -> int:
        """How many tiles a picture has."""
        return 0 if self.tiled_size is None else tile_count(self.tiled_size)

    @property
    def ms(self) -> float:
        """For a picture."""
        return self.whole_ms + self.tiles * self.tile_ms

    def __str__(self) -> str:
        """Such as "12 tiles, 2488 ms a picture on this machine"."""
        tiles = f"{self.tiles} tile{'s' * (self.tiles != 1)}" if self.tiles else "without tiles"
        return f"{tiles}, {self.ms:.0f} ms a picture on this machine"

    def check(self, settings: TrainSettings) -> None:
        """Refuse what takes longer than the settings allow.

        Raises:
            BadInputError: It does; the message has what there is to choose from.
        """
        budget, defect = settings.resolution.budget_ms, settings.resolution.smallest_defect
        if budget is None or self.ms <= budget:
            return
        choices = [f"raise it to {self.ms * 1.1:.0f}"]
        if self.tiled_size is not None and defect is not None:
            for factor in (1.5, 2, 3, 4, 6):
                height, width = (whole_strides(side / factor) for side in self.tiled_size)
                needed = self.whole_ms + tile_count((height, width)) * self.tile_ms
                if needed <= budget:
                    choices.append(f"raise train.resolution.smallest_defect to {defect * factor:g} ({needed:.0f} ms)")
                    break
        if self.tiles and self.whole_ms <= budget:
            choices.append(f"do without tiles ({self.whole_ms:.0f} ms)")
        if settings.preset == "default" and self.ms - self.whole_ms / 2 <= budget:
            choices.append("set train.preset to fast, which sees the whole picture once and not twice")
        raise BadInputError(
            f"train.resolution.budget_ms = {budget:g}: {self}; {', or '.join(choices)}; other machines need other times"
        )


def measured_cost(settings: TrainSettings, table: Sequence[Case], seed: int, placement: Placement) -> Cost:
    """Measure what a picture will take on this machine, with an untrained network and noise.

    Args:
        settings: With the sizes that follow from the pictures, see `resolution.resolved`.
        table: The cases.
        seed: Of the noise.
        placement: Where it will score.
    """
    device, channels = placement.device, 1 if settings.colour == "grey" else 3
    assert settings.image_size is not None  # noqa: S101 -- resolved
    network = MorphologyNetwork(settings, table, seed, initialise=False).to(device).eval()
    scorer, tiles = whole_scorer(settings, table, seed, placement), tile_scorer(settings, seed, placement)
    generator = torch.Generator().manual_seed(seed)

    def noise(height: int, width: int) -> torch.Tensor:
        """As many images as fill the memory."""
        count = max(2, -(-settings.score.memory * PLACE**2 // (height * width)))
        return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)

    with within_gpu_memory("measuring what a picture takes"), torch.inference_mode():
        images = noise(*settings.image_size).to(device)
        scorer.rehearse(network, images)
        whole = _milliseconds(lambda: float(scorer.score(network, images[:1]).scores))  # which waits for a GPU
        tile = 0.0
        if tiles is not None:
            shown = noise(min(TILE, tiles.size[0]), min(TILE, tiles.size[1]))
            tiles.rehearse(network, shown)
            tile = _milliseconds(lambda: float(tiles.score(network, shown[0])[0]))
    return Cost(whole, tile, settings.resolution.tiled_size)


def _milliseconds(work: Callable[[], object]) -> float:
    """The median of some tries after a first one."""
    work()
    found = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return 1000 * median(found)
