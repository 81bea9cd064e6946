"""What a page shows of a picture: the whole beside its heatmap, and a part at true size beside its own."""

from dataclasses import dataclass, replace

from morphad.report.pictures import Example, overlay, picture


@dataclass(frozen=True)
class Pair:
    """An image and its heatmap, as data URIs, with what a reader who does not see them is given.

    Attributes:
        picture: The image.
        overlay: The heatmap over it.
        says: What they show.
        width: Of either as it is to be shown, px; None: as there is room.
    """

    picture: str
    overlay: str
    says: str
    width: int | None = None


def pairs(example: Example, scale: tuple[float, float]) -> list[Pair]:
    """What a page shows of an example: the whole, and of a large picture the most abnormal place at true size.

    Args:
        example: Image, heatmap and mask of one size.
        scale: Heatmap values shown as coldest and hottest.
    """
    whole = Pair(picture(example), overlay(example, scale), example.name)
    if (window := example.window) is None:
        return [whole]
    rows, columns = window
    close = replace(
        example,
        image=example.image[window],
        heatmap=example.heatmap[window],
        mask=None if example.mask is None else example.mask[window],
        inspected=None if example.inspected is None else example.inspected[window],
    )
    height, width = close.heatmap.shape
    where = f"row {(rows.start + rows.stop) // 2:,}, column {(columns.start + columns.stop) // 2:,}"
    says = f"the most abnormal {height} x {width} px of {example.name} at true size, around {where}"
    return [whole, Pair(picture(close), overlay(close, scale), says, width)]
