"""Where the pictures of a manifest are: in a snapshot by name, in a store by hash, or where they came from.

The folder of a project has a snapshot, which DVC keeps. A line on a cluster has a store on the volume that outlives its
pods: each picture once, whatever runs use it.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from morphad.data.images import UnreadableImageError


class Pictures(ABC):
    """The files of the images and masks that a manifest names."""

    @abstractmethod
    def image(self, name: str, sha256: str) -> Path:
        """The file of an image: its `path` and `sha256` in the manifest."""

    @abstractmethod
    def mask(self, name: str, sha256: str) -> Path:
        """The file of a mask: its `mask` and `mask_sha256` in the manifest."""

    def read_image(self, name: str, sha256: str) -> Path | bytes:
        """What to decode an image from: its file, or its bytes once they are known to be the manifest's.

        Raises:
            UnreadableImageError: They are not, or the file cannot be read.
        """
        return self._checked(self.image(name, sha256), name, sha256)

    def read_mask(self, name: str, sha256: str) -> Path | bytes:
        """What to decode a mask from, as `read_image`."""
        return self._checked(self.mask(name, sha256), name, sha256)

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do where a file is gone or holds other bytes."""

    def _checked(self, file: Path, name: str, sha256: str) -> Path | bytes:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise UnreadableImageError(name, f"cannot be read ({error.strerror or error}: {file})") from error
        if (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise UnreadableImageError(
                name, f"{file} does not hold the bytes that were ingested (SHA-256 {found[:12]}, not {sha256[:12]})"
            )
        return data


@dataclass(frozen=True)
class Snapshot(Pictures):
    """Pictures of a line by their names, in a folder that nobody but `ingest` writes to."""

    folder: Path
    line: str

    def image(self, name: str, sha256: str = "") -> Path:
        """By its name."""
        return self.folder / name

    def mask(self, name: str, sha256: str = "") -> Path:
        """By its name."""
        return self.folder / name

    @property
    def remedy(self) -> str:
        """The snapshot is made anew from the source."""
        return f"in the snapshot {self.folder}; run `morphad ingest {self.line}` again"

    def _checked(self, file: Path, name: str, sha256: str) -> Path | bytes:
        return file  # read by the decoder, a part at a time


@dataclass(frozen=True)
class Store(Pictures):
    """Pictures by the hash of their bytes, each once; files that are there are never written again."""

    folder: Path

    def image(self, name: str, sha256: str) -> Path:
        """By its hash."""
        return self.folder / self.name(sha256)

    def mask(self, name: str, sha256: str) -> Path:
        """By its hash."""
        return self.folder / self.name(sha256)

    @staticmethod
    def name(sha256: str) -> str:
        """Of the file within the folder: 256 folders, so that none gets too long to list."""
        return f"{sha256[:2]}/{sha256}"

    @property
    def remedy(self) -> str:
        """A damaged file is not written over."""
        return "in the line's store; if the file is there, remove it, and start a new run: its `ingest` puts it there"


@dataclass(frozen=True)
class InPlace(Pictures):
    """Images where they came from, which somebody else may change; their masks, which are few, in the store."""

    root: Path
    store: Store

    def image(self, name: str, sha256: str) -> Path:
        """By its name at the source."""
        return self.root / name

    def mask(self, name: str, sha256: str) -> Path:
        """By its hash."""
        return self.store.mask(name, sha256)

    @property
    def remedy(self) -> str:
        """The source has the last word."""
        return (
            "where it came from (ingest.in_place); start a new run, which ingests what is there now, and keep files as "
            "they are while a run is under way, or set ingest.in_place to false"
        )
