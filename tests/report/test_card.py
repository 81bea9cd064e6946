"""The card says what was measured, names what was not, and what people wrote stays text in it."""

import html
import re
from typing import Any

import mistune
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from morphad.data.manifest import SCHEMA
from morphad.decision.calibration import Calibration, calibrate
from morphad.decision.grounds import Grounds, RoleFacts
from morphad.decision.metrics import evaluate
from morphad.report.card import MOST_KINDS, CardFacts, card
from morphad.report.markdown import code, prose
from morphad.report.verdict import verdict
from morphad.settings import EvaluateSettings, LineSettings
from morphad.settings.reading import resolve

TRAINING = {"backbone": "efficientnet_lite0", "weights": "packaged", "image_size": [224, 224], "colour": "rgb"}
PACKAGED = {"file": "lite0.pth", "sha256": "e" * 64, "licence": "Apache-2.0", "package": "efficientnet-lite0-model"}
OWN = {"file": "own.safetensors", "sha256": "d" * 64, "licence": "", "package": ""}
render = mistune.create_markdown(escape=False, plugins=["table", "url", "strikethrough"])


def settings(**sections: Any) -> LineSettings:
    return resolve({"lines": {"caps": {"ingest": {"path": "x"}, **sections}}}).line("caps")


def figures(
    good: int = 30,
    kinds: dict[str, tuple[int, int]] | None = None,
    threshold: float | None = 10.0,
    masks: bool = False,
) -> dict[str, Any]:
    """Figures of a model that misses so many of so many images of each kind, and rejects one good part."""
    kinds = {"spot": (2, 20), "scratch": (3, 4)} if kinds is None else kinds
    labels, names, scores = ["good"] * good, [""] * good, [*np.linspace(1, 9, good - 1), 11.0]
    for kind, (missed, n) in kinds.items():
        labels += ["defect"] * n
        names += [kind] * n
        scores += [5.0] * missed + [20.0] * (n - missed)
    drawn = [np.zeros((8, 8), bool) for _ in labels] if masks else None
    if drawn is not None:
        for mask in drawn[good:]:
            mask[:2] = True
    maps = None if drawn is None else [np.random.default_rng(n).random((8, 8), np.float32) for n in range(len(labels))]
    found = evaluate(
        labels,
        scores,
        settings=EvaluateSettings(bootstrap=100),
        threshold=threshold,
        kinds=names,
        masks=drawn,
        maps=maps,
    )
    return {**found, "grounds": grounds().to_json()}


def grounds(sessions: int = 4) -> Grounds:
    facts = RoleFacts(40, sessions, 0, 400.0)
    return Grounds("lot", {"train": facts, "calibration": facts, "holdout": facts}, 0, 0, ())


def rows(**columns: Any) -> pd.DataFrame:
    """A manifest with roles: 6 good images and a defect."""
    frame = pd.DataFrame({
        "role": ["train"] * 3 + ["calibration"] * 2 + ["holdout"] * 2,
        "label": ["good"] * 6 + ["defect"], "defect": [""] * 6 + ["spot"],
        "mode": "RGB", "bit_depth": 8, "height": 900, "width": 1200, **columns,
    })  # fmt: skip
    for field in SCHEMA:
        if field.name not in frame:
            frame[field.name] = "" if str(field.type) == "string" else 0
    return frame


def facts(**changed: Any) -> CardFacts:
    origin = {"data_hash": "a" * 64, "holdout_id": "f" * 64, "morphad": "0.1.0", "code_revision": "0123abc"}
    return CardFacts.of(changed.pop("rows", rows()), **{**origin, **changed})


def made(metrics: dict[str, Any] | None = None, calibration: Calibration | None = None, **changed: Any) -> str:
    return card(
        "caps",
        figures() if metrics is None else metrics,
        calibration or calibrate(np.arange(118.0), 0.05),
        settings=changed.pop("settings", settings()),
        training=TRAINING | changed.pop("training", {}),
        weights=changed.pop("weights", PACKAGED),
        facts=facts(**changed),
    )


def test_the_head_is_the_verdict_and_its_warnings() -> None:
    metrics, calibration = figures(), calibrate(np.arange(118.0), 0.05)
    metrics["grounds"] = grounds(sessions=2).to_json()
    found = verdict(metrics, calibration)
    page = html.unescape(re.sub("<[^>]+>", "", render(made(metrics, calibration))))
    assert page.startswith(f"Model card: caps\n{found.sentence}\n")
    assert "The threshold rests on 2 lots" in found.warnings[0]
    assert all(warning in page for warning in found.warnings)


