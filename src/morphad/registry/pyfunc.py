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

from morphad.data.images import decode
from morphad.errors import BadInputError
from morphad.model.detector import Detector


class InspectionModel(PythonModel):
    """Scores images of one line and accepts or rejects them."""

    def load_context(self, context: Any) -> None:
        """Load the detector and the rules by which its images are decoded."""
        self.detector = Detector.load(Path(context.artifacts["detector"]))
        self.decoding = dict(context.model_config or {})

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score images.

        Args:
            context: Not used.
            model_input: Column `image`: the bytes of an encoded image file (JPEG, PNG, BMP, TIFF, WebP); over HTTP in
                base64. Paths are refused: a service must not read files that a caller names.
            params: `heatmap`: true adds the heatmap.

        Returns:
            One row an image: `score` (higher is more abnormal), `rejected` (score above threshold), `p_value`,
            `threshold`; the latter three are None for a detector without threshold. `heatmap` if asked for: PNG, 8 bit
            grey, of the image's size, on the line's fixed scale.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE (HTTP 400): an image is not bytes or cannot be decoded; names row.
        """
        with_heatmap = bool((params or {}).get("heatmap", False))
        images = list(model_input["image"])
        rows: list[dict[str, Any]] = []
        scale = self.detector.heatmap_scale
        if with_heatmap and scale is None:
            raise MlflowException.invalid_parameter_value("this detector is not calibrated and has no heatmap scale")
        calibration = self.detector.calibration
        threshold = None if calibration is None else calibration.threshold
        try:
            for prediction in self.detector.predict(self._pixels(image, number) for number, image in enumerate(images)):
                row: dict[str, Any] = {
                    "score": float(prediction.score),
                    "rejected": prediction.rejected,
                    "p_value": prediction.p_value,
                    "threshold": threshold,
                }
                if with_heatmap and scale is not None:
                    row["heatmap"] = _png(prediction.heatmap, *scale)
                rows.append(row)
        except BadInputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        columns = ["score", "rejected", "p_value", "threshold", *(["heatmap"] if with_heatmap else [])]
        # Object columns keep None as None; as float it would be NaN, which is not JSON.
        frame = pd.DataFrame(rows, columns=columns, dtype=object, index=model_input.index)
        typed = {"score": float} | {name: float for name in ("p_value", "threshold") if frame[name].notna().all()}
        if frame["rejected"].notna().all():
            typed["rejected"] = bool
        return frame.astype(typed)

    def _pixels(self, image: Any, row: int) -> NDArray[np.uint8]:
        if not isinstance(image, bytes | bytearray | memoryview):
            raise BadInputError(
                f"row {row}: `image` is {type(image).__name__}; expected the bytes of an encoded image file "
                "(PNG, JPEG, ...; base64 over HTTP). Paths are not read: send the file's content"
            )
        return decode(bytes(image), name=f"row {row}", **self.decoding).pixels


def _png(heatmap: NDArray[np.float32], low: float, high: float) -> bytes:
    """Heatmap [H, W] as 8 bit grey: `low` is black, `high` is white."""
    span = high - low if high > low else 1.0
    levels = np.clip((heatmap - low) / span, 0, 1) * 255
    buffer = io.BytesIO()
    Image.fromarray(levels.round().astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


mlflow.models.set_model(InspectionModel())
