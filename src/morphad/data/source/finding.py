"""Where a line's images come from: a folder, a bucket, a listing, the packaged demonstration set."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from morphad.base.errors import BadInputError
from morphad.base.text import masked
from morphad.data.images import SUFFIXES
from morphad.data.index import Memory
from morphad.data.source.demo import DEMO_LICENCE, demo_images
from morphad.data.source.image import SourceImage
from morphad.data.source.layouts import Placed, arrange, files_below, is_image
from morphad.data.source.listing import read_listing
from morphad.data.source.metadata import Fields, gather
from morphad.settings import IngestSettings

_LARGEST_SIDECAR = 1 << 20  # bytes


def find_images(
    settings: IngestSettings, memory: Memory | None = None, aside: list[str] | None = None
) -> list[SourceImage]:
    """The images of a line, sorted by name, thinned to `settings.limit` of good and of each defect kind.

    Args:
        settings: Of the line.
        memory: Where objects of a bucket are kept; other sources need none.
        aside: Gets the names of the files of a folder or bucket that are neither images nor metadata.

    Raises:
        BadInputError: The source is missing, empty, or contradicts itself; the message names the file, row or column.
        ServiceError: The bucket's server refused or did not answer.
    """
    if settings.source == "s3":
        if memory is None:
            raise BadInputError(f"{settings.path}: images in a bucket are ingested first; give a folder here")
        return _from_bucket(settings, memory, aside)
    if settings.source == "folder":
        return _chosen(_from_folder(settings, aside), settings)
    find = {"listing": _from_listing, "demo": demo_images}[settings.source]
    return _chosen(find(settings), settings)


def _from_folder(settings: IngestSettings, aside: list[str] | None) -> list[SourceImage]:
    root = Path(settings.path)
    if not root.is_dir():
        raise BadInputError(f"{root}: {'not a folder' if root.exists() else 'folder not found'}; set ingest.path")
    files = files_below(root, aside)
    if aside is not None and not settings.metadata.sidecar:
        aside += [name for name in files if not is_image(name)]

    def sidecars(names: Sequence[str]) -> Iterator[bytes | None]:
        there = set(files)
        for name in names:
            yield _read_sidecar(root / name) if name in there else None

    def tags(names: Sequence[str]) -> Iterator[Mapping[str, str]]:
        raise AssertionError("settings allow tags for source s3 only")

    placed = arrange([name for name in files if is_image(name)], settings.path, _is_labelled(settings))
    fields = gather([image.name for image in placed], settings, sidecars=sidecars, tags=tags)
    return [_image(root, image, own) for image, own in zip(placed, fields, strict=True)]


def _from_bucket(settings: IngestSettings, memory: Memory, aside: list[str] | None) -> list[SourceImage]:
    from morphad.data.source.mirror import Mirror  # noqa: PLC0415 -- boto3 needs half a second

    mirror = Mirror(settings, memory, aside)
    names = [name for name in mirror.names if is_image(name)]
    if aside is not None:
        sidecars_of = ".json" if settings.metadata.sidecar else ()
        aside += [name for name in mirror.names if not is_image(name) and not name.endswith(sidecars_of)]
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


def licence(settings: IngestSettings) -> str:
    """What the source's licence asks to be said with its images; empty where the images are the user's own."""
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
