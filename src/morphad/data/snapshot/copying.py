"""The snapshot of a line: its images byte for byte in one folder, each described in the manifest."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa

from morphad.base.errors import BadInputError
from morphad.base.files import atomic_directory, cannot_write, sha256_json
from morphad.base.progress import track
from morphad.data.images import UnreadableImageError
from morphad.data.index import Memory, Remembered, fingerprint
from morphad.data.loading import in_order
from morphad.data.manifest import SCHEMA, to_frame
from morphad.data.snapshot.describing import Content, describe, read, read_mask_file
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
        settings: Limits of size, white level, and the number of rejects that is borne.
        line: The product line's name.

    Returns:
        The manifest in the order of the paths, with the columns of `SCHEMA`, and the rejects in their order.

    Raises:
        BadInputError: More than `settings.max_rejects` images are unreadable, none is readable, two images would have
            one name, or the folder cannot be written.
    """
    _check_collisions(source_images)
    found = dict(_take_all(source_images, {}, destination, settings, line))
    return _tell(source_images, found, settings, line)


def look(sources: Sequence[SourceImage], settings: IngestSettings, line: str) -> tuple[pd.DataFrame, list[Reject]]:
    """Describe images where they lie: as `snapshot`, but nothing is copied, and any number may be unreadable."""
    _check_collisions(sources)
    found = dict(_take_all(sources, {}, None, settings, line))
    return _rows(sources, found, line), _rejects(sources, found)


def refresh(
    sources: Sequence[SourceImage],
    folder: Path,
    settings: IngestSettings,
    line: str,
    *,
    memory: Memory,
) -> tuple[pd.DataFrame, list[Reject]]:
    """Bring a snapshot up to date: as `snapshot`, but images that are as they were are neither read nor decoded again.

    The folder appears whole or not at all, and stays untouched where nothing changed. A run that was killed is gone on
    with. `memory.changes` tells what changed.

    Args:
        sources: What `find_images` found.
        folder: The snapshot; not there at first, or on another machine.
        settings: As for `snapshot`.
        line: The product line's name.
        memory: Of the runs before.
    """
    _check_collisions(sources)
    memory.holds_for("terms", _terms(settings), "image")
    known = memory.images()
    there = _files_in(folder)
    found: dict[str, Remembered] = {}
    stay: list[tuple[SourceImage, Remembered]] = []
    fresh: list[SourceImage] = []
    for source in sources:
        before = known.get(source.name)
        if before is None or not before.source or (before.source, before.mask) != _fingerprints(source):
            fresh.append(source)
        elif _is_reject(before):
            found[source.name] = before
        elif _is_kept(source, before, there):
            found[source.name] = before
            stay.append((source, before))
        else:
            fresh.append(source)
    if fresh or len(there) != sum(1 + bool(image.mask) for _, image in stay):
        with atomic_directory(folder) as temporary:
            _link_all(stay, folder, temporary)
            for name, image in _take_all(fresh, known, temporary, settings, line):
                found[name] = image
                # Without `kept`: that holds once the folder is in its place.
                memory.put_image(name, Remembered(image.source, image.mask, image.found))
            result = _tell(sources, found, settings, line)
        for source in fresh:
            memory.put_image(source.name, found[source.name])
    else:
        result = _tell(sources, found, settings, line)
    _note_changes(known, found, memory)
    memory.forget("image", known.keys() - found.keys())
    return result


def _terms(settings: IngestSettings) -> str:
    """What decides over what is found in given bytes."""
    return sha256_json([VERSION, settings.max_megapixels, settings.max_megabytes, settings.white_level])


def _files_in(folder: Path) -> dict[str, str]:
    """Fingerprints of all files below a folder by their names relative to it; none where there is no folder."""
    found: dict[str, str] = {}

    def scan(path: str, prefix: str) -> None:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    scan(entry.path, f"{prefix}{entry.name}/")
                else:
                    found[prefix + entry.name] = fingerprint(entry.stat(follow_symlinks=False))

    if folder.is_dir():
        scan(str(folder), "")
    return found


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


def _is_kept(source: SourceImage, image: Remembered, there: Mapping[str, str]) -> bool:
    """Whether the snapshot still holds an image and its mask as they were put there."""
    kept, mask = image.kept
    return bool(kept) and there.get(source.name) == kept and (not mask or there.get(_mask_name(source)) == mask)


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


def _link_all(stay: Iterable[tuple[SourceImage, Remembered]], old: Path, new: Path) -> None:
    """Give what stays a second name in the new folder; its bytes are never written again, by nobody."""
    made: set[str] = set()
    for source, image in stay:
        for name in (source.name, _mask_name(source)) if image.mask else (source.name,):
            target = os.path.join(new, name)  # noqa: PTH118 -- a hundred thousand of them
            parent = os.path.dirname(target)  # noqa: PTH120
            if parent not in made:
                Path(parent).mkdir(parents=True, exist_ok=True)
                made.add(parent)
            os.link(os.path.join(old, name), target)  # noqa: PTH118


def _take_all(
    sources: Sequence[SourceImage],
    known: Mapping[str, Remembered],
    destination: Path | None,
    settings: IngestSettings,
    line: str,
) -> Iterator[tuple[str, Remembered]]:
    """Copy, where there is a destination, and describe, in the order given."""
    if destination is not None:
        try:
            for parent in {(destination / name).parent for source in sources for name in _names(source)}:
                parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(destination, error) from error

    def take(source: SourceImage) -> tuple[str, Remembered]:
        return source.name, _take(source, known.get(source.name), destination, settings)

    yield from track(in_order(take, sources), f"reading {line}", total=len(sources))


def _take(
    source: SourceImage, before: Remembered | None, destination: Path | None, settings: IngestSettings
) -> Remembered:
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
    if destination is None:
        return Remembered(_mark(image), _mark(mask), found)
    kept = _put(image.data, destination / source.name, source.file if source.sha256 else None)
    kept_mask = _put(mask.data, destination / _mask_name(source), None) if mask else ""
    return Remembered(_mark(image), _mark(mask), found, (kept, kept_mask))


def _mark(content: Content | None) -> str:
    return content.fingerprint if content else ""


def _is_of(found: str, image: Content, mask: Content | None) -> bool:
    """Whether a description is of these very bytes."""
    known = json.loads(found) if found else {}
    return (known.get("sha256"), known.get("mask_sha256")) == (image.sha256, mask.sha256 if mask else "")


def _put(data: bytes, target: Path, ours: Path | None) -> str:
    """Write bytes, or give the file that holds them, if it is ours, another name; the fingerprint of what is there."""
    try:
        if ours is not None:
            try:
                os.link(ours, target)
                return fingerprint(target.stat())
            except OSError:  # on another disk, or on one without links
                pass
        with target.open("wb", buffering=0) as stream:
            view = memoryview(data)
            while view:
                view = view[stream.write(view) :]
            return fingerprint(os.fstat(stream.fileno()))
    except OSError as error:
        raise cannot_write(target, error) from error


def _names(source: SourceImage) -> list[str]:
    """Of the files that an image has in the snapshot."""
    return [source.name] if source.mask is None else [source.name, _mask_name(source)]


def _mask_name(source: SourceImage) -> str:
    if source.mask is None:
        return ""
    suffix = source.mask.suffix
    return f"masks/{source.name}" + ("" if PurePosixPath(source.name).suffix == suffix else suffix)


def _check_collisions(source_images: Sequence[SourceImage]) -> None:
    taken: dict[str, SourceImage] = {}
    for source in source_images:
        for name in _names(source):
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
            "mask": [_mask_name(source) for source in some],
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
