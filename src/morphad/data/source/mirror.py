"""A bucket's images as local files: fetched once, kept over runs, always whole and of one version."""

import hashlib
import os
import shutil
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path, PurePosixPath

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.files import cannot_write, sha256_file
from morphad.base.progress import track
from morphad.data.index import Fetched, Memory, fingerprint
from morphad.data.loading import in_order
from morphad.data.source.image import SourceImage, too_large
from morphad.data.source.layouts import is_image, some
from morphad.data.source.s3 import Bucket, Listed, Received, prefix_of, split_url
from morphad.data.source.s3_errors import ObjectGoneError
from morphad.settings import IngestSettings

_md5 = partial(hashlib.md5, usedforsecurity=False)


class Mirror:
    """The objects below a prefix, as a folder of files; what is gone from the bucket goes from the folder.

    Args:
        settings: Of the line; `path` is the prefix.
        memory: Of the runs before: what was fetched, and where.
        aside: Gets the names of objects that are neither images nor JSON.
        page: Objects a listing's request, 1..1000.

    Raises:
        BadInputError: No such bucket, no credentials, or keys that cannot be names of files.
        ServiceError: The server refused or did not answer.
    """

    def __init__(
        self, settings: IngestSettings, memory: Memory, aside: list[str] | None = None, *, page: int = 1000
    ) -> None:
        self.root = memory.folder / "mirror"
        self._incoming = memory.folder / "incoming"
        self._settings, self._memory = settings, memory
        bucket, prefix = split_url(settings.path)
        self._bucket = Bucket(bucket, settings.patience_seconds, settings.transfers)
        memory.holds_for("bucket", f"{self._bucket.endpoint} {settings.path}", "object")
        self._known = memory.objects()
        prefix = prefix_of(prefix)
        listing = track(self._bucket.list(prefix, page), f"listing {settings.path}")
        self.names = local_names(listing, prefix, settings.path, aside)
        self._drop(self._known.keys() - self.names.keys())
        shutil.rmtree(self._incoming, ignore_errors=True)  # of a killed run
        self._make(self._incoming)
        if not self._known and self.root.is_dir():
            self._clear()
        self._number = count()

    def fetch(self, names: Sequence[str], what: str) -> None:
        """Make the files of these names be there; those that are as listed are not fetched again.

        An object that is gone since it was listed has no file then, and no name.
        """
        wanted = [name for name in names if not self._is_here(name)]
        for parent in {(self.root / name).parent for name in wanted}:
            self._make(parent)
        size = sum(self.names[name].size for name in wanted)
        shown = f"{what} ({size / 1e6:,.0f} MB)"
        for name, received, mark in track(
            in_order(self._receive, wanted, self._settings.transfers), shown, len(wanted)
        ):
            if received is None:
                del self.names[name]
                self._drop([name] if name in self._known else [])
                continue
            self.names[name] = received.listed
            self._known[name] = Fetched(received.listed.identity, received.version, mark, received.sha256)
            self._memory.put_object(name, self._known[name])
        self._memory.commit()

    def tags(self, names: Sequence[str]) -> Iterator[Mapping[str, str]]:
        """The tags of objects. S3 lists none and marks no change of them: it is one request for each, every time."""

        def read(name: str) -> Mapping[str, str]:
            try:
                return self._bucket.tags(self.names[name].key)
            except ObjectGoneError:
                raise ServiceError(
                    f"s3://{self._bucket.name}/{self.names[name].key}: was deleted while the line was read; run again"
                ) from None

        yield from track(in_order(read, names, self._settings.transfers), f"tags of {self._settings.path}", len(names))

    def bring(self, images: Sequence[SourceImage]) -> list[SourceImage]:
        """Fetch images and their masks; those that are too large are refused unfetched, those now gone are left out."""
        checked = [self._refused(image) for image in images]
        files = [name for image in checked if not image.refused for name in self._files(image)]
        self.fetch(files, f"fetching {self._settings.path}")
        return [
            image if image.refused else replace(image, sha256=self._known[image.name].sha256)
            for image in checked
            if all(name in self.names for name in self._files(image))
        ]

    def _files(self, image: SourceImage) -> list[str]:
        return [image.name] if image.mask is None else [image.name, image.mask.relative_to(self.root).as_posix()]

    def _refused(self, image: SourceImage) -> SourceImage:
        for name in self._files(image):
            if reason := too_large(self.names[name].size, self._settings.max_megabytes):
                return replace(image, refused=reason if name == image.name else f"its mask {name} {reason}")
        return image

    def _is_here(self, name: str) -> bool:
        known = self._known.get(name)
        if known is None or known.identity != self.names[name].identity:
            return False
        try:
            return fingerprint(os.stat(self.root / name)) == known.file  # noqa: PTH116 -- a hundred thousand of them
        except OSError:
            return False

    def _receive(self, name: str) -> tuple[str, Received | None, str]:
        """Fetch one object; the fingerprint of its file."""
        temporary = self._incoming / str(next(self._number))
        target = self.root / name
        try:
            if received := _at_hand(self.names[name], target):
                return name, received, fingerprint(target.stat())
            received = self._bucket.fetch(self.names[name], temporary, self._settings.max_megabytes * 1e6)
            temporary.replace(target)
            return name, received, fingerprint(target.stat())
        except ObjectGoneError:
            return name, None, ""
        except OSError as error:
            raise cannot_write(target, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove files that no object stands behind when nothing is remembered of them."""
        for path in self.root.rglob("*"):
            if path.is_file() and path.relative_to(self.root).as_posix() not in self.names:
                path.unlink()

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error

    def _drop(self, names: set[str] | list[str]) -> None:
        """Remove files that no object stands behind, and folders that this leaves empty."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)
            del self._known[name]
        folders = {parent for name in names for parent in PurePosixPath(name).parents}
        for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
            _remove_if_empty(self.root / folder)
        self._memory.forget("object", names)
        self._memory.commit()


def _at_hand(listed: Listed, file: Path) -> Received | None:
    """An object whose bytes are in its file, although a run was killed before it could remember that.

    Only where the ETag is the MD5 of the bytes, as it is of what came in one request and is not encrypted with a key.
    """
    try:
        if file.stat().st_size != listed.size:
            return None
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, _md5).hexdigest() != listed.etag.strip('"'):
                return None
        return Received(listed, sha256_file(file), "")
    except OSError:
        return None


