"""What of a picture is inspected: cut out before anything else sees the picture, and put back into its place after."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from morphad.base.errors import BadInputError
from morphad.settings import RegionSettings

_PAINT = 128  # mid grey: near what networks take for nothing


class Region:
    """The inspected pixels of a picture.

    Args:
        settings: Shapes in the picture's own pixels.

    Attributes:
        size: Height and width, px, of the pictures that it is for.
        inside: bool [H, W], true where it is inspected; read-only.
        box: Rows and columns of the smallest rectangle around `inside`.
        box_size: Height and width of that, px.
        share: Of the picture that is inspected, in (0, 1].

    Raises:
        BadInputError: Nothing is left to inspect.

    Example:
        >>> from morphad.settings import RegionSettings
        >>> region = Region(RegionSettings(size=(4, 8), inspect=[[[2, 1], [5, 2]]], ignore=[[[5, 2], [5, 2]]]))
        >>> region.inside.astype(int)
        array([[0, 0, 0, 0, 0, 0, 0, 0],
               [0, 0, 1, 1, 1, 1, 0, 0],
               [0, 0, 1, 1, 1, 0, 0, 0],
               [0, 0, 0, 0, 0, 0, 0, 0]])
        >>> region.cut(np.full((4, 8), 255, np.uint8))
        array([[255, 255, 255, 255],
               [255, 255, 255, 128]], dtype=uint8)
    """

    def __init__(self, settings: RegionSettings) -> None:
        self.size = height, width = settings.size
        drawn = Image.new("1", (width, height), color=not settings.inspect)
        pen = ImageDraw.Draw(drawn)
        for shapes, fill in ((settings.inspect, 1), (settings.ignore, 0)):
            for shape in shapes:
                if len(shape) == 2:
                    (x0, y0), (x1, y1) = shape
                    pen.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), fill=fill)
                else:
                    pen.polygon(shape, fill=fill)
        self.inside: NDArray[np.bool_] = np.array(drawn)
        self.inside.flags.writeable = False
        rows, columns = np.flatnonzero(self.inside.any(1)), np.flatnonzero(self.inside.any(0))
        if not rows.size:
            raise BadInputError(
                "train.region: nothing is left to inspect, for `ignore` covers all of `inspect`; make `ignore` smaller"
            )
        self.box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        self.box_size = self.box[0].stop - self.box[0].start, self.box[1].stop - self.box[1].start
        self.share = float(self.inside.mean())
        self._outside = None if self.inside[self.box].all() else ~self.inside[self.box]

    def refusal(self, height: int, width: int) -> str:
        """Why a picture of this size is refused, without its name; "" for one that fits."""
        if (height, width) == self.size:
            return ""
        return (
            f"is {height} x {width} px, but train.region was drawn on pictures of {self.size[0]} x {self.size[1]} px "
            "(height x width); leave such pictures out, or draw the region anew (`morphad region`) and train"
        )

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The box of a picture [H, W] or [H, W, 3], all that is not inspected painted in one colour."""
        cropped = image[self.box]
        if self._outside is None:
            return cropped
        painted = cropped.copy()
        painted[self._outside] = _PAINT
        return painted

    def put_back(self, cropped: NDArray[np.float32], foot: float) -> NDArray[np.float32]:
        """A map [h, w] of the box as one [H, W] of the picture.

        What is not inspected gets the lowest value: `foot`, or that of an inspected place below it.
        """
        lowest = min(foot, float(cropped.min() if self._outside is None else cropped[~self._outside].min()))
        whole = np.full(self.size, lowest, np.float32)
        whole[self.box] = cropped
        if self._outside is not None:
            whole[self.box][self._outside] = lowest
        return whole


@lru_cache(maxsize=4)
def region_of(settings: RegionSettings) -> Region:
    """The region of some settings; drawn once."""
    return Region(settings)
