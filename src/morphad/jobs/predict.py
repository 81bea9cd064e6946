"""Verdicts on image files that somebody names."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from morphad.base.errors import BadInputError
from morphad.data.images import SUFFIXES, decode
from morphad.data.source.layouts import files_below, is_image
from morphad.data.source.worklist import open_files
from morphad.inspection import Answer, Model, answered
from morphad.report.pictures import write_heatmap
from morphad.settings import IngestSettings


def find_to_predict(places: Sequence[Path], heatmaps: Path | None = None) -> list[tuple[Path, Path | None]]:
    """The image files among files and folders, in order, each with the file for its heatmap.

    Args:
        places: Image files, and folders with image files at any depth.
        heatmaps: Folder for NAME.png of each file; heatmaps of a folder's files lie in it as those do in theirs.

    Raises:
        BadInputError: A folder holds no images, or two images would have the same heatmap.
    """
    found: list[tuple[Path, Path]] = []
    for place in places:
        if not place.is_dir():
            found.append((place, Path(f"{place.stem}.png")))
            continue
        names = [name for name in files_below(place) if is_image(name)]
        if not names:
            raise BadInputError(f"{place}: a folder without images; expected {', '.join(sorted(SUFFIXES))}")
        found += [(place / name, Path(name).with_suffix(".png")) for name in names]
    if heatmaps is None:
        return [(file, None) for file, _ in found]
    if twice := [name for name, count in Counter(name for _, name in found).items() if count > 1]:
        raise BadInputError(
            f"{heatmaps / twice[0]}: several images would have this heatmap; predict them into different folders"
        )
    return [(file, heatmaps / name) for file, name in found]


def predict(
    model: Model, images: Sequence[tuple[Path, Path | None]], settings: IngestSettings
) -> Iterator[tuple[Path, Answer]]:
    """Score image files, in order; an image that cannot be read is no error: its answer says why.

    Args:
        model: Who scores.
        images: What `find_to_predict` found; heatmaps are written as PNG, on the line's fixed scale.
        settings: How large a file may be.

    Raises:
        BadInputError: A heatmap cannot be written.
        ServiceError: The model's process ended.
    """
    opened = open_files([file for file, _ in images], settings.max_megabytes)
    answers = answered(model, opened, heatmaps=any(drawn for _, drawn in images))
    for (file, drawn), (image, answer) in zip(images, answers, strict=True):
        if drawn is not None and answer.heatmap is not None and image.data is not None:
            write_heatmap(drawn, decode(image.data, model.decoding, grey=True).pixels, answer.heatmap, (0.0, 1.0))
        yield file, answer
