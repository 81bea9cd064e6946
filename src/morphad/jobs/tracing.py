"""From a picture that somebody painted on to a region's shapes."""

from pathlib import Path

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from scipy import ndimage

from morphad.base.errors import BadInputError
from morphad.data.images import decode
from morphad.settings import Decoding, RegionSettings
from morphad.settings.region import MOST_POINTS

_STRONG = 96  # between a pixel's strongest and weakest channel: paint, and not the grey picture under it
_SPECK = 2e-5  # share of a picture below which a spot of paint, or a gap in it, is a slip of the brush

_Polygon = list[tuple[int, int]]


def trace(painted: Path, size: tuple[int, int], decoding: Decoding) -> tuple[RegionSettings, NDArray[np.bool_]]:
    """Read what is painted green as inspected and what is painted red as ignored.

    Args:
        painted: The template with paint on it. Without green all that is not red is inspected.
        size: Height and width, px, of the line's pictures.
        decoding: How to read it.

    Returns:
        The region in shapes of at most `MOST_POINTS` points, and bool [H, W], what was painted as inspected.

    Raises:
        BadInputError: It cannot be read, is of another size, has no paint, or too many spots of it.
    """
    pixels = decode(painted, decoding).pixels
    if pixels.shape[:2] != size:
        raise BadInputError(
            f"{painted}: is {pixels.shape[0]} x {pixels.shape[1]} px, and the line's pictures are "
            f"{size[0]} x {size[1]} px (height x width); paint on the template that `morphad "
            "region` writes, and keep its size"
        )
    green, red = _painted(pixels)
    if not green.any() and not red.any():
        raise BadInputError(
            f"{painted}: nothing is painted on it; paint what is to be inspected in pure green (#00ff00), what is "
            "to be ignored in pure red (#ff0000), and save it as PNG"
        )
    gaps = _without_specks(ndimage.binary_fill_holes(green) & ~green)
    outer = ndimage.binary_fill_holes(green)
    wanted = (outer & ~gaps if green.any() else np.ones(size, bool)) & ~red
    region = RegionSettings(
        size=size, inspect=_shapes(outer, "green", painted), ignore=_shapes(gaps | red, "red", painted)
    )
    return region, wanted


def _painted(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks [H, W] of green and of red paint, without specks."""
    if pixels.ndim == 2:  # a grey file: no paint
        return np.zeros(pixels.shape, bool), np.zeros(pixels.shape, bool)
    strongest = pixels.argmax(-1)
    paint = pixels.max(-1) - pixels.min(-1) >= _STRONG
    return _without_specks(paint & (strongest == 1)), _without_specks(paint & (strongest == 0))


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    keep = sizes >= max(4, _SPECK * mask.size)
    keep[0] = False
    return np.asarray(keep[labels])


def _shapes(mask: NDArray[np.bool_], colour: str, painted: Path) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Polygons around what is set, as exact as so many points allow."""
    outlines = _outlines(mask)
    tolerance = max(0.75, max(mask.shape) / 1000)  # below it the steps of a slanted outline are kept
    while True:
        shapes = [_simplified(np.array(outline), tolerance) for outline in outlines]
        if sum(map(len, shapes)) <= MOST_POINTS:
            return tuple(tuple(shape) for shape in shapes)
        if tolerance > max(mask.shape) / 20:
            raise BadInputError(
                f"{painted}: {len(outlines)} spots of {colour} paint are more than {MOST_POINTS} points can say; paint "
                "fewer and larger ones"
            )
        tolerance *= 1.5


def _outlines(mask: NDArray[np.bool_]) -> list[_Polygon]:
    """Outlines, pixel by pixel, of the parts of a mask; a part with a hole is cut through it until none has one."""
    labels, _ = ndimage.label(mask)
    found: list[_Polygon] = []
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        part = labels[place] == number
        holes = ndimage.binary_fill_holes(part) & ~part
        top, left = place[0].start, place[1].start
        if holes.any():
            columns = np.flatnonzero(holes.any(0))
            cut = int(columns[len(columns) // 2])
            # The column of the cut belongs to both: no seam shows, whatever becomes of the outlines.
            below = [((0, 0), part[:, : cut + 1]), ((0, cut), part[:, cut:])]
        else:
            below = []
            found.append([(x + left, y + top) for x, y in _outline(part)])
        for (down, right), half in below:
            found += [[(x + left + right, y + top + down) for x, y in each] for each in _outlines(half)]
    return found


def _outline(part: NDArray[np.bool_]) -> _Polygon:
    """The pixels around one part without holes."""
    framed = np.pad(part, 1).astype(np.float64)
    traced = [np.asarray(line) for line in contour_generator(z=framed).lines(0.999)]  # just beyond pixels' centres
    points = np.rint(max(traced, key=len) - 1).astype(int)
    kept = [tuple(points[0])]
    kept += [tuple(point) for point, before in zip(points[1:], points[:-1], strict=True) if (point != before).any()]
    closed = kept[:-1] if len(kept) > 1 and kept[0] == kept[-1] else kept
    return [(int(x), int(y)) for x, y in closed]


def _simplified(outline: NDArray[np.int_], tolerance: float) -> _Polygon:
    """A closed outline without the points that lie within a tolerance of the line between others.

    After Douglas and Peucker (Cartographica, 1973), both halves between the first point and the one farthest from it.
    """
    far = int(np.square(outline - outline[0]).sum(1).argmax())
    if far == 0:
        return [(int(outline[0][0]), int(outline[0][1]))] * 2
    ring = np.concatenate([outline, outline[:1]])
    keep = np.zeros(len(ring), bool)
    keep[[0, far]] = True
    spans = [(0, far), (far, len(ring) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        direction = (ring[last] - ring[first]).astype(float)
        offsets = ring[first + 1 : last] - ring[first]
        across = np.abs(direction[0] * offsets[:, 1] - direction[1] * offsets[:, 0])
        length = float(np.hypot(*direction))
        distances = across / length if length else np.hypot(offsets[:, 0], offsets[:, 1])
        worst = int(distances.argmax())
        if distances[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return [(int(x), int(y)) for x, y in ring[:-1][keep[:-1]]]
