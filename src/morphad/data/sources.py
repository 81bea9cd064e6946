"""Where a line's images come from: a folder, a bucket, a listing, the packaged demonstration set."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from morphad.base.errors import BadInputError
from morphad.base.text import masked
from morphad.data.images import SUFFIXES
from morphad.data.layouts import Placed, arrange, files_below, is_image
from morphad.data.listing import read_listing
from morphad.data.memory import Memory
from morphad.data.metadata import Fields, gather
from morphad.settings import IngestSettings

_LARGEST_SIDECAR = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image as its source knows it, not yet opened.

    Attributes:
        root: The folder that it is in or below, the same object for all: a path of its own for each takes 460 bytes.
        name: Its path below the root, and within the snapshot: relative, posix, no "..".
        label: "good" or "defect".
        defect: The kind of defect; "" for good.
        origin: The published or given part it comes from, such as "train/good"; "" unknown.
        mask: The file that marks the defect's pixels, where there is one.
        group: What it must not be parted from; "" unknown.
        lot: "" unknown.
        shift: "" unknown.
        camera: "" unknown.
        acquired: When it was taken, ISO 8601; "" unknown.
        sha256: Of its bytes, where they are in a file of ours that nobody else writes to; "" elsewhere.
        refused: Why it is left out before its bytes are looked at; "" where it is not.
    """

    root: Path
    name: str
    label: str
    defect: str = ""
    origin: str = ""
    mask: Path | None = None
    group: str = ""
    lot: str = ""
    shift: str = ""
    camera: str = ""
    acquired: str = ""
    sha256: str = ""
    refused: str = ""

    @property
    def file(self) -> Path:
        """Where its bytes are."""
        return self.root / self.name


def find_images(settings: IngestSettings, memory: Memory | None = None) -> list[SourceImage]:
    """The images of a line, sorted by name, thinned to `settings.limit` of good and of each defect kind.

    Args:
        settings: Of the line.
        memory: Where objects of a bucket are kept; other sources need none.

    Raises:
        BadInputError: The source is missing, empty, or contradicts itself; the message names the file, row or column.
        ServiceError: The bucket's server refused or did not answer.
    """
    if settings.source == "s3":
        if memory is None:
            raise BadInputError(f"{settings.path}: images in a bucket are ingested first; give a folder here")
        return _from_bucket(settings, memory)
    find = {"folder": _from_folder, "listing": _from_listing, "demo": _from_demo}[settings.source]
    return _chosen(find(settings), settings)


def too_large(size: int, max_megabytes: float) -> str:
    """Why a file of so many bytes is refused; "" where it is not."""
    if size <= max_megabytes * 1e6:
        return ""
    return f"is {size / 1e6:,.0f} MB large; at most {max_megabytes:g} MB (ingest.max_megabytes)"


def _from_folder(settings: IngestSettings) -> list[SourceImage]:
    root = Path(settings.path)
    if not root.is_dir():
        raise BadInputError(f"{root}: {'not a folder' if root.exists() else 'folder not found'}; set ingest.path")
    files = files_below(root)

    def sidecars(names: Sequence[str]) -> Iterator[bytes | None]:
        there = set(files)
        for name in names:
            yield _read_sidecar(root / name) if name in there else None

    def tags(names: Sequence[str]) -> Iterator[Mapping[str, str]]:
        raise AssertionError("settings allow tags for source s3 only")

    placed = arrange([name for name in files if is_image(name)], settings.path, _is_labelled(settings))
    fields = gather([image.name for image in placed], settings, sidecars=sidecars, tags=tags)
    return [_image(root, image, own) for image, own in zip(placed, fields, strict=True)]


def _from_bucket(settings: IngestSettings, memory: Memory) -> list[SourceImage]:
    from morphad.data.mirror import Mirror  # noqa: PLC0415 -- boto3 takes half a second

    mirror = Mirror(settings, memory)
    names = [name for name in mirror.names if is_image(name)]
    placed = arrange(names, settings.path, _is_labelled(settings))

    def sidecars(wanted: Sequence[str]) -> Iterator[bytes | None]:
        there = [name for name in wanted if name in mirror.names]
        mirror.fetch(there, f"fetching metadata of {settings.path}")
        for name in wanted:
            yield _read_sidecar(mirror.root / name) if name in mirror.names else None

    fields = gather([image.name for image in placed], settings, sidecars=sidecars, tags=mirror.tags)
    images = _chosen([_image(mirror.root, *pair) for pair in zip(placed, fields, strict=True)], settings)
    return mirror.bring(images)


