"""One file of an image: read once, then hashed, decoded and described in memory."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from morphad.data.images import Image, UnreadableImageError, decode
from morphad.data.index import fingerprint, settled
from morphad.data.loading import read_mask
from morphad.data.snapshot.statistics import statistics
from morphad.data.source.image import too_large
from morphad.settings import IngestSettings


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file.

    Attributes:
        name: What it is called in messages.
        data: Its bytes.
        sha256: Of its bytes.
        fingerprint: Of the file; "" where it may be written again without a trace.
    """

    name: str
    data: bytes = field(repr=False)
    sha256: str
    fingerprint: str


def read(file: Path, name: str, max_megabytes: float, ours: bool = False) -> Content:
    """Read a file, all of one moment.

    Args:
        file: The file.
        name: What it is called in messages.
        max_megabytes: Of a larger file nothing is read.
        ours: Nobody else writes to it, so its fingerprint can be trusted at once.

    Raises:
        UnreadableImageError: It cannot be read, is too large, or was written meanwhile.
    """
    try:
        with file.open("rb", buffering=0) as stream:
            before = os.fstat(stream.fileno())
            if reason := too_large(before.st_size, max_megabytes):
                raise UnreadableImageError(name, reason)
            data = stream.readall()
            after = os.fstat(stream.fileno())
    except OSError as error:
        raise UnreadableImageError(name, f"cannot be read ({error.strerror or error})") from error
    if fingerprint(after) != fingerprint(before):
        raise UnreadableImageError(name, "was written while it was read; ingest again when its writer is done")
    return Content(name, data, hashlib.sha256(data).hexdigest(), fingerprint(after) if ours or settled(after) else "")


def read_mask_file(file: Path, max_megabytes: float, ours: bool = False) -> Content:
    """Read an image's mask as `read` does, named as such in errors."""
    try:
        return read(file, file.name, max_megabytes, ours)
    except UnreadableImageError as error:
        raise UnreadableImageError(file.name, f"its mask {file.name} {error.reason}") from error


def describe(content: Content, mask: Content | None, settings: IngestSettings) -> dict[str, Any]:
    """What the bytes of an image and its mask say: sha256, mask_sha256, and the columns bytes to perceptual_hash.

    Raises:
        UnreadableImageError: The image or its mask is none, or the mask is of another size.
    """
    image = decode(content.data, settings.decoding, name=content.name, grey=True)
    return {
        "sha256": content.sha256,
        "mask_sha256": mask.sha256 if mask else "",
        "bytes": len(content.data),
        "height": image.height,
        "width": image.width,
        "mode": image.mode,
        "bit_depth": image.bit_depth,
        "masked": _masked(mask, image, settings) if mask else 0.0,
        **statistics(image),
    }


def _masked(mask: Content, image: Image, settings: IngestSettings) -> float:
    """The fraction of pixels under the mask, which must be readable and of the image's size."""
    try:
        marked = read_mask(mask.data, settings.max_megapixels)
    except UnreadableImageError as error:
        raise UnreadableImageError(mask.name, f"its mask {mask.name} {error.reason}") from error
    if marked.shape != (image.height, image.width):
        height, width = marked.shape
        raise UnreadableImageError(
            mask.name, f"its mask {mask.name} is {height} x {width} px, the image {image.height} x {image.width} px"
        )
    return float(marked.mean())
