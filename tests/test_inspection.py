"""Encoded images to answers by a detector in this process."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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
        for originals, batch in scored(images):
            yield originals, replace(batch, scores=torch.where(torch.arange(len(batch.scores)) == 0, torch.nan, 1.0))

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
