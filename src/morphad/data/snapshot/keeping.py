"""Where the files of images and masks get to: a snapshot's folder, a store, or nowhere where they stay in place."""

import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath

from morphad.base.files import atomic_directory, cannot_write, put_if_free
from morphad.data.index import Remembered, fingerprint
from morphad.data.pictures import InPlace, Pictures, Snapshot, Store
from morphad.data.snapshot.describing import Content
from morphad.data.source.image import SourceImage

# Puts the bytes of an image and its mask where they belong; gives the fingerprints of the two files.
Keep = Callable[[SourceImage, Content, Content | None], tuple[str, str]]
Stay = Sequence[tuple[SourceImage, Remembered]]

_STAYS = "in place"  # in place of a fingerprint, for an image that is not copied


class Keeper(ABC):
    """What becomes of the files of a line's images."""

    @abstractmethod
    def has(self, source: SourceImage, before: Remembered) -> bool:
        """Whether an image and its mask are there as they were put there."""

    @abstractmethod
    def renewal(self, stay: Stay, fresh: Sequence[SourceImage]) -> AbstractContextManager[Keep] | None:
        """A block within which fresh images are kept beside those that stay; None where all is as it should be."""


def keeper_for(pictures: Pictures) -> Keeper:
    """The keeper of pictures that lie there."""
    if isinstance(pictures, Snapshot):
        return _InFolder(pictures.folder)
    if isinstance(pictures, InPlace):
        return _LeftInPlace(pictures.store)
    assert isinstance(pictures, Store)  # noqa: S101
    return _InStore(pictures)


def names_of(source: SourceImage) -> list[str]:
    """Of the files that an image has in the snapshot."""
    return [source.name] if source.mask is None else [source.name, mask_name(source)]


def mask_name(source: SourceImage) -> str:
    """Of the mask's file in the snapshot; "" for none."""
    if source.mask is None:
        return ""
    suffix = source.mask.suffix
    return f"masks/{source.name}" + ("" if PurePosixPath(source.name).suffix == suffix else suffix)


def copies_in(folder: Path, sources: Iterable[SourceImage]) -> Keep:
    """Keep images under their names in a folder that has none of them."""
    try:
        for parent in {(folder / name).parent for source in sources for name in names_of(source)}:
            parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error

    def keep(source: SourceImage, image: Content, mask: Content | None) -> tuple[str, str]:
        ours = source.file if source.sha256 else None
        return _put(image.data, folder / source.name, ours), _put(mask.data, folder / mask_name(source)) if mask else ""

    return keep


