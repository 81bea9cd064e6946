"""Manifest rows to pixels: streamed in order, decoded by a few threads, never more than a few images in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from morphad.base.cores import available_cores
from morphad.base.progress import track
from morphad.data.images import UnreadableImageError, decode
from morphad.data.pictures import Pictures
from morphad.settings import Decoding

_DRAWN_LEVELS = 16  # at most, in a mask that was drawn or numbered and not blurred since
_JPEG = b"\xff\xd8\xff"

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], items: Iterable[T], workers: int | None = None) -> Iterator[R]:
    """Map by threads, one a core where no number is given, in the order of `items`; at most two results each ahead.

    Decoders, hashes and array arithmetic release the interpreter's lock, so threads are enough.
    """
    workers = workers or available_cores()
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class Repeatable(Iterable[T]):
    """What can be gone through more than once, begun anew each time.

    Args:
        begin: Begins.
    """

    def __init__(self, begin: Callable[[], Iterator[T]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[T]:
        return self._begin()


def read_pixels(rows: pd.DataFrame, pictures: Pictures, decoding: Decoding, what: str) -> Iterator[NDArray[np.uint8]]:
    """Stream the pixels of manifest rows, in their order: uint8 [H, W, 3] RGB or [H, W] grey.

    Args:
        rows: Manifest rows.
        pictures: Where their files are.
        decoding: How they become pixels: for a detector, its own.
        what: A few words for the person who waits.

    Raises:
        UnreadableImageError: A file is gone, damaged or changed since it was ingested.
    """

    def read(row: tuple[str, str]) -> NDArray[np.uint8]:
        try:
            return decode(pictures.read_image(*row), decoding, name=row[0]).pixels
        except UnreadableImageError as error:
            raise UnreadableImageError(row[0], f"{error.reason} {pictures.remedy}") from error

    named = zip(rows["path"].tolist(), rows["sha256"].tolist(), strict=True)
    yield from track(in_order(read, named), what, total=len(rows))


def read_mask(source: Path | bytes, max_megapixels: float = 100.0) -> NDArray[np.bool_]:
    """Read a defect mask: bool [H, W], true where it marks a defect.

    A file of few levels is a drawing, or holds a number for each kind: all that is not black is marked. One of many
    levels shows two that are blurred, by compression (JPEG) or at soft edges: what is above their middle is marked.

    Raises:
        UnreadableImageError: The file is missing or not an image.
    """
    pixels = decode(source, Decoding(max_megapixels=max_megapixels)).pixels
    levels = pixels if pixels.ndim == 2 else pixels.max(axis=-1)
    used = np.flatnonzero(np.bincount(levels.ravel(), minlength=256))
    blurred = len(used) > _DRAWN_LEVELS or _is_jpeg(source)
    return np.asarray(levels > (used[-1] // 2 if blurred else 0))


def _is_jpeg(source: Path | bytes) -> bool:
    if isinstance(source, bytes):
        return source.startswith(_JPEG)
    with source.open("rb") as stream:
        return stream.read(len(_JPEG)) == _JPEG


def read_masks(
    rows: pd.DataFrame, pictures: Pictures, max_megapixels: float = 100.0
) -> Iterator[NDArray[np.bool_] | None]:
    """Stream the masks of manifest rows: all false for good images, None for a defect image without a mask."""
    for row in rows[["mask", "mask_sha256", "label", "height", "width"]].itertuples(index=False):
        if row.mask:
            yield read_mask(pictures.read_mask(str(row.mask), str(row.mask_sha256)), max_megapixels)
        elif row.label == "good":
            yield np.zeros((int(row.height), int(row.width)), bool)  # type: ignore[arg-type]
        else:
            yield None
