import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from morphad.base.errors import BadInputError
from morphad.decision.calibration import calibrate
from morphad.decision.grounds import Grounds, RoleFacts
from morphad.decision.metrics import evaluate, histogram_rows, roc_points
from morphad.model.sight import Sight
from morphad.report.page import DataFacts, Example, IndexEntry, PageData, example_indices, write_index, write_page
from morphad.report.verdict import verdict
from morphad.settings import CostSettings, EvaluateSettings
from morphad.settings.presets import train_settings

SETTINGS = EvaluateSettings(bootstrap=100, cost=CostSettings(overkill=1, escape=100, defect_rate=0.01))
HOSTILE = "<script>alert('x')</script>&\".png"


class _Elements(HTMLParser):
    """Every start tag with its attributes, and whether each non-void element is closed."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _page(n_good=30, n_defect=12, n_calibration=40, side=(60, 90), **changes):
    rng = np.random.default_rng(0)
    labels = ["good"] * n_good + ["defect"] * n_defect
    kinds = [""] * n_good + ["dent", "scratch"] * (n_defect // 2)
    scores = rng.normal(size=len(labels)) + 3 * (np.array(labels) == "defect")
    calibration = calibrate(rng.normal(size=n_calibration), 0.05)
    rejected = calibration.rejected(scores)
    mask = np.zeros(side, bool)
    mask[10:20, 10:30] = True
    examples = [
        Example(
            rng.integers(0, 255, size=(*side, 3) if i % 2 else side, dtype=np.uint8),
            rng.normal(size=side).astype(np.float32),
            mask if labels[i] == "defect" else None,
            HOSTILE,
            labels[i],
            kinds[i],
            float(scores[i]),
            0.2,
            None if rejected is None else bool(rejected[i]),
        )
        for i in example_indices(labels, scores)
    ]
    values = {
        "line": "my-line",
        "created": "2025-03-01 14:05 UTC",
        "metrics": evaluate(labels, scores, settings=SETTINGS, threshold=calibration.threshold, kinds=kinds),
        "roc": roc_points(labels, scores),
        "histogram": histogram_rows(labels, scores),
        "calibration": calibration,
        "heatmap_scale": (0.0, 2.0),
        "examples": examples,
        "data": DataFacts(
            "d" * 64, "e" * 64, {"train": {"good": 1200}, "holdout": {"good": 30}}, [(HOSTILE, "truncated")]
        ),
        "training": {"case_accuracy": 0.93, "history": list(range(100))},
        "settings": {"train": {"optimiser": {"steps": 150}, "note": HOSTILE}, "seed": 0},
        "code_version": "0.1.0",
    }
    return PageData(**{**values, **changes})


def _written(folder, page):
    return write_page(folder, page).read_text(encoding="utf-8")


def test_the_page_stands_alone(tmp_path):
    text = _written(tmp_path, _page())
    elements = _Elements(text)
    assert not elements.open
    names = {tag for tag, _ in elements.tags}
    assert not names & {"script", "link", "iframe", "object", "embed"}
    for tag, attributes in elements.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("data:image/", "#")), (tag, attributes)
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)|@import", text)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_large_pictures_have_a_part_at_true_size_with_a_text_for_each_picture(tmp_path):
    images = [
        attributes for tag, attributes in _Elements(_written(tmp_path, _page(side=(700, 900)))).tags if tag == "img"
    ]
    close = [image for image in images if "at true size" in image["alt"]]
    assert len(close) == 2 * 18
    assert {image["width"] for image in close} == {"144"}
    assert all(image["alt"] for image in images)
    assert "at true size" not in _written(tmp_path, _page())


def test_it_says_how_large_pictures_are_seen_and_what_is_outlined(tmp_path):
    region = {"size": [1250, 500], "inspect": [[[20, 60], [479, 1190]]]}
    train = train_settings({"region": region, "resolution": {"smallest_defect": 16}})
    text = _written(tmp_path, _page(sight=Sight.of(train, [(1250, 500)]))).replace("\N{NO-BREAK SPACE}", " ")
    assert "The box around the region, 1,131 x 460 px, is seen whole at 544 x 224 px: 48 % of its scale. There" in text
    train = train_settings({"resolution": {"smallest_defect": 12}})
    examples = [replace(example, inspected=example.heatmap > 0) for example in _page().examples]
    page = _page(sight=Sight.of(train, [(2048, 2448)]), examples=examples)
    text = _written(tmp_path, page).replace("\N{NO-BREAK SPACE}", " ")
    assert "It is also seen in 12 tiles cut from it at 1,376 x 1,632 px: 67 % of its scale." in text
    assert "There a defect of 12 px is about 8 px large." in text
    assert "inspected; what is darkened is not" in text


def test_text_of_users_is_escaped(tmp_path):
    text = _written(tmp_path, _page(line="<b>line</b>"))
    assert "<script" not in text
    assert "<b>line" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    write_index(tmp_path, [IndexEntry("<i>x</i>", "now", verdict(_page().metrics, _page().calibration))])
    assert "<i>" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_ids_are_unique_and_charts_hold_real_text(tmp_path):
    elements = _Elements(_written(tmp_path, _page()))
    ids = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert sum(tag == "svg" for tag, _ in elements.tags) == 2
    assert sum(tag == "text" for tag, _ in elements.tags) > 20


def test_it_shows_figures_kinds_settings_and_hashes(tmp_path):
    text = _written(tmp_path, _page()).replace("\N{NO-BREAK SPACE}", " ")
    for expected in (
        "scratch",
        "train.optimiser.steps",
        "d" * 64,
        "e" * 64,
        "0.1.0",
        "1,200",
        "Operating point by cost",
    ):
        assert expected in text
    assert "at most 5 % guaranteed on average from 40 calibration images" in text
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower().replace("finance", "")


def test_it_says_what_the_threshold_rests_on(tmp_path):
    facts = RoleFacts(40, 4, 0, 400.0)
    grounds = Grounds("lot", {"train": facts, "calibration": facts, "holdout": facts}, 0, 0, ())
    page = _page()
    page.metrics["grounds"] = grounds.to_json()
    text = write_page(tmp_path, page).read_text()
    assert "Rests on" in text
    assert "4 lots (40 images) for calibration" in text
    assert "Rests on" not in write_page(tmp_path, _page()).read_text()


def test_equal_input_gives_equal_bytes(tmp_path):
    assert _written(tmp_path / "a", _page()) == _written(tmp_path / "b", _page())


def test_large_images_make_a_page_below_five_megabytes(tmp_path):
    page = _page(side=(700, 900))
    assert len(page.examples) == 18
    assert len(_written(tmp_path, page).encode()) < 5e6


@pytest.mark.parametrize(
    "case",
    [{"n_defect": 0}, {"n_calibration": 3}, {"n_calibration": 0, "n_defect": 0}, {"n_good": 0}, {"side": (400, 3)}],
)
def test_whatever_is_missing_there_is_a_page(tmp_path, case):
    _Elements(_written(tmp_path, _page(**case)))


def test_a_page_without_examples_settings_or_counts(tmp_path):
    bare = _page(examples=[], settings={}, training={}, data=DataFacts("d", "e", {}))
    _Elements(_written(tmp_path, bare))


def test_too_few_calibration_images_are_the_first_thing_said(tmp_path):
    text = _written(tmp_path, _page(n_calibration=12)).replace("\N{NO-BREAK SPACE}", " ")
    assert "has no threshold and cannot reject parts" in text
    assert "until at least 19 are kept for calibration (7 more)" in text
    assert "alarm" in text


def test_examples_are_the_worst_and_the_clearest_of_each_label():
    labels = ["good"] * 20 + ["defect"] * 4
    chosen = example_indices(labels, np.arange(24.0))
    assert chosen == [20, 21, 22, 23, 19, 18, 17, 16, 15, 14, 2, 1, 0]
    assert example_indices([], []) == []


def test_the_index_links_every_line(tmp_path):
    page, few = _page(), _page(n_calibration=3)
    entries = [
        IndexEntry(line, "today", verdict(p.metrics, p.calibration)) for line, p in (("line-b", page), ("line-a", few))
    ]
    text = write_index(tmp_path, entries).read_text(encoding="utf-8")
    links = [attributes["href"] for tag, attributes in _Elements(text).tags if tag == "a"]
    assert links == ["line-a/index.html", "line-b/index.html"]
    assert "per shift of 5,000 parts" in text
    assert "run the evaluate step" in write_index(tmp_path, []).read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises((BadInputError, OSError), match="taken"):
        write_page(tmp_path / "taken", _page())


def test_no_secret_of_the_settings_gets_onto_the_page(tmp_path):
    settings = {
        "register": {"tracking_uri": "postgresql://anna:hush/hu@sh hush@db.plant/mlflow", "api_key": "hush"},
        "ingest": {"path": "s3://KEY:hush@bucket/x", "verdicts": "https://h/v.csv?X-Amz-Signature=hush"},
    }
    text = _written(tmp_path, _page(settings=settings, training={"from": "http://u:hush@h"}))
    text = re.sub(r'"data:image/[^"]*"', "", text)  # where any three letters can stand
    assert "hush" not in text and "KEY" not in text and "anna" not in text
    assert "postgresql://***@db.plant/mlflow" in text