class _InFolder(Keeper):
    """A snapshot: the folder appears whole or not at all, and is not touched where nothing changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._there = _files_in(folder)

    def has(self, source: SourceImage, before: Remembered) -> bool:
        kept, mask = before.kept
        return (
            bool(kept)
            and self._there.get(source.name) == kept
            and (not mask or self._there.get(mask_name(source)) == mask)
        )

    def renewal(self, stay: Stay, fresh: Sequence[SourceImage]) -> AbstractContextManager[Keep] | None:
        if not fresh and len(self._there) == sum(1 + bool(image.mask) for _, image in stay):
            return None
        return self._renewing(stay, fresh)

    @contextmanager
    def _renewing(self, stay: Stay, fresh: Sequence[SourceImage]) -> Iterator[Keep]:
        with atomic_directory(self._folder) as temporary:
            _link_all(stay, self._folder, temporary)
            yield copies_in(temporary, fresh)


class _InStore(Keeper):
    """A store: each picture gets there whole, at once and for all runs. One process at a time puts some there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._there = _files_in(store.folder)

    def has(self, source: SourceImage, before: Remembered) -> bool:
        found = json.loads(before.found)
        kept, mask = before.kept
        return self.holds(found["sha256"], kept) and (not mask or self.holds(found["mask_sha256"], mask))

    def renewal(self, stay: Stay, fresh: Sequence[SourceImage]) -> AbstractContextManager[Keep] | None:
        return self.filling() if fresh else None

    @contextmanager
    def filling(self) -> Iterator[Keep]:
        """A block in which pictures are put."""
        for name in self._there:
            if "/." in name:  # what a killed run left
                (self._store.folder / name).unlink(missing_ok=True)
        yield self._keep

    def _keep(self, source: SourceImage, image: Content, mask: Content | None) -> tuple[str, str]:
        kept = self.put(image, source.file if source.sha256 else None)
        return kept, self.put(mask) if mask else ""

    def put(self, content: Content, ours: Path | None = None) -> str:
        """Put bytes, or give the file that holds them, if it is ours, another name; what is there stays."""
        target = self._store.folder / self._store.name(content.sha256)
        try:
            if self.holds(content.sha256):
                return self._there[self._store.name(content.sha256)]
            target.parent.mkdir(parents=True, exist_ok=True)
            if linked := _linked(ours, target):
                return linked
            descriptor, name = tempfile.mkstemp(prefix=".", dir=target.parent)
            os.close(descriptor)
            try:
                _put(content.data, Path(name))
                Path(name).chmod(0o444)
                put_if_free(Path(name), target)  # another thread may have the same picture
            finally:
                Path(name).unlink(missing_ok=True)
            return fingerprint(target.stat())
        except OSError as error:
            raise cannot_write(target, error) from error

    def holds(self, sha256: str, kept: str = "") -> bool:
        """Whether a picture was there at first, as it was put there where its fingerprint is given."""
        there = self._there.get(self._store.name(sha256), "")
        return bool(there) and (not kept or there == kept)


class _LeftInPlace(Keeper):
    """Images stay where they are; masks, which no manifest names by their place at the source, get into the store."""

    def __init__(self, store: Store) -> None:
        self._masks = _InStore(store)

    def has(self, source: SourceImage, before: Remembered) -> bool:
        kept, mask = before.kept
        found = json.loads(before.found)
        return kept == _STAYS and (not mask or self._masks.holds(found["mask_sha256"], mask))

    def renewal(self, stay: Stay, fresh: Sequence[SourceImage]) -> AbstractContextManager[Keep] | None:
        return self._noting() if fresh else None

    @contextmanager
    def _noting(self) -> Iterator[Keep]:
        with self._masks.filling():
            yield self._keep

    def _keep(self, source: SourceImage, image: Content, mask: Content | None) -> tuple[str, str]:
        return _STAYS, self._masks.put(mask) if mask else ""


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


def _link_all(stay: Stay, old: Path, new: Path) -> None:
    """Give what stays a second name in the new folder; its bytes are never written again, by nobody."""
    made: set[str] = set()
    for source, image in stay:
        for name in (source.name, mask_name(source)) if image.mask else (source.name,):
            target = os.path.join(new, name)  # noqa: PTH118 -- a hundred thousand of them
            parent = os.path.dirname(target)  # noqa: PTH120
            if parent not in made:
                Path(parent).mkdir(parents=True, exist_ok=True)
                made.add(parent)
            os.link(os.path.join(old, name), target)  # noqa: PTH118


def _linked(ours: Path | None, target: Path) -> str:
    """Give a file of ours another name, and its fingerprint; "" where that cannot be, or the name is there by now."""
    if ours is not None:
        with suppress(OSError):  # on another disk, or on one without links
            os.link(ours, target)
            return fingerprint(target.stat())
    return ""


def _put(data: bytes, target: Path, ours: Path | None = None) -> str:
    """Write bytes, or give the file that holds them, if it is ours, another name; the fingerprint of what is there."""
    try:
        if linked := _linked(ours, target):
            return linked
        with target.open("wb", buffering=0) as stream:
            view = memoryview(data)
            while view:
                view = view[stream.write(view) :]
            return fingerprint(os.fstat(stream.fileno()))
    except OSError as error:
        raise cannot_write(target, error) from error
