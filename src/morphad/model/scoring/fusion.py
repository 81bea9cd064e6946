"""What maps of different densities are brought to before they become one: edges, contours and weights."""

import torch
from torch import Tensor
from torch.nn import functional

EDGE = 3  # places from the edge of the grid where the padding is felt


def edge_gains(distances: Tensor, inside: Tensor | None = None) -> Tensor:
    """What brings distances near the edge down to those of the inner places.

    The network pads with zeros and finds structure at the edge, most of all in the corners, where there is none. Good
    places lie further from each other there, and without this the most abnormal place of a good surface is one of them.

    Args:
        distances: Of good images [N, h, w, K], by K densities.
        inside: bool [h, w], the places that count; None: all.

    Returns:
        [h, w, K] in (0, 1], one value a density and zone of `_zones`: how high distances go in the inner zone by how
        high they go in this one, each the mean and two deviations. None is above 1, for a bland rim is not to be made
        loud; all are 1 where no place of the inner zone counts.
    """
    zones = _zones(*distances.shape[1:3]).to(distances.device)
    inner = int(zones[zones.shape[0] // 2, zones.shape[1] // 2])
    counting = zones if inside is None else torch.where(inside, zones, -1)
    gains = torch.ones_like(distances[0])
    present = set(counting.flatten().tolist()) - {-1}

    def high(zone: int) -> Tensor:
        deviation, mean = torch.std_mean(distances[:, counting == zone].double(), (0, 1), correction=0)
        return (mean + 2 * deviation).float().clamp_min(1e-6)

    if inner in present:
        reference = high(inner)
        for zone in present:
            gains[zones == zone] = (reference / high(zone)).clamp_max(1)
    return gains


def contrast_with_surroundings(maps: Tensor, inside: Tensor | None = None) -> Tensor:
    """How far each place of a sharp map stands out from its surroundings.

    A Gaussian sees averaged features, principal components whole cells: both say well how much is wrong and blur where.
    Multiplied by this, they keep their level over the surroundings and get the sharp map's contours.

    Args:
        maps: Distances [N, h, w], none below zero.
        inside: bool [h, w], the places that count; None: all.

    Returns:
        [N, h, w]: each by the mean over a window of half the map's sides around it; all ones where there is nothing.
    """
    radii = [side // 4 for side in maps.shape[1:]]
    window = [2 * radius + 1 for radius in radii]

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values[:, None], window, 1, radii, count_include_pad=False)[:, 0]

    if inside is None:
        around = mean(maps)
    else:
        share = mean(inside[None].to(maps.dtype))
        around = torch.where(share > 0, mean(maps * inside) / share.clamp_min(1e-6), maps)
    return (maps + 1e-6) / (around + 1e-6)


def component_weights(clean: Tensor, spoilt: Tensor, scales: Tensor) -> Tensor:
    """How much each of several scores counts: by how many of its deviations synthetic anomalies raise it.

    Args:
        clean: Scores [N, K] of good images.
        spoilt: Scores [N, K] of the same images with synthetic anomalies.
        scales: Deviations [K] of the clean ones.

    Returns:
        [K], none below zero, their sum 1; all alike where anomalies raise nothing, for then none is to be preferred.
    """
    raised = ((spoilt - clean).mean(0) / scales).clamp_min(0)
    return raised / raised.sum() if raised.sum() > 0 else torch.full_like(raised, 1 / len(raised))


def _zones(height: int, width: int) -> Tensor:
    """[height, width]: which places lie alike to the edge, by rows and columns between, `EDGE` and more being one."""
    rows, columns = (
        torch.arange(count).minimum(torch.arange(count).flip(0)).clamp_max(EDGE) for count in (height, width)
    )
    return rows[:, None] * (EDGE + 1) + columns
