import numpy as np

from morphad.decision.calibration import calibrate
from morphad.decision.grounds import Grounds, RoleFacts
from morphad.report.verdict import verdict

METRICS = {
    "overkill": {"rate": 0.048, "low": 0.01, "high": 0.12, "parts_per_shift": 237.6},
    "escape": {"rate": 0.061, "low": 0.02, "high": 0.15, "parts_per_shift": 3.05},
    "image_auroc": 0.97,
    "parts_per_shift": 5000,
}
CALIBRATION = calibrate(np.arange(118.0), 0.05)


def test_one_sentence_says_it_all():
    found = verdict(METRICS, CALIBRATION)
    assert found.sentence == (
        "At its threshold this model rejects 4.8 % of good parts (at most 5 % guaranteed on average from 118 "
        "calibration images) and misses 6.1 % of the defects in the holdout: about 238 overkills and 3 escapes per "
        "shift of 5,000 parts."
    )
    assert found.attainable
    assert not found.remedy
    assert not found.warnings


def test_unknown_escapes_are_called_unknown():
    found = verdict({**METRICS, "escape": None}, CALIBRATION)
    assert "How many defects it misses is not known." in found.sentence
    assert "Add labelled defect images" in found.remedy


def test_small_numbers_read_well():
    few = {**METRICS, "escape": {**METRICS["escape"], "parts_per_shift": 0.2}}
    assert "and fewer than 1 escape per shift" in verdict(few, CALIBRATION).sentence
    one = {**METRICS, "escape": {**METRICS["escape"], "parts_per_shift": 1.2}}
    assert "and 1 escape per shift" in verdict(one, CALIBRATION).sentence


def test_no_threshold_says_what_to_do():
    found = verdict({**METRICS, "overkill": None, "escape": None}, calibrate(np.arange(12.0), 0.05))
    assert not found.attainable
    assert "a false-reject rate of 5 % is not attainable with 12 calibration images" in found.sentence
    assert "at least 19 are kept for calibration (7 more)" in found.remedy
    assert "at least 7.7 %" in found.remedy
    assert calibrate(np.arange(12.0), 0.077).attainable
    assert "AUROC of 97.0 %" in found.warnings[0]


def test_overkill_far_above_the_guarantee_is_a_warning():
    high = {**METRICS, "overkill": {"rate": 0.3, "low": 0.2, "high": 0.4, "parts_per_shift": 1485.0}}
    assert "Do not rely on the guarantee" in verdict(high, CALIBRATION).warnings[0]


def test_what_the_threshold_rests_on_and_verdicts_that_wait_are_warnings():
    facts = RoleFacts(118, 2, 0, 7000.0)
    grounds = Grounds("lot", {"train": facts, "calibration": facts, "holdout": facts}, 0, 0, ())
    found = verdict({**METRICS, "grounds": grounds.to_json(), "pending_verdicts": 2}, CALIBRATION)
    assert found.warnings[0].startswith("The threshold rests on 2 lots: 118 calibration images of so few lots")
    assert found.warnings[1].startswith("On 2 images of the holdout the line has said otherwise since it was frozen")
    assert len(found.warnings) == 2
    unattainable = verdict({**METRICS, "pending_verdicts": 1}, calibrate(np.arange(12.0), 0.05))
    assert "On 1 image of the holdout" in unattainable.warnings[-1]
