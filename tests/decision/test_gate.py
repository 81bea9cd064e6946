import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from morphad.base.errors import BadInputError, CheckFailedError
from morphad.decision.gate import Evidence, decide
from morphad.settings import PromoteSettings

FAST = PromoteSettings(bootstrap=200)


def _evidence(n_good=80, n_defect=60, shift=2.0, seed=0, *, threshold=1.65):
    rng = np.random.default_rng(seed)
    labels = ["good"] * n_good + ["defect"] * n_defect
    return Evidence(labels, rng.normal(size=len(labels)) + shift * (np.array(labels) == "defect"), threshold, "h" * 64)


def _with(evidence, **changes):
    return Evidence(**{**vars(evidence), **changes})


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), n_good=st.integers(30, 80), n_defect=st.integers(20, 60), shift=st.floats(2, 4))
def test_an_identical_challenger_with_enough_images_is_promoted(seed, n_good, n_defect, shift):
    champion = _evidence(n_good, n_defect, shift, seed)
    assert decide(champion, champion, FAST, seed).promote


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), n_good=st.integers(2, 80), n_defect=st.integers(0, 60), shift=st.floats(0, 4))
def test_an_identical_challenger_passes_iff_it_would_be_a_first_champion(seed, n_good, n_defect, shift):
    champion = _evidence(n_good, n_defect, shift, seed)
    assert decide(champion, champion, FAST, seed).promote == decide(champion, None, FAST, seed).promote


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_clearly_worse_challenger_is_refused(seed):
    champion = _evidence(seed=seed)
    blind = _evidence(shift=0.5, seed=seed + 1)
    decision = decide(blind, champion, FAST, seed)
    assert not decision.promote
    assert decision.reasons[0].startswith("Refused: ")
    assert "not shown that the challenger is no worse than the champion in AUROC" in decision.reasons[0]
    strict = decide(_with(champion, threshold=0.5), champion, FAST, seed)
    assert not strict.promote
    assert "in overkill (" in strict.reasons[0]


def test_the_record_is_plain_json_with_the_figures():
    decision = decide(_evidence(seed=1), _evidence(seed=2), FAST)
    written = json.loads(json.dumps(decision.to_json(), allow_nan=False))
    figures = written["figures"]
    assert figures["n_good"] == 80
    difference = figures["challenger"]["auroc"] - figures["champion"]["auroc"]
    assert figures["auroc_difference"]["value"] == pytest.approx(difference)
    assert figures["auroc_difference"]["low"] <= difference <= figures["auroc_difference"]["high"]
    assert all(reason.endswith(".") for reason in written["reasons"])
    assert decide(_evidence(seed=1), _evidence(seed=2), FAST).to_json() == decision.to_json()


def test_limits_and_checks_are_figures_in_the_record():
    champion = _evidence(seed=2)
    tight = FAST.model_copy(update={"max_escape": 0.4, "escape_margin": 0.15})
    figures = decide(_evidence(seed=1), champion, tight).to_json()["figures"]
    assert figures["limits"] == {
        "confidence": 0.95, "auroc_margin": 0.02, "overkill_margin": 0.05, "escape_margin": 0.15, "min_auroc": 0.7,
        "max_overkill": 0.5, "max_escape": 0.4, "min_kind": 10,
    }  # fmt: skip
    assert (figures["resamples"], figures["seed"]) == (200, 0)
    checks = {check["name"]: check for check in figures["checks"]}
    assert checks["escape"]["value"] == figures["challenger"]["escape"]["rate"]
    assert checks["escape"]["limit"] == 0.4
    assert checks["overkill_difference"]["bound"] == figures["overkill_difference"]["high"]
    assert checks["auroc_difference"]["bound"] == figures["auroc_difference"]["low"]
    assert checks["auroc_difference"]["limit"] == -0.02
    assert checks["escape_difference"]["passed"] == (figures["escape_difference"]["high"] < 0.15)
    assert all(check["why"].endswith(".") for check in figures["checks"])


def test_only_the_same_frozen_holdout_is_compared():
    champion = _evidence()
    with pytest.raises(CheckFailedError, match="same frozen holdout"):
        decide(_with(champion, holdout_id="other"), champion, FAST)
    with pytest.raises(CheckFailedError, match="labels"):
        decide(_with(champion, labels=champion.labels[::-1]), champion, FAST)
    with pytest.raises(BadInputError, match="scores of the challenger"):
        decide(_with(champion, scores=[1.0]), champion, FAST)
    with pytest.raises(BadInputError, match="not finite"):
        decide(champion, _with(champion, scores=np.full(140, np.nan)), FAST)


