"""Encoded images to answers by a detector in this process."""

import io
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from exhaustive import minutes_long
from morphad import inspection
from morphad.data.images import decode
from morphad.inspection import DetectorModel
from morphad.model.detector import Detector
from morphad.settings import Decoding


def encoded(pixels: "np.ndarray[Any, Any]") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


PICTURE = encoded(np.full((32, 32), 120, np.uint8))


@pytest.mark.parametrize("heatmaps", [False, True])
def test_a_score_that_is_no_number_is_an_error_and_no_accept(
    tiny_detector: Path, monkeypatch: pytest.MonkeyPatch, heatmaps: bool
) -> None:
    detector = Detector.load(tiny_detector)
    scored = detector._scored

    def spoilt(images: Any) -> Iterator[Any]:
        for sizes, batch in scored(images):
            yield sizes, replace(batch, scores=torch.where(torch.arange(len(batch.scores)) == 0, torch.nan, 1.0))

    monkeypatch.setattr(detector, "_scored", spoilt)
    first, second = DetectorModel(detector).predict([PICTURE, PICTURE], heatmaps=heatmaps)
    assert (first.score, first.rejected, first.error) == (None, None, "the model gives it the score nan")
    assert second.score is not None
    assert second.rejected is not None


def test_the_limits_of_its_training_hold(tiny_detector: Path) -> None:
    detector = Detector.load(tiny_detector)
    detector.decoding = Decoding(max_megapixels=0.001)
    small, large = DetectorModel(detector).predict([encoded(np.zeros((30, 30), np.uint8)), PICTURE])
    assert small.error == ""
    assert large.error == "claims 32 x 32 px; at most 0.001 megapixels (ingest.max_megapixels)"


def test_a_large_picture_is_gone_before_its_heatmap_is_drawn(
    tiny_detector: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[Any]] = []

    def remembered(*arguments: Any, **options: Any) -> Any:
        image = decode(*arguments, **options)
        kept.append(weakref.ref(image.pixels))
        return image

    monkeypatch.setattr(inspection, "decode", remembered)
    monkeypatch.setattr(inspection, "_CHUNK_BYTES", 1)  # every picture is a large one
    picture = encoded(np.full((64, 48, 3), 120, np.uint8))
    answers = DetectorModel(Detector.load(tiny_detector)).predict([picture], heatmaps=True)
    assert next(answers).heatmap is not None
    assert [pixels() is None for pixels in kept] == [True]


# The peak of this program alone: getrusage counts that of the process which started it, too.
_PREDICT = """
import re, sys
from pathlib import Path
from morphad.cli import main
code = main(["predict", "a", "large.jpg", "--model", sys.argv[1], "--heatmaps", "maps"])
print(code, int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="/proc tells the peak")
@minutes_long
def test_a_picture_of_81_megapixels_with_a_heatmap_takes_less_than_2_gb(tiny_detector: Path, tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(100, 140, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((9000, 9000)).save(tmp_path / "large.jpg")
    (tmp_path / "params.yaml").write_text("lines: {a: {ingest: {path: x}}}\n")
    done = subprocess.run(
        [sys.executable, "-c", _PREDICT, str(tiny_detector)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    code, megabytes = done.stdout.splitlines()[-1].split()
    assert code == "0"
    assert float(megabytes) < 2000
    with Image.open(tmp_path / "maps" / "large.png") as drawn:
        assert drawn.size == (9000, 9000)
