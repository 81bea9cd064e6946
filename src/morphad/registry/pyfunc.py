"""The model as MLflow loads and serves it (models from code: this file is copied into a version and run to load it).

It finds `morphad` in the version's own `code` folder, so what is served is the code that was published.
"""

import io
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel
from numpy.typing import NDArray
from PIL import Image

from morphad.base.errors import BadInputError
from morphad.inspection import DetectorModel
from morphad.model.detector import Detector


class InspectionModel(PythonModel):
    """Scores images of one line and accepts or rejects them."""

    def load_context(self, context: Any) -> None:
        """Load the detector, and with it the rules by which its images are decoded."""
        detector = Detector.load(Path(context.artifacts["detector"]))
        self.has_scale = detector.heatmap_scale_ is not None
        self.has_reasons = detector.settings.align != "none"
        self.model = DetectorModel(detector)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score images.

        Args:
            context: Not used.
            model_input: Column `image`: the bytes of an encoded image file (JPEG, PNG, BMP, TIFF, WebP); over HTTP in
                base64. Paths are refused: a service must not read files that a caller names.
            params: `heatmap`: true adds the heatmap.

        Returns:
            One row an image: `score` (higher is more abnormal), `rejected` (score above threshold), `p_value`,
            `threshold`; the latter three are None for a detector without threshold. `reason`, where parts are put in
            place: why an image is rejected unseen, "" for others. `heatmap` if asked for: PNG, 8 bit grey, of the
            image's size, on the line's fixed scale.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE (HTTP 400): an image is not bytes or cannot be decoded; names row.
        """
        with_heatmap = bool((params or {}).get("heatmap", False))
        if with_heatmap and not self.has_scale:
            raise MlflowException.invalid_parameter_value("this detector is not calibrated and has no heatmap scale")
        images = [_encoded(image, number) for number, image in enumerate(model_input["image"])]
        rows: list[dict[str, Any]] = []
        try:
            for number, answer in enumerate(self.model.predict(images, heatmaps=with_heatmap)):
                if answer.error:
                    raise BadInputError(f"row {number}: {answer.error}")
                row: dict[str, Any] = {
                    "score": answer.score,
                    "rejected": answer.rejected,
                    "p_value": answer.p_value,
                    "threshold": self.model.threshold,
                    "reason": answer.reason,
                }
                if answer.heatmap is not None:
                    row["heatmap"] = _png(answer.heatmap)
                rows.append(row)
        except BadInputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        further = (["reason"] if self.has_reasons else []) + (["heatmap"] if with_heatmap else [])
        columns = ["score", "rejected", "p_value", "threshold", *further]
        # Object columns keep None as None; as float it would be NaN, which is not JSON.
        frame = pd.DataFrame(rows, columns=columns, dtype=object, index=model_input.index)
        typed = {"score": float} | {name: float for name in ("p_value", "threshold") if frame[name].notna().all()}
        if frame["rejected"].notna().all():
            typed["rejected"] = bool
        return frame.astype(typed)


def _encoded(image: Any, row: int) -> bytes:
    if not isinstance(image, bytes | bytearray | memoryview):
        raise MlflowException.invalid_parameter_value(
            f"row {row}: `image` is {type(image).__name__}; expected the bytes of an encoded image file "
            "(PNG, JPEG, ...; base64 over HTTP). Paths are not read: send the file's content"
        )
    return bytes(image)


def _png(heatmap: NDArray[np.float32]) -> bytes:
    """Heatmap [H, W] as 8 bit grey: 0 is black, 1 is white."""
    levels = np.empty(heatmap.shape, np.uint8)
    for row, values in zip(levels, heatmap, strict=True):  # without a copy of the whole as float
        row[:] = np.rint(values * 255)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()


mlflow.models.set_model(InspectionModel())