def test_without_defects_overkill_alone_decides_and_it_says_so():
    champion = _evidence(n_defect=0)
    decision = decide(champion, champion, FAST)
    assert decision.promote
    assert "no defects, so AUROC cannot be compared" in " ".join(decision.reasons)
    assert decision.figures["auroc_difference"] is None
    assert not decide(_with(champion, threshold=0.3), champion, FAST).promote


def test_a_holdout_without_good_images_is_refused():
    with pytest.raises(BadInputError, match="no good images"):
        decide(_evidence(n_good=0), None, FAST)


def test_a_first_champion_needs_a_threshold_and_the_floor():
    assert decide(_evidence(), None, FAST).promote
    refused = decide(_evidence(threshold=None), None, FAST)
    assert not refused.promote
    assert "no threshold" in refused.reasons[0]
    weak = decide(_evidence(shift=0.1), None, FAST)
    assert not weak.promote
    assert "below the floor of 70 %" in weak.reasons[1]
    unknown = decide(_evidence(n_defect=0), None, FAST)
    assert unknown.promote
    assert "no defects" in unknown.reasons[1]


def test_a_first_champion_that_rejects_most_good_parts_is_refused():
    decision = decide(_evidence(threshold=-1.0), None, FAST)
    assert not decision.promote
    assert "its overkill is above the ceiling" in decision.reasons[0]


def test_labels_that_are_swapped_are_refused_although_both_models_agree():
    swapped = _evidence(shift=-3.0, threshold=-1.0)
    decision = decide(swapped, swapped, FAST)
    assert not decision.promote
    assert "its AUROC is below the floor" in decision.reasons[0]


def test_a_challenger_without_a_threshold_is_refused_whatever_its_auroc():
    decision = decide(_evidence(shift=5, threshold=None), _evidence(), FAST)
    assert not decision.promote
    assert decision.figures["auroc_difference"]["low"] > 0
    json.dumps(decision.to_json(), allow_nan=False)


def test_a_champion_without_a_threshold_is_compared_by_auroc():
    champion = _evidence(threshold=None)
    assert decide(_evidence(), champion, FAST).promote
    blind = decide(_evidence(n_defect=0), _evidence(n_defect=0, threshold=None), FAST)
    assert not blind.promote
    assert "nothing that can be compared" in blind.reasons[0]


def test_few_good_images_are_called_weak_evidence():
    few, many = _evidence(n_good=20), _evidence(n_good=80)
    assert "weak: 20 good images can miss an increase of 5.0 points" in " ".join(decide(few, few, FAST).reasons)
    assert "59 good images" in " ".join(decide(few, few, FAST).reasons)
    assert "weak" not in " ".join(decide(many, many, FAST).reasons)


@pytest.mark.parametrize("what", ["auroc", "overkill"])
def test_a_challenger_worse_by_the_margin_passes_about_as_rarely_as_the_confidence_says(what):
    """At the edge of the null hypothesis a 95 % gate lets 5 % through."""
    trials, margin, passed = 200, 0.05, 0
    limits = PromoteSettings(
        auroc_margin=margin if what == "auroc" else 0.5,
        overkill_margin=margin if what == "overkill" else 0.5,
        escape_margin=1.0,
        bootstrap=200,
    )
    rng = np.random.default_rng(11)
    labels = np.array([0] * 200 + [1] * 150)
    old_auroc = 0.9
    shift = np.sqrt(2) * stats.norm.ppf([old_auroc, old_auroc - margin if what == "auroc" else old_auroc])
    rejects = stats.norm.isf([0.05, 0.05 + margin if what == "overkill" else 0.05])
    for trial in range(trials):
        common = rng.normal(size=labels.size) * np.sqrt(0.6)
        old, new = (common + rng.normal(size=labels.size) * np.sqrt(0.4) + s * labels for s in shift)
        champion, challenger = Evidence(labels, old, rejects[0], "h"), Evidence(labels, new, rejects[1], "h")
        passed += decide(challenger, champion, limits, trial).promote
    assert 0.01 <= passed / trials <= 0.11
