"""Heatmaps on disk."""

import errno

import numpy as np
import pytest

from morphad.base.errors import BadInputError
from morphad.base.spool import MapSpool


def test_maps_come_back_in_order_and_as_often_as_asked():
    random = np.random.default_rng(0)
    given = [random.random((height, width), dtype=np.float32) for height, width in ((3, 5), (1, 1), (40, 7))]
    with MapSpool() as maps:
        for heatmap in given:
            maps.append(heatmap)
        for _ in range(2):
            back = list(maps)
            assert len(back) == 3
            assert all(np.array_equal(a, b) for a, b in zip(given, back, strict=True))
        assert all(np.array_equal(given[at], maps[at]) for at in (2, 0, 1, 2))


def test_a_full_disk_is_told_with_the_folder(monkeypatch: pytest.MonkeyPatch):
    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None: ...

    with MapSpool() as maps:
        monkeypatch.setattr(maps, "_file", Full())
        with pytest.raises(BadInputError, match="No space left on device"):
            maps.append(np.zeros((2, 2), np.float32))
