"""The pictures of a line, byte for byte as they came, each described in the manifest."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from morphad.base.errors import BadInputError
from morphad.base.files import sha256_json
from morphad.base.progress import track
from morphad.data.images import UnreadableImageError
from morphad.data.index import Memory, Remembered, fingerprint
from morphad.data.loading import in_order
from morphad.data.manifest import SCHEMA, to_frame
from morphad.data.pictures import Pictures
from morphad.data.snapshot.describing import Content, describe, read, read_mask_file
from morphad.data.snapshot.keeping import Keep, copies_in, keeper_for, mask_name, names_of
from morphad.data.snapshot.statistics import VERSION
from morphad.data.source.image import SourceImage
from morphad.settings import IngestSettings

_GIVEN = ("label", "defect", "group", "lot", "shift", "camera", "origin", "acquired")


@dataclass(frozen=True)
class Reject:
    """A source image that was left out, and why."""

    name: str
    reason: str


def snapshot(
    source_images: Sequence[SourceImage], destination: Path, settings: IngestSettings, line: str
) -> tuple[pd.DataFrame, list[Reject]]:
    """Copy images and masks byte for byte into a folder and describe each; every file is read and decoded once.

    Images keep their names; the mask of an image goes to masks/ under the image's name.

    Args:
        source_images: What `find_images` found.
        destination: A folder that holds none of them, made if need be.
        settings: Limits of size, white level, and the number of rejects that is allowed.
        line: The product line's name.

    Returns:
        The manifest in the order of the paths, with the columns of `SCHEMA`, and the rejects in their order.

    Raises:
        BadInputError: More than `settings.max_rejects` images are unreadable, none is readable, two images would have
            one name, or the folder cannot be written.
    """
    _check_collisions(source_images)
    found = dict(_take_all(source_images, {}, copies_in(destination, source_images), settings, line))
    return _tell(source_images, found, settings, line)


def look(sources: Sequence[SourceImage], settings: IngestSettings, line: str) -> tuple[pd.DataFrame, list[Reject]]:
    """Describe images where they lie: as `snapshot`, but nothing is copied, and any number may be unreadable."""
    _check_collisions(sources)
    found = dict(_take_all(sources, {}, None, settings, line))
    return _rows(sources, found, line), _rejects(sources, found)


def refresh(
    sources: Sequence[SourceImage],
    pictures: Pictures,
    settings: IngestSettings,
    line: str,
    *,
    memory: Memory,
) -> tuple[pd.DataFrame, list[Reject]]:
    """Bring a line's pictures up to date: as `snapshot`, but what is as it was is neither read nor decoded again.

    A snapshot appears whole or not at all, and stays untouched where nothing changed. A store gets what it does not
    have yet. A run that was killed is gone on with. `memory.changes` says what changed.

    Args:
        sources: What `find_images` found.
        pictures: Where they get to; not there at first, or on another machine.
        settings: As for `snapshot`.
        line: The product line's name.
        memory: Of the runs before.
    """
    _check_collisions(sources)
    memory.holds_for("terms", _terms(settings), "image")
    known = memory.images()
    keeper = keeper_for(pictures)
    found: dict[str, Remembered] = {}
    stay: list[tuple[SourceImage, Remembered]] = []
    fresh: list[SourceImage] = []
    for source in sources:
        before = known.get(source.name)
        if before is None or not before.source or (before.source, before.mask) != _fingerprints(source):
            fresh.append(source)
        elif _is_reject(before):
            found[source.name] = before
        elif keeper.has(source, before):
            found[source.name] = before
            stay.append((source, before))
        else:
            fresh.append(source)
    renewal = keeper.renewal(stay, fresh)
    if renewal is None:
        result = _tell(sources, found, settings, line)
    else:
        with renewal as keep:
            for name, image in _take_all(fresh, known, keep, settings, line):
                found[name] = image
                # Without `kept`: that holds once all of them are in their place.
                memory.put_image(name, Remembered(image.source, image.mask, image.found))
            result = _tell(sources, found, settings, line)
        for source in fresh:
            memory.put_image(source.name, found[source.name])
    _note_changes(known, found, memory)
    memory.forget("image", known.keys() - found.keys())
    return result


def _terms(settings: IngestSettings) -> str:
    """What decides over what is found in given bytes."""
    return sha256_json([VERSION, settings.max_megapixels, settings.max_megabytes, settings.white_level])


def _fingerprints(source: SourceImage) -> tuple[str, str]:
    """Of an image's file and its mask's; "" for a file that is not there."""
    if source.refused:
        return source.refused, ""
    return _fingerprint(source.file), "" if source.mask is None else _fingerprint(source.mask)


def _fingerprint(file: Path) -> str:
    try:
        return fingerprint(os.stat(file))  # noqa: PTH116 -- a hundred thousand of them: Path.stat costs as much again
    except OSError:
        return ""


def _is_reject(image: Remembered) -> bool:
    return image.found.startswith('{"reason"')


def _note_changes(known: Mapping[str, Remembered], found: Mapping[str, Remembered], memory: Memory) -> None:
    """Against what the last whole run put into the snapshot."""
    for name, image in found.items():
        before = known.get(name)
        if _is_reject(image):
            continue
        if before is None or not before.kept[0]:
            memory.changes.new.append(name)
        elif before.found != image.found:
            memory.changes.changed.append(name)
    memory.changes.gone += sorted(
        name for name, before in known.items() if before.kept[0] and (name not in found or _is_reject(found[name]))
    )


def _take_all(
    sources: Sequence[SourceImage],
    known: Mapping[str, Remembered],
    keep: Keep | None,
    settings: IngestSettings,
    line: str,
) -> Iterator[tuple[str, Remembered]]:
    """Describe, and keep where there is a place for it, in the order given."""

    def take(source: SourceImage) -> tuple[str, Remembered]:
        return source.name, _take(source, known.get(source.name), keep, settings)

    yield from track(in_order(take, sources), f"reading {line}", total=len(sources))


def _take(source: SourceImage, before: Remembered | None, keep: Keep | None, settings: IngestSettings) -> Remembered:
    if source.refused:
        return Remembered(source.refused, "", json.dumps({"reason": source.refused}))
    image = mask = None
    try:
        ours = bool(source.sha256)
        image = read(source.file, source.name, settings.max_megabytes, ours)
        if ours and image.sha256 != source.sha256:
            raise BadInputError(f"{source.file}: is not what was fetched from the bucket; remove it and ingest again")
        if source.mask is not None:
            mask = read_mask_file(source.mask, settings.max_megabytes, ours)
        found = before.found if before else ""
        if not _is_of(found, image, mask):
            found = json.dumps(describe(image, mask, settings))
    except UnreadableImageError as error:
        return Remembered(_mark(image), _mark(mask), json.dumps({"reason": error.reason}))
    kept = ("", "") if keep is None else keep(source, image, mask)
    return Remembered(_mark(image), _mark(mask), found, kept)


def _mark(content: Content | None) -> str:
    return content.fingerprint if content else ""


def _is_of(found: str, image: Content, mask: Content | None) -> bool:
    """Whether a description is of these very bytes."""
    known = json.loads(found) if found else {}
    return (known.get("sha256"), known.get("mask_sha256")) == (image.sha256, mask.sha256 if mask else "")


def _check_collisions(source_images: Sequence[SourceImage]) -> None:
    taken: dict[str, SourceImage] = {}
    for source in source_images:
        for name in names_of(source):
            if name in taken:
                files = [image.file if name == image.name else image.mask for image in (taken[name], source)]
                raise BadInputError(f"{files[0]} and {files[1]} would both be {name} in the snapshot; rename one")
            taken[name] = source


def _tell(
    sources: Sequence[SourceImage], found: Mapping[str, Remembered], settings: IngestSettings, line: str
) -> tuple[pd.DataFrame, list[Reject]]:
    """Manifest and rejects of what was found."""
    rejects = _rejects(sources, found)
    if len(rejects) > settings.max_rejects or len(rejects) == len(sources):
        raise BadInputError(_explain(rejects, len(sources), settings.max_rejects))
    return _rows(sources, found, line), rejects


def _rejects(sources: Sequence[SourceImage], found: Mapping[str, Remembered]) -> list[Reject]:
    return [
        Reject(source.name, json.loads(found[source.name].found)["reason"])
        for source in sources
        if _is_reject(found[source.name])
    ]


def _rows(sources: Sequence[SourceImage], found: Mapping[str, Remembered], line: str) -> pd.DataFrame:
    used = sorted((s for s in sources if not _is_reject(found[s.name])), key=lambda source: source.name)
    remaining = iter(used)
    batches = []
    while some := list(islice(remaining, 4096)):  # what was found is large when it is unpacked
        unpacked = json.loads(f"[{','.join(found[source.name].found for source in some)}]")
        columns: dict[str, list[Any]] = {
            "path": [source.name for source in some],
            "line": [line] * len(some),
            "mask": [mask_name(source) for source in some],
            **{key: [getattr(source, key) for source in some] for key in _GIVEN},
        }
        columns |= {name: [row[name] for row in unpacked] for name in SCHEMA.names if name not in columns}
        batches.append(pa.RecordBatch.from_pydict(columns, SCHEMA))
    return to_frame(pa.Table.from_batches(batches, SCHEMA))


def _explain(rejects: Sequence[Reject], count: int, allowed: int) -> str:
    listed = "".join(f"\n  {reject.name}: {reject.reason}" for reject in rejects[:10])
    more = f"\n  and {len(rejects) - 10} more" if len(rejects) > 10 else ""
    return (
        f"{len(rejects)} of {count} images cannot be used, {allowed} may be left out:{listed}{more}\n"
        "replace or remove them, or raise ingest.max_rejects"
    )
