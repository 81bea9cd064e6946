"""Encoded images to verdicts: what a model is asked, what it answers, and a detector that answers in this process.

A published version answers in a process of its own: `morphad.registry.published`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from morphad.base.progress import track
from morphad.data.images import UnreadableImageError, decode
from morphad.data.loading import in_order
from morphad.settings import Decoding

if TYPE_CHECKING:
    from morphad.model.detector import Detector

_CHUNK = 16  # images, or
_CHUNK_BYTES = 256_000_000  # of pixels, whichever is reached first: what is scored together


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of one encoded image.

    Attributes:
        score: Higher for more abnormal; None where there is an error.
        rejected: Whether the score is above the threshold; None where there is an error or no threshold.
        p_value: Share of good calibration images that are at least as abnormal, in (0, 1]; None where there is an
            error or no calibration.
        heatmap: [H, W] float32 at the image's size, 0 to 1 on the line's fixed scale; None where nobody asked for it.
        error: Why there is no score, without the image's name; "" where there is one.
        reason: Why it is rejected whatever the threshold, such as a part that was not found; "" for others.
    """

    score: float | None = None
    rejected: bool | None = None
    p_value: float | None = None
    heatmap: NDArray[np.float32] | None = None
    error: str = ""
    reason: str = ""

    @staticmethod
    def of(
        score: float,
        rejected: bool | None,
        p_value: float | None,
        heatmap: NDArray[np.float32] | None = None,
        reason: str = "",
    ) -> "Answer":
        """The answer for a score; a score that is no number is an error: no comparison would reject it."""
        if not isfinite(score):
            return Answer(error=f"the model gives it the score {score}")
        return Answer(score, rejected, p_value, heatmap, reason=reason)


class Model(Protocol):
    """What answers."""

    @property
    def decoding(self) -> Decoding:
        """How it decodes, for who shows an image beside its answer."""

    @property
    def threshold(self) -> float | None:
        """The highest score that is accepted; None where there is no threshold."""

    def predict(self, images: Iterable[bytes], *, heatmaps: bool = False) -> Iterator[Answer]:
        """An answer for each encoded image, in order, streamed; an image that cannot be read spoils no other."""


class DetectorModel:
    """A detector that answers in this process, with its own decoding.

    Args:
        detector: The detector.
    """

    def __init__(self, detector: "Detector") -> None:
        self._detector = detector
        self.decoding = detector.decoding
        self.threshold = None if detector.calibration_ is None else detector.calibration_.threshold

    def predict(self, images: Iterable[bytes], *, heatmaps: bool = False) -> Iterator[Answer]:
        """See `Model`. A detector without calibration has no scale: its heatmaps are cut to the values 0 to 1."""
        for chunk in _chunks(in_order(self._decoded, images)):
            errors = [item if isinstance(item, str) else "" for item in chunk]
            answers = self._answers(_drained(chunk), heatmaps)
            for error in errors:
                yield Answer(error=error) if error else next(answers)

    def _decoded(self, data: bytes) -> NDArray[np.uint8] | str:
        """Pixels, or why there are none."""
        try:
            pixels = decode(data, self.decoding).pixels
        except UnreadableImageError as error:
            return error.reason
        return self._detector.refusal(*pixels.shape[:2]) or pixels

    def _answers(self, images: Iterable[NDArray[np.uint8]], heatmaps: bool) -> Iterator[Answer]:
        low, high = self._detector.heatmap_scale_ or (0.0, 1.0)
        span = high - low if high > low else 1.0
        for prediction in self._detector.predict(images, heatmaps=heatmaps):
            relative = prediction.heatmap  # in its place: one of 81 megapixels needs 0.3 GB
            relative -= low
            relative /= span
            np.clip(relative, 0, 1, out=relative)
            yield Answer.of(
                prediction.score,
                prediction.rejected,
                prediction.p_value,
                relative if heatmaps else None,
                prediction.reason,
            )


class Encoded(Protocol):
    """An image that was asked about."""

    @property
    def data(self) -> bytes | None:
        """The bytes of its file; None where they could not be had."""

    @property
    def error(self) -> str:
        """Why not."""


E = TypeVar("E", bound=Encoded)


def answered(model: Model, images: Iterable[E], *, heatmaps: bool = False) -> Iterator[tuple[E, Answer]]:
    """Each image with its answer, in order; one that could not be had has the reason for an answer."""
    kept, asked = tee(images)
    answers = model.predict((image.data for image in asked if image.data is not None), heatmaps=heatmaps)
    for image in kept:
        yield image, Answer(error=image.error) if image.data is None else next(answers)


def score_files(model: Model, files: Sequence[Path], what: str) -> NDArray[np.float64]:
    """Scores [N] of image files, higher for more abnormal.

    Args:
        model: Who scores.
        files: N image files.
        what: A few words for the person who waits, such as "scoring the champion of pcb".

    Raises:
        UnreadableImageError: A file cannot be read, or not by this model; it names the file and says why.
        ServiceError: The model's process ended.
    """
    from morphad.data.source.worklist import open_files  # noqa: PLC0415 -- what is served reads no files and needs no pyarrow

    scores = np.empty(len(files))
    answers = track(answered(model, open_files(files)), what, total=len(files))
    for i, (image, answer) in enumerate(answers):
        if answer.score is None:
            raise UnreadableImageError(image.path, answer.error)
        scores[i] = answer.score
    return scores


def _drained(chunk: list[NDArray[np.uint8] | str]) -> Iterator[NDArray[np.uint8]]:
    """The images of a chunk, each removed from it: a large one should be gone before its heatmap is drawn."""
    while chunk:
        if isinstance(chunk[0], str):
            del chunk[0]
        else:
            yield cast("NDArray[np.uint8]", chunk.pop(0))


def _chunks(images: Iterable[NDArray[np.uint8] | str]) -> Iterator[list[NDArray[np.uint8] | str]]:
    chunk: list[NDArray[np.uint8] | str] = []
    size = 0
    for image in images:
        chunk.append(image)
        size += 0 if isinstance(image, str) else image.nbytes
        del image  # or it would stay here while the chunk is worked at
        if len(chunk) == _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
