"""Heatmaps kept on disk between scoring and measuring, so that memory does not grow with the number of images."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from morphad.base.files import cannot_write


class MapSpool:
    """Float32 maps of differing sizes: appended in order, then read in order, as often as need be.

    The file has no name and is gone with the context.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._shapes: list[tuple[int, ...]] = []

    def append(self, heatmap: NDArray[np.float32]) -> None:
        """Add a map [H, W].

        Raises:
            BadInputError: The folder for temporary files is full.
        """
        try:
            self._file.write(np.ascontiguousarray(heatmap, dtype=np.float32).tobytes())
        except OSError as error:
            raise cannot_write(Path(tempfile.gettempdir()), error) from error
        self._shapes.append(heatmap.shape)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """The map that was appended as the `index`-th, from 0."""
        self._file.seek(4 * sum(height * width for height, width in self._shapes[:index]))
        return self._read(*self._shapes[index])

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        self._file.seek(0)
        for height, width in self._shapes:
            yield self._read(height, width)

    def _read(self, height: int, width: int) -> NDArray[np.float32]:
        return np.frombuffer(self._file.read(4 * height * width), np.float32).reshape(height, width)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
