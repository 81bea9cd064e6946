"""Step `calibrate`: the threshold, and what it guarantees."""

from morphad.data.loading import read_pixels
from morphad.model.detector import Detector
from morphad.settings import LineSettings
from morphad.steps.common import Figures, check_decoding, check_size, with_role
from morphad.steps.paths import LinePaths


def calibrate(settings: LineSettings, paths: LinePaths, seed: int = 0) -> Figures:
    """Set the threshold from calibration images that training never saw, and save the whole detector.

    In pods only the calibration is saved: the weights are an artifact of the run already, the fitted detector.

    Too few images are no error here: the detector then has no threshold and says how many it needs.

    Raises:
        BadInputError: The images would be decoded otherwise now than those that the detector was trained on.
    """
    rows = with_role(paths.split, "calibration")
    model = Detector.load(paths.fitted)
    check_decoding(paths.line, model, rows, settings.ingest)
    check_size(paths.line, model.refusal, rows)
    model.calibrate(read_pixels(rows, paths.pictures, model.decoding, f"calibrating {paths.line}"), settings.calibrate)
    if paths.in_pod:
        model.save(paths.calibration, weights_of=paths.fitted)
    else:
        model.save(paths.detector)
    return model.calibration_.to_json() if model.calibration_ else {}