def local_names(listing: Iterator[Listed], prefix: str, url: str, aside: list[str] | None = None) -> dict[str, Listed]:
    """Objects that matter by their names as files below the mirror, in the order of the names.

    Args:
        listing: The objects of the bucket.
        prefix: What their keys begin with.
        url: The place, for messages.
        aside: Gets the names of objects that are neither images nor JSON, nor hidden.

    Raises:
        BadInputError: A key cannot be the name of a file, or two would be one.
    """
    names: dict[str, Listed] = {}
    bad: list[str] = []
    for listed in listing:
        name = listed.key.removeprefix(prefix)
        if not (is_image(name) or name.endswith(".json")):
            if (
                aside is not None
                and name
                and not name.endswith("/")
                and not any(part[:1] == "." for part in name.split("/"))
            ):
                aside.append(name)
            continue
        parts = name.split("/")
        if not _is_safe(name, parts):
            bad.append(repr(listed.key))
        elif not any(part.startswith(".") for part in parts):
            names[name] = listed
    if bad:
        raise BadInputError(
            f"{url}: {some(bad)} cannot be names of files (empty parts, . or .., backslashes, control characters, over "
            "255 bytes); give these objects other keys"
        )
    _check_one_name_each(names, url)
    return dict(sorted(names.items()))


def _is_safe(name: str, parts: Sequence[str]) -> bool:
    if "\\" in name or any(part in {"", ".", ".."} or len(part.encode(errors="replace")) > 255 for part in parts):
        return False
    return len(name) < 2000 and not any(unicodedata.category(character) in {"Cc", "Cs"} for character in name)


def _check_one_name_each(names: Mapping[str, Listed], url: str) -> None:
    """For other systems names that differ by their Unicode normal form are one, and people see no difference."""
    seen: dict[str, str] = {}
    for name in names:
        form = unicodedata.normalize("NFC", name)
        if form in seen:
            raise BadInputError(f"{url}: {seen[form]!a} and {name!a} look the same (Unicode normal forms); rename one")
        seen[form] = name
    for name in names:
        for at, character in enumerate(name):
            if character == "/" and name[:at] in names:
                raise BadInputError(f"{url}: {name[:at]} is an object and the folder of {name}; rename one")


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # not empty, or gone
        folder.rmdir()
