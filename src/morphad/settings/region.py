"""Block `train.region`: what of a picture is inspected."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from morphad.settings.base import Settings

MOST_POINTS = 300  # of a list of shapes: settings travel as text, and MLflow keeps 6,000 characters a parameter

_MOST_PIXELS = 1_000_000_000  # as ingest.max_megapixels allows

_Pixel = Annotated[int, Field(ge=0)]
Point = Annotated[tuple[_Pixel, _Pixel], Field(strict=False)]
Shape = Annotated[tuple[Point, ...], Field(min_length=2, strict=False)]


class RegionSettings(Settings):
    """What of a picture is inspected, in its own pixels; what lies outside counts nowhere."""

    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        strict=False, description="height, width in px of the pictures that it was drawn on; others are refused"
    )
    inspect: tuple[Shape, ...] = Field(
        default=(),
        strict=False,
        description="shapes whose pixels are inspected: each a polygon [[x, y], [x, y], [x, y], ...] or, with two "
        "points, the rectangle between these corners; pixels count from 0 at the top left, those of the outline belong "
        "to the shape; empty: the whole picture",
    )
    ignore: tuple[Shape, ...] = Field(
        default=(), strict=False, description="shapes, as in inspect, whose pixels are not inspected all the same"
    )

    anchor: str = Field(
        default="",
        pattern="^([0-9a-f]{12,64})?$",
        description="with train.align: SHA-256 of the good picture, 12 digits or more, whose part lies where the "
        "shapes have it; `morphad region` prints it",
    )

    @model_validator(mode="after")
    def _shapes_fit_the_picture(self) -> Self:
        height, width = self.size
        if height * width > _MOST_PIXELS:
            raise ValueError(f"`size` [{height}, {width}] is more than 1,000 megapixels; give that of the pictures")
        for key, shapes in (("inspect", self.inspect), ("ignore", self.ignore)):
            if (count := sum(map(len, shapes))) > MOST_POINTS:
                raise ValueError(
                    f"`{key}` has {count} points, at most {MOST_POINTS} are possible; leave points out where the "
                    "outline is nearly straight"
                )
            for place, (x, y) in _points(shapes):
                if x >= width or y >= height:
                    raise ValueError(
                        f"`{key}`{place} = [{x}, {y}] lies outside the picture: x is 0 to {width - 1} and y is 0 to "
                        f"{height - 1} where `size` is [{height}, {width}] (height, width)"
                    )
        if not self.inspect and not self.ignore:
            raise ValueError("neither `inspect` nor `ignore` has a shape; give one, or leave `region` out")
        return self


def _points(shapes: tuple[tuple[tuple[int, int], ...], ...]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each point of shapes, with its place in them such as "[0][2]"."""
    for i, shape in enumerate(shapes):
        for j, point in enumerate(shape):
            yield f"[{i}][{j}]", point