def test_guarantee_and_figures_come_with_counts_and_intervals() -> None:
    text = made()
    assert "At most 5 % of good parts are rejected on average, guaranteed from 118 good images" in text
    assert "Overkill: 1 of 30 good images rejected: 3.3 % (0.1 to 17.2 %)" in text
    assert "Escapes: 5 of 24 defects missed: 20.8 % (7.1 to 42.2 %)" in text
    assert "Good images come from 4 lots (40 images) for training" in text


def test_kinds_are_listed_worst_first_and_few_images_are_called_few() -> None:
    lines = made().split("\n")
    first, second = (n for n, line in enumerate(lines) if line.startswith(("- `scratch`", "- `spot`")))
    assert lines[first] == "- `scratch`: 3 of 4 missed: 75.0 % (19.4 to 99.4 %); few images, so this says little"
    assert lines[second] == "- `spot`: 2 of 20 missed: 10.0 % (1.2 to 31.7 %)"


def test_blind_spots_are_named() -> None:
    known = settings(validate={"defect_kinds": ["spot", "scratch", "burn"]})
    late = rows(role=["train"] * 3 + ["calibration"] * 2 + ["holdout", "excluded"], defect=[""] * 6 + ["dent"])
    text = made(settings=known, rows=late)
    assert "without a single image: `burn`." in text
    assert "images of, but none in the holdout: `dent`." in text
    assert "missed more often than found: `scratch`." in text
    assert "fewer than 10 images: `scratch`." in text
    assert "No defect has a mask" in text
    assert "Images: 900 x 1,200 px (height x width), RGB, 8 bit. Other sizes and formats were not tested." in text
    assert "resized to 224 x 224 px: a pixel there stands for up to 5.4 pixels" in text


def test_what_was_measured_is_not_called_unknown() -> None:
    text = made(figures(kinds={"spot": (0, 20)}, masks=True))
    for wrong in ("has a mask", "have a mask", "missed more often", "fewer than 10", "16-bit", "without a single"):
        assert wrong not in text
    assert "AUPRO: " in text


def test_tiles_are_named_with_what_a_pixel_of_them_stands_for() -> None:
    text = made(training={"resolution": {"tiled_size": [448, 608]}})
    assert (
        "Every image is seen whole at 224 x 224 px, and in tiles at 448 x 608 px: a pixel there stands for up to 2.0"
    ) in text
    assert "in tiles" not in made(training={"resolution": {"tiled_size": None}})


def test_the_region_is_named_for_who_relies_on_verdicts() -> None:
    region = {"inspected": 0.25, "box": [448, 300], "masks_outside": 2}
    text = made({**figures(masks=True), "region": region})
    assert "**What is inspected.** 25.0 % of the picture is inspected (train.region). Outside nothing is" in text
    assert "2 defect images have their masks wholly outside." in text
    assert (
        "image's region of 448 x 300 px is resized to 224 x 224 px: a pixel there stands for up to 2.0 pixels" in text
    )
    assert "What is inspected" not in made()


def test_it_says_that_parts_are_put_in_place_and_how_many_were_not_found() -> None:
    text = made({**figures(), "align": {"kind": "similarity", "lost": {"good": 1, "defect": 3}}})
    assert "**What is inspected.** Shifts, turns and sizes of the part are made good first (train.align)" in text
    assert "1 good image and 3 defect images of the holdout" in text


def test_data_tell_their_time_cameras_and_roles() -> None:
    days = ["2026-01-03T10:00:00", "2026-02-11", "", "2026-01-20", "", "2026-02-01", "2026-01-09"]
    text = made(rows=rows(acquired=days, camera=["top"] * 4 + ["side"] * 3), data_version="caps/2026-02-12-abc")
    assert "Taken from `2026-01-03` to `2026-02-11`; the time of 2 images is not known." in text
    assert "From 2 cameras." in text
    assert "Calibration: 2 good, 0 defect" in text
    assert "Holdout: 1 good, 1 defect" in text
    assert "Data version: `caps/2026-02-12-abc`" in text
    assert f"Data hash: `{'a' * 64}`" in text
    unknown = made()
    assert "When the images were taken is not known." in unknown
    assert "Which camera took them is not known." in unknown


