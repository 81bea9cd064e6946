"""What the names of files say: MVTec AD layout, a flat folder of good images, or nothing where metadata say."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from morphad.base.errors import BadInputError
from morphad.data.images import SUFFIXES

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Placed:
    """An image by its place among the others.

    Attributes:
        name: Its path below the root, posix.
        label: "good" or "defect"; "" where the place does not say.
        defect: The kind of defect; "" for good.
        origin: The published or given part it comes from, such as "train/good"; "" unknown.
        mask: Path of its mask below the root; "" for none.
    """

    name: str
    label: str
    defect: str = ""
    origin: str = ""
    mask: str = ""


def is_image(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return f".{name.rpartition('.')[2].lower()}" in SUFFIXES


def arrange(names: Sequence[str], root: str, labelled: bool) -> list[Placed]:
    """What the places of images say of them.

    Args:
        names: Of all image files below the root, sorted, posix.
        root: The folder or prefix, for messages.
        labelled: Labels come from metadata, and places say nothing.

    Raises:
        BadInputError: Images lie where no layout has a place for them, or a mask has no image.
    """
    if labelled:
        return [Placed(name, "", origin=name.rpartition("/")[0]) for name in names]
    if any(name.split("/", 1)[0] in SPLITS for name in names if "/" in name):
        return _from_mvtec(names, root)
    nested = [name for name in names if "/" in name]
    if nested:
        raise BadInputError(
            f"{root}: {some(nested)} lie in subfolders, and a flat folder holds good images only; arrange them as "
            "train/good, test/good, test/<defect kind>, say where labels are (ingest.metadata), or give a listing "
            "(ingest.source: listing)"
        )
    return [Placed(name, "good") for name in names]


def _from_mvtec(names: Sequence[str], root: str) -> list[Placed]:
    masks = {name for name in names if name.startswith("ground_truth/")}
    pictures = [name for name in names if name not in masks]
    stray = [name for name in pictures if name.split("/", 1)[0] not in SPLITS or name.count("/") < 2]
    if stray:
        raise BadInputError(
            f"{root}: {some(stray)} lie outside {', '.join(f'{split}/<kind>' for split in SPLITS)} and ground_truth; "
            "move them where they belong, or out of the folder"
        )
    by_stem = {_stem(name): name for name in sorted(masks, reverse=True)}
    used: set[str] = set()
    images = []
    for name in pictures:
        split, kind, _ = name.split("/", 2)
        place = "ground_truth" + _stem(name).removeprefix(split)
        mask = "" if split == "train" else by_stem.get(f"{place}_mask") or by_stem.get(place, "")
        if mask:
            used.add(mask)
        good = kind == "good"
        images.append(Placed(name, "good" if good else "defect", "" if good else kind, f"{split}/{kind}", mask))
    if masks - used:
        raise BadInputError(
            f"{root}: {some(sorted(masks - used))} mask no image; a mask is ground_truth/<kind>/<name>_mask.png or "
            "<name>.png of test/<kind>/<name>.*: add the image, or remove the mask"
        )
    return images


def files_below(root: Path) -> list[str]:
    """Images and JSON files below a folder, relative to it and sorted; hidden files and folders are left out.

    Raises:
        BadInputError: A folder cannot be listed, or a link leads out of it.
    """
    home = root.resolve()
    found: list[str] = []

    def scan(folder: str, prefix: str) -> None:
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise BadInputError(
                f"{folder}: cannot list this folder ({error.strerror}); check its permissions"
            ) from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(home):
                raise BadInputError(f"{entry.path}: a link that leads out of {root}; put the files themselves there")
            if entry.is_dir(follow_symlinks=False):
                scan(entry.path, f"{prefix}{entry.name}/")
            elif (is_image(entry.name) or entry.name.endswith(".json")) and entry.is_file():
                found.append(prefix + entry.name)

    scan(str(root), "")
    return sorted(found)


def some(names: Iterable[str | PurePosixPath]) -> str:
    """The first three names, and how many more."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122
