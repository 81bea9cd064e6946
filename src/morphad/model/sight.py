"""How large the network sees the pictures of a line, in words: before a training, and on pages."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from morphad.base.wording import counted, percent
from morphad.model.resolution import defect_px, looked_at, resolved, tile_count
from morphad.settings import TrainSettings


@dataclass(frozen=True)
class Sight:
    """How large the network sees the pictures of a line.

    Attributes:
        picture: Height and width, px, of the pictures, the median where they differ, or of the box around the region.
        region: Whether it is that box.
        defect: Side of the smallest defect that is to be found, px; None: nobody said.
        whole: Height and width, px, that the whole picture is seen at.
        tiled: Those of what is cut into tiles; None: there are none.
    """

    picture: tuple[int, int]
    region: bool
    defect: float | None
    whole: tuple[int, int]
    tiled: tuple[int, int] | None

    @classmethod
    def of(cls, settings: TrainSettings, sizes: Iterable[tuple[int, int]]) -> "Sight":
        """What settings make of pictures of such sizes, as `resolved` decides it, and with its errors.

        Example:
            >>> from morphad.settings.presets import train_settings
            >>> sight = Sight.of(train_settings({"resolution": {"smallest_defect": 12}}), [(2048, 2448)])
            >>> sight.says_for_the_defect()
            'a defect of 12 px: 12 tiles a picture beside the whole picture'
        """
        sizes = list(sizes)
        found = resolved(settings, sizes)
        assert found.image_size is not None  # noqa: S101 -- resolved
        tiled = found.resolution.tiled_size
        picture = _median(looked_at(settings, sizes))
        return cls(picture, settings.region is not None, defect_px(settings), found.image_size, tiled)

    @property
    def tiles(self) -> int:
        """How many a picture has."""
        return 0 if self.tiled is None else tile_count(self.tiled)

    def says_for_the_defect(self) -> str:
        """What it takes to find the smallest defect."""
        if self.tiled is not None:
            return f"{self._named}: {counted(self.tiles, 'tile')} a picture beside the whole picture"
        large = counted(round((self.defect or 0) * _scale(self.whole, self.picture)), "px", "px")
        return f"{self._named}: no tiles, as it is about {large} large in the whole picture, which is enough"

    def sentences(self) -> list[str]:
        """What is seen, and how large, for a page."""
        what = "The box around the region" if self.region else "A picture"
        said = [f"{what}, {_px(self.picture)}, is seen whole at {_px(self.whole)}: {self._share(self.whole)}."]
        if self.tiled is None:
            return [*said, "There are no tiles."]
        cut = f"{counted(self.tiles, 'tile')} cut from it at {_px(self.tiled)}: {self._share(self.tiled)}"
        said.append(f"It is also seen in {cut}.")
        if self.defect is not None:
            large = round(self.defect * _scale(self.tiled, self.picture))
            said.append(f"There {self._named} is about {large} px large.")
        return said

    @property
    def _named(self) -> str:
        return f"a defect of {self.defect or 0:.4g} px"

    def _share(self, seen: tuple[int, int]) -> str:
        return f"{percent(_scale(seen, self.picture), 0)} of its scale"


def _median(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    return round(median(height for height, _ in sizes)), round(median(width for _, width in sizes))


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]:,} x {size[1]:,} px"


def _scale(seen: tuple[int, int], picture: tuple[int, int]) -> float:
    """How large a pixel of the pictures is there, along the side that is shrunk more."""
    return min(seen[0] / picture[0], seen[1] / picture[1])