def test_16_bit_images_tell_where_white_is() -> None:
    bright = settings(ingest={"path": "x", "white_level": 4095})
    assert "16-bit values from 4,095 on are white" in made(rows=rows(mode="I;16", bit_depth=16), settings=bright)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (PACKAGED, f"`lite0.pth` of the package efficientnet-lite0-model, SHA-256 `{'e' * 64}`; licence: `Apache-2.0`"),
        (None, "`efficientnet_lite0` with random weights, trained on the images of the line alone"),
        (OWN, f"`own.safetensors` given by the user, SHA-256 `{'d' * 64}`; licence: not stated (`train.weights"),
        ({**OWN, "licence": "DINOv3 License"}, "licence: `DINOv3 License`"),
    ],
)
def test_weights_are_named_with_file_hash_and_licence(weights: dict[str, str] | None, said: str) -> None:
    assert said in made(weights=weights)


def test_licence_and_origin_are_told_or_called_unknown() -> None:
    text = made(licence="CC BY 4.0", image_digest="sha256:" + "0" * 64)
    assert "Images: `CC BY 4.0`" in text
    assert f"Container image: `sha256:{'0' * 64}`" in text
    assert "Code revision: `0123abc`" in text
    bare = made(code_revision="")
    assert "Images: not known" in bare
    assert "Code revision: not known" in bare
    assert "Container image: not known" in bare


def test_without_defects() -> None:
    text = made(figures(kinds={}), rows=rows(label="good", defect=""))
    assert "How many defects it misses is not known." in text
    assert "There is no defect in the holdout" in text
    assert "Escapes: not measured, because the holdout has no defects\n" in text
    assert "## Kinds of defect" not in text


def test_without_a_threshold() -> None:
    text = made(figures(threshold=None), calibrate(np.arange(12.0), 0.05))
    assert "**This model has no threshold and cannot reject parts" in text
    assert "Not attainable with 12 images" in text
    assert "Overkill: not measured, because there is no threshold" in text
    assert "- `spot`: 20 images, AUROC " in text
    assert "missed" not in text.split("## Kinds of defect")[1].split("##")[0]
    assert "It holds as long as" not in text


def test_sixty_kinds_are_cut_and_the_card_says_where_they_are() -> None:
    text = made(figures(kinds={f"kind {n:02}": (n % 5, 20) for n in range(60)}))
    section = text.split("## Kinds of defect\n\n")[1].split("\n\n")[0].split("\n")
    assert len(section) == MOST_KINDS + 1
    assert section[-1].startswith(
        "- 48 further kinds with 960 images together, of which 72 were missed; all are listed"
    )
    assert "report/metrics.json" in section[-1]
    assert len(text) < 6000


def test_the_card_fits_on_two_screens() -> None:
    assert len(made().split("\n")) < 80


NASTY = [
    "<script>alert(1)</script>",
    "[click](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "https://evil.example",
    "www.evil.example and anna@evil.example @anna",
    "a`b``c` | d |\n\n# heading\n- item\n> quote",
    "`",
    "``` `` ` <b>",
    "\\`<img src=x onerror=alert(1)>\\`",
    "&lt;b&gt;",
    "Riss \u202e(tief)\u2028\x00\x1b[31m",
    "   ",
]


@pytest.mark.parametrize("text", NASTY)
def test_text_from_elsewhere_stays_text(text: str) -> None:
    def tags(text: str) -> list[str]:
        page = render(made(figures(kinds={text: (2, 12), "spot": (0, 12)}), licence=text, data_version=text))
        return re.findall(r"</?[a-zA-Z0-9]+[^<]*?>", page)

    without = [tag for tag in tags("plain") if "code" not in tag]
    assert [tag for tag in tags(text) if "code" not in tag] == without


@given(st.text())
@example("`a")
@example("a``")
def test_inline_code_shows_exactly_the_text(text: str) -> None:
    printable = "".join(c for c in " ".join(text.split()) if c.isprintable() or c == " ")
    if printable != " ".join(text.split()) or not printable or len(printable) > 60:
        return
    assert html.unescape(render(f"x {code(printable)} y")) == f"<p>x <code>{printable}</code> y</p>\n"


@given(st.text(alphabet="ab_*`~[]()<>&#|\\ .", min_size=1))
def test_prose_reads_as_it_was_written(text: str) -> None:
    shown = html.unescape(re.sub("<[^>]+>", "", render(f"x{prose(text)}x"))).strip()
    assert shown == f"x{' '.join(text.split())}x"
