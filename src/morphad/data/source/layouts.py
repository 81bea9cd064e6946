"""What the names of files say: MVTec AD layout, folders of good and of defect images, a flat folder of good ones, or
nothing where metadata say.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from morphad.base.errors import BadInputError
from morphad.data.images import SUFFIXES

SPLITS = ("train", "validation", "test")

# What folders of good and of defect images are called in plants, in any case; io and nio are German: in Ordnung, nicht.
GOOD = frozenset({"good", "ok", "io", "gut", "pass", "passed"})
DEFECT = frozenset({"defect", "defects", "defective", "bad", "ng", "nok", "nio", "schlecht", "fail", "failed"})


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
    if not nested:
        return [Placed(name, "good") for name in names]
    if len(nested) == len(names) and (placed := _from_two_folders(names)):
        return placed
    raise BadInputError(
        f"{root}: {some(nested)} lie in subfolders, and a flat folder holds good images only; arrange them as good/ "
        "and defect/ (kinds of defect as defect/<kind>) or as train/good, test/good, test/<kind>, say where labels are "
        "(ingest.metadata), or give a listing (ingest.source: listing)"
    )


def _from_two_folders(names: Sequence[str]) -> list[Placed]:
    """Images below one folder of good ones and one of defects, whose own folders are kinds; [] for other folders."""
    masks = {name for name in names if name.startswith(_MASKS)}
    pictures = [name for name in names if name not in masks]
    tops = {name.split("/", 1)[0] for name in pictures}
    good, defect = ({top for top in tops if top.lower() in words} for words in (GOOD, DEFECT))
    if len(good) != 1 or len(defect) > 1 or tops != good | defect:
        return []
    by_stem = {_stem(name): name for name in sorted(masks, reverse=True)}
    placed = []
    for name in pictures:
        top, *between, _ = name.split("/")
        if top in good:
            placed.append(Placed(name, "good", origin=top))
        else:
            stem = _MASKS + _stem(name)
            mask = by_stem.get(f"{stem}_mask") or by_stem.get(stem, "")
            placed.append(Placed(name, "defect", between[0] if between else "", top, mask))
    return placed


_MASKS = "ground_truth/"


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
        if kind != "good" and kind.lower() in GOOD:
            raise BadInputError(
                f"{root}: is {split}/{kind} good, or a kind of defect? If its images are good, rename it to "
                f"{split}/good; if not, give it the name of the defect"
            )
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


def endings(names: Iterable[str]) -> dict[str, int]:
    """How many files have each ending, most first, such as {".txt": 10, "no ending": 1}."""
    return dict(Counter(PurePosixPath(name).suffix.lower() or "no ending" for name in names).most_common())


def files_below(root: Path, aside: list[str] | None = None) -> list[str]:
    """Images and JSON files below a folder, relative to it and sorted; hidden files and folders are left out.

    Args:
        root: The folder.
        aside: Gets the names of all other files that are not hidden.

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
            elif aside is not None and entry.is_file():
                aside.append(prefix + entry.name)

    scan(str(root), "")
    return sorted(found)


def some(names: Iterable[str | PurePosixPath]) -> str:
    """The first three names, and how many more."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122
