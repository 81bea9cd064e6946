"""One image as its source knows it, before it is opened."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image as its source knows it, not yet opened.

    Attributes:
        root: The folder that it is in or below, the same object for all: a path of its own for each needs 460 bytes.
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
        refused: Why it is left out before its bytes are read; "" where it is not.
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


def too_large(size: int, max_megabytes: float) -> str:
    """Why a file of so many bytes is refused; "" where it is not."""
    if size <= max_megabytes * 1e6:
        return ""
    return f"is {size / 1e6:,.0f} MB large; at most {max_megabytes:g} MB (ingest.max_megabytes)"
