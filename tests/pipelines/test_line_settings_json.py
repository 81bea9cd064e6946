"""A line's settings travel to a component as one short JSON text and arrive as they were."""

import json
from pathlib import Path

import pytest

from morphad.settings import LineSettings
from morphad.settings.explaining import SettingsError
from morphad.settings.line_json import line_from_json, line_to_json
from morphad.settings.reading import load_settings, resolve
from morphad.steps.reads import READS

REPO = Path(__file__).resolve().parents[2]
EVERYTHING = {
    "ingest": {"source": "folder", "path": "camera/ä b", "limit": 7, "max_megapixels": 2.5},
    "split": {"calibration": 1 / 3, "near_duplicate_bits": 0, "renew_holdout": True},
    "train": {
        "preset": "paper",
        "image_size": [64, 96],
        "cases": {"operators": ["opening"], "heights": [1, 5], "widths": [3]},
        "margin": {"kind": "softmax", "scale": 1},
        "score": {"layers": ["layer1"]},
    },
    "evaluate": {"cost": {"overkill": 1, "escape": 1e-300, "defect_rate": 0.1}},
    "register": {"tracking_uri": "http://tracking:5000"},
}


@pytest.mark.parametrize("line", ["everything", "pv-mono"])
def test_settings_come_back_exactly(line: str) -> None:
    raw = {"lines": {line: EVERYTHING}}
    settings = (resolve(raw) if line == "everything" else load_settings(REPO / "params.yaml")).line(line)
    text = line_to_json(settings)
    assert line_from_json(text) == settings
    assert line_to_json(line_from_json(text)) == text


def test_a_value_taken_away_from_a_preset_stays_away() -> None:
    settings = resolve({"lines": {"a": {"ingest": {"path": "x"}, "train": {"embedding_layer": ""}}}}).line("a")
    assert line_from_json(line_to_json(settings)).train.embedding_layer == ""


def test_only_what_differs_from_the_defaults_travels() -> None:
    settings = load_settings(REPO / "params.yaml").line("pv-mono")
    text = line_to_json(settings)
    assert len(text) < 800
    assert "max_megapixels" not in text
    assert json.loads(text)["ingest"] == {"source": "demo", "path": "mono"}


def test_a_step_s_part_changes_with_what_the_step_reads_alone() -> None:
    def part(**changes: object) -> str:
        lines = {"a": {"ingest": {"path": "camera", "white_level": 4095}, **changes}}
        return line_to_json(resolve({"lines": lines}).line("a"), READS["train"])

    before = part()
    assert line_from_json(before).ingest.white_level == 4095
    assert "camera" not in before
    assert part(promote={"min_auroc": 0.9}, calibrate={"false_reject_rate": 0.2}) == before
    assert part(train={"image_size": [64, 64]}) != before


def broken(**changes: object) -> str:
    settings = json.loads(line_to_json(LineSettings.model_validate({"ingest": {"path": "x"}})))
    return json.dumps(settings | changes)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{", "not valid JSON"),
        ("[]", "settings of the line"),
        (broken(calibrate={"false_reject_rate": 2, "confidence": 0.9}), "calibrate.false_reject_rate = 2"),
        (broken(defaults="0123456789ab"), "another version of morphad"),
        (broken(colour="red"), "colour: unknown key"),
        (broken(ingest={}), "ingest.path"),
        ('{"ingest":{"path":"x"}}', "'defaults'"),
    ],
)
def test_anything_else_is_refused_by_name(text: str, names: str) -> None:
    with pytest.raises(SettingsError) as refused:
        line_from_json(text)
    assert names in str(refused.value)