def _is_labelled(settings: IngestSettings) -> bool:
    return bool(settings.metadata.fields & {"label", "defect"})


def _image(root: Path, placed: Placed, fields: Fields) -> SourceImage:
    given = {"label": placed.label, "defect": placed.defect}
    if fields:
        given |= {field: value for field, value in fields.items() if value or field not in given}
    mask = root / placed.mask if placed.mask else None
    return SourceImage(root, placed.name, origin=placed.origin, mask=mask, **given)


def _read_sidecar(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            text = stream.read(_LARGEST_SIDECAR + 1)
    except OSError as error:
        raise BadInputError(f"{file}: cannot be read ({error.strerror or error}); check its permissions") from error
    if len(text) > _LARGEST_SIDECAR:
        raise BadInputError(f"{file}: is over 1 MB large, too much for a few words on one image; move it elsewhere")
    return text


def _from_listing(settings: IngestSettings) -> list[SourceImage]:
    root = Path(settings.path).parent.resolve()
    return [
        SourceImage(root, row.name, row.label, row.defect, mask=row.mask, **row.given)
        for row in read_listing(settings.path)
    ]


def _from_demo(settings: IngestSettings) -> list[SourceImage]:
    """Cells of photovoltaic modules: good where experts are sure, defective where they are, the doubtful left out."""
    if settings.path not in {"mono", "poly"}:
        raise BadInputError(f"ingest.path = {settings.path!r}: the demo lines are mono and poly")
    try:
        package = resources.files("elpv_dataset")
    except ModuleNotFoundError as error:
        raise BadInputError('the demo images are not installed; run: pip install "morphad[demo]"') from error
    folder = Path(str(package)) / "data"
    images = []
    for row in (folder / "labels.csv").read_text(encoding="utf-8").splitlines():
        name, probability, kind = row.split()
        if kind == settings.path and float(probability) in {0.0, 1.0}:
            good = float(probability) == 0
            images.append(SourceImage(folder, name, "good" if good else "defect", "" if good else "defective", "elpv"))
    return images


DEMO_LICENCE = (
    "Images: elpv-dataset (Buerhop-Lutz et al., 2018; Deitsch et al., 2019, 2021), ZAE Bayern, CC BY-NC-SA 4.0: "
    "for trying morphad out, not for commercial use."
)


def licence(settings: IngestSettings) -> str:
    """What the source's licence asks to be told with its images; empty where the images are the user's own."""
    return masked(settings.licence) or (DEMO_LICENCE if settings.source == "demo" else "")


def _chosen(images: list[SourceImage], settings: IngestSettings) -> list[SourceImage]:
    if not images:
        raise BadInputError(f"{settings.path}: no images found; expected files ending in {', '.join(sorted(SUFFIXES))}")
    images.sort(key=lambda image: image.name)
    _check_names(images)
    return images if settings.limit is None else _thinned(images, settings.limit)


def _check_names(images: Sequence[SourceImage]) -> None:
    for image in images:
        # Control characters, and bytes that are not UTF-8, which no table or page can hold.
        name = image.name
        if not name.isprintable() and any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
            raise BadInputError(f"{name!a}: the file name holds characters that cannot be printed; rename it")


def _thinned(images: Sequence[SourceImage], limit: int) -> list[SourceImage]:
    """At most `limit` of good and of each kind of defect, evenly spaced, so that a line's whole time is represented."""
    kinds: dict[tuple[str, str], list[SourceImage]] = {}
    for image in images:
        kinds.setdefault((image.label, image.defect), []).append(image)
    kept: list[SourceImage] = []
    for same in kinds.values():
        count = min(limit, len(same))
        kept += [same[position * len(same) // count] for position in range(count)]
    return sorted(kept, key=lambda image: image.name)
