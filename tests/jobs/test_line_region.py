"""A region from params.yaml to the page: what is refused, what is drawn, what is traced, what the line's papers say."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from ruamel.yaml import YAML
from scipy import ndimage

from morphad.base.errors import BadInputError
from morphad.base.files import read_json
from morphad.cli import main
from morphad.jobs.tracing import trace
from morphad.model.region import Region
from morphad.settings import Decoding, LineSettings, RegionSettings
from morphad.settings.line_json import line_from_json, line_to_json
from morphad.settings.reading import resolve
from project import LINE, Project, assert_told
from tiny import TRAIN

SIDE = 48
REGION: dict[str, Any] = {"size": [SIDE, SIDE], "inspect": [[[4, 4], [43, 43]]], "ignore": [[[4, 36], [12, 43]]]}


def line(region: Any) -> LineSettings:
    return resolve({"lines": {"caps": {"ingest": {"path": "x"}, "train": {"region": region}}}}).line("caps")


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ({"inspect": [[[0, 0], [5, 5]]]}, "lines.caps.train.region.size: missing"),
        ({"size": [480000, 6400], "ignore": [[[0, 0], [5, 5]]]}, "`size` [480000, 6400] is more than 1,000 megapixels"),
        ({"size": [48, 64]}, "neither `inspect` nor `ignore` has a shape; give one, or leave `region` out"),
        ({"size": [48, 64], "inspect": [[[0, 0], [64, 5]]]}, "`inspect`[0][1] = [64, 5] lies outside the picture"),
        ({"size": [48, 64], "ignore": [[[0, 0], [5, 5]], [[1, 1], [9, 48]]]}, "`ignore`[1][1] = [9, 48] lies outside"),
        ({"size": [48, 64], "inspect": [[[0, -1], [5, 5]]]}, "lines.caps.train.region.inspect[0][0][1] = -1"),
        ({"size": [48, 64], "inspect": [[[0, 0]]]}, "List should have at least 2 items"),
        ({"size": [48, 64], "inspect": [[0, 0, 5, 5]]}, "lines.caps.train.region.inspect[0][0] = 0"),
        ({"size": [48, 64], "inspect": [[[0.5, 0], [5, 5]]]}, "lines.caps.train.region.inspect[0][0][0] = 0.5"),
        ({"size": [48, 64], "inspect": [[[i % 60, i % 40] for i in range(301)]]}, "`inspect` has 301 points"),
        ({"size": [48, 64], "crop": [0, 0, 5, 5]}, "lines.caps.train.region.crop: unknown key"),
    ],
)  # fmt: skip
def test_what_is_no_region_is_named_with_key_and_remedy(region: Any, said: str) -> None:
    with pytest.raises(BadInputError) as error:
        line(region)
    assert said in str(error.value)


def test_a_region_travels_to_a_pod_as_text() -> None:
    settings = line(REGION)
    assert line_from_json(line_to_json(settings)) == settings
    assert line_from_json(line_to_json(settings)).train.region == RegionSettings(**REGION)
    assert "region" not in line_to_json(line(None))


def painted(file: Path, size: tuple[int, int], paint: Callable[[ImageDraw.ImageDraw], None]) -> Path:
    picture = Image.new("RGB", size[::-1], (90, 90, 90))
    paint(ImageDraw.Draw(picture))
    picture.save(file)
    return file


GREEN, RED, GREY = (0, 255, 0), (255, 0, 0), (90, 90, 90)


def test_paint_becomes_shapes_with_holes_and_islands(tmp_path: Path) -> None:
    def paint(pen: ImageDraw.ImageDraw) -> None:
        pen.ellipse((20, 20, 320, 220), fill=GREEN)
        pen.ellipse((100, 60, 180, 140), fill=GREY)  # a hole
        pen.ellipse((200, 60, 280, 140), fill=RED)
        pen.ellipse((230, 90, 250, 110), fill=GREEN)  # an island in what is ignored
        pen.rectangle((350, 100, 380, 160), fill=GREEN)
        pen.point((395, 5), fill=GREEN)  # a slip of the brush

    region, wanted = trace(painted(tmp_path / "p.png", (240, 400), paint), (240, 400), Decoding())
    inside = Region(region).inside
    assert (inside != wanted).mean() < 0.005
    assert inside[100, 240]
    assert inside[130, 365]
    assert not inside[100, 140]
    assert not inside[75, 240]
    assert not wanted[5, 395]
    assert sum(map(len, region.inspect + region.ignore)) < 200


def test_red_alone_leaves_the_rest_inspected(tmp_path: Path) -> None:
    file = painted(tmp_path / "p.png", (60, 80), lambda pen: pen.rectangle((10, 10, 19, 29), fill=RED))
    region, _ = trace(file, (60, 80), Decoding())
    assert region.inspect == ()
    assert Region(region).inside.sum() == 60 * 80 - 10 * 20


STEPS = st.integers(0, 12).map(lambda step: 4 * step)  # a step of one pixel in an outline is smoothed
BORDER = np.ones((3, 3), bool)


@given(
    boxes=st.lists(
        st.tuples(STEPS, STEPS, STEPS.map(lambda side: side + 4), STEPS.map(lambda side: side + 4), st.booleans()),
        min_size=1, max_size=4,
    )
)  # fmt: skip
@hypothesis_settings(max_examples=30)
def test_a_rectangle_is_traced_to_the_pixel_and_corners_between_some_to_one_pixel(
    boxes: list[tuple[int, int, int, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    def paint(pen: ImageDraw.ImageDraw) -> None:
        for top, left, height, width, green in boxes:
            pen.rectangle((left, top, left + width - 1, top + height - 1), fill=GREEN if green else RED)

    file = painted(tmp_path_factory.mktemp("painted") / "p.png", (64, 96), paint)
    region, wanted = trace(file, (64, 96), Decoding())
    if wanted.any():
        inside = Region(region).inside
        if len(boxes) == 1:
            assert (inside == wanted).all()
        assert not (inside & ~ndimage.binary_dilation(wanted, BORDER)).any()
        assert not (ndimage.binary_erosion(wanted, BORDER, border_value=1) & ~inside).any()


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory, make_set: Callable[..., Path]) -> Path:
    return make_set(tmp_path_factory.mktemp("region") / "camera", good=40, test_good=4, defects=4, side=SIDE)


@pytest.fixture
def project(tmp_path: Path, camera: Path) -> Project:
    found = Project(tmp_path)
    found.configure(ingest={"path": str(camera)})
    found.done("ingest")
    return found


def test_a_line_draws_its_region_and_learns_it_from_paint(project: Project) -> None:
    code, out, err = project.run("region")
    assert (code, err) == (0, "")
    assert f"{LINE}: the whole picture is inspected (no train.region)" in out
    template = project.root / "reports" / LINE / "region-template.png"
    with Image.open(template) as picture:
        assert (picture.size, picture.mode) == ((SIDE, SIDE), "RGB")
        picture.load()
    ImageDraw.Draw(picture).rectangle((10, 6, 39, 25), fill=GREEN)
    picture.save(template)

    code, out, err = project.run("region", "--from", f"reports/{LINE}/region-template.png")
    assert (code, err) == (0, "")
    block = YAML(typ="safe").load(out)
    assert block == {"region": {"size": [48, 48], "inspect": [[[10, 6], [39, 6], [39, 25], [10, 25]]]}}
    assert "26.0 % of the picture is inspected" in out
    assert "differ from the paint in 0 % of the picture" in out

    project.configure(ingest={"path": str(project.camera)}, train={**TRAIN, **block})
    code, out, err = project.run("region")
    assert (code, err) == (0, "")
    assert f"{LINE}: 26.0 % of the picture is inspected" in out
    assert "was there, and is as it was" in out
    assert Image.open(template).getpixel((20, 20)) == GREEN
    drawn = np.asarray(Image.open(project.root / "reports" / LINE / "region.png").convert("RGB")).astype(int)
    assert drawn.shape == (SIDE, SIDE, 3)
    assert drawn[6:26, 10:40].mean() > 2 * drawn[30:, :].mean()
    assert tuple(drawn[5, 20]) == (0, 229, 255)


def test_what_cannot_be_drawn_is_told(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "p.png"
    Image.new("RGB", (SIDE, SIDE), GREY).save(file)
    assert_told(project.run("region", "--from", str(file)), 2, "nothing is painted on it", "#00ff00", "PNG")
    Image.new("RGB", (SIDE, SIDE + 1), GREEN).save(file)
    assert_told(project.run("region", "--from", str(file)), 2, "is 49 x 48 px", "pictures are 48 x 48 px")
    assert_told(project.run("region", "--from", str(tmp_path / "no.png")), 2, "no.png: not found")
    other = {**REGION, "size": [50, 50]}
    project.configure(ingest={"path": str(project.camera)}, train={**TRAIN, "region": other})
    assert_told(project.run("region"), 2, "is 48 x 48 px", "drawn on pictures of 50 x 50 px", "region-template.png")
    assert (project.root / "reports" / LINE / "region-template.png").exists()


def test_a_line_that_was_not_ingested_is_told_so(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.configure()
    assert_told(project.run("region"), 2, "manifest.parquet: not found; run `morphad ingest` first")


def test_a_line_with_a_region_says_so_on_page_and_figures(project: Project) -> None:
    project.configure(
        ingest={"path": str(project.camera)}, train={**TRAIN, "region": REGION}, calibrate={"false_reject_rate": 0.2}
    )
    project.done("split", "train", "calibrate", "evaluate")
    figures = read_json(project.place.report / "metrics.json")
    share = (40 * 40 - 9 * 8) / SIDE**2
    assert figures["region"] == {"inspected": pytest.approx(share), "box": [40, 40], "masks_outside": 0}
    said = "66.3\N{NO-BREAK SPACE}% of the picture is inspected (train.region). Outside nothing is inspected"
    assert said in (project.place.report / "index.html").read_text()


def test_training_names_the_first_picture_of_another_size(project: Project, make_set: Callable[..., Path]) -> None:
    project.done("split")
    project.configure(ingest={"path": str(project.camera)}, train={**TRAIN, "region": {**REGION, "size": [48, 60]}})
    outcome = project.run("train")
    assert_told(outcome, 2, ".png is 48 x 48 px", "drawn on pictures of 48 x 60 px", "and so ", "morphad region")


def test_the_help_has_an_example() -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        main(["region", "--help"])
    assert "example: morphad region pv-mono --from reports/pv-mono/region-template.png" in out.getvalue()
