"""`morphad init` and `morphad add-line`: a project in an empty folder, and what is said of its pictures."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from morphad.cli import main
from morphad.jobs import project
from morphad.model.resolution import resolved, tile_count
from morphad.report.trial_page import next_command
from morphad.settings.reading import load_settings

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def pictures(tmp_path: Path, make_set: Callable[..., Path]) -> Path:
    return make_set(tmp_path / "Cap 7", good=50, test_good=0, defects=2, side=16)


def test_a_project_with_a_first_line(folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(pictures)]) == 0
    said = capsys.readouterr().out
    assert "cap-7: 50 good pictures and 2 defect pictures: at most 7.2 % of good parts rejected now" in said
    assert "2 % needs about 194 good ones" in said
    assert said.rstrip().endswith("next: dvc repro")
    line = load_settings(folder / "params.yaml").line("cap-7")
    assert (line.ingest.source, line.ingest.path) == ("folder", str(pictures))
    assert line.calibrate.false_reject_rate == "attainable"
    assert (folder / ".git").is_dir()
    done = subprocess.run(["dvc", "stage", "list"], cwd=folder, capture_output=True, text=True, check=True)
    assert "promote@cap-7" in done.stdout
    ignored = subprocess.run(
        ["git", "check-ignore", "data/cap-7/images/1.png", "data/cap-7/settings/train.json", "mlflow.db"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(ignored.stdout.split()) == 3


def test_a_second_time_nothing_is_touched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init"]) == 0
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert main(["init"]) == 2
    assert "there is a project here" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_lines_are_added_and_comments_stay(
    folder: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init"]) == 0
    inside = folder / "camera"
    pictures.rename(inside)
    table = tmp_path / "parts.csv"
    table.write_text(f"path\n{inside / 'train' / 'good' / '000.png'}\n")
    assert main(["add-line", "caps", "camera"]) == 0
    assert main(["add-line", "lids", "s3://plant/lids"]) == 0
    assert main(["add-line", "tabs", str(table)]) == 0
    assert "tabs: 1 good picture and 0 defect pictures: too few good ones" in capsys.readouterr().out
    text = (folder / "params.yaml").read_text()
    assert "# the lowest that the pictures allow" in text
    lines = load_settings(folder / "params.yaml").lines
    assert [(name, line.ingest.source, line.ingest.path) for name, line in lines.items()] == [
        ("caps", "folder", "camera"),
        ("lids", "s3", "s3://plant/lids"),
        ("tabs", "listing", str(table)),
    ]
    assert "/camera/" in (folder / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add-line", "Cap", "."], "line 'Cap': expected a-z"),
        (["add-line", "cap", "nowhere"], "nowhere: not found; give a folder of pictures"),
        (["add-line", "cap", "empty"], "no images found"),
        (["init", "--line", "cap"], "give their folder, too"),
        (["init", "empty", "--line", "cap"], "no images found"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    folder: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    if arguments[0] == "add-line":
        assert main(["init"]) == 0
    before = sorted(path.name for path in folder.iterdir())
    params = (folder / "params.yaml").read_text() if arguments[0] == "add-line" else ""
    capsys.readouterr()
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before
    if params:
        assert (folder / "params.yaml").read_text() == params


def test_the_rate_in_reach_is_that_of_the_projects_own_split(
    folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init"]) == 0
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("defaults:\n", "defaults:\n  split: {calibration: 0.5}\n"))
    assert main(["add-line", "caps", str(pictures)]) == 0
    assert "at most 3.9 % of good parts rejected now; 2 % needs about 97 good ones" in capsys.readouterr().out


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Pictures of 960 x 1280 px; one of them cannot be read."""
    made = tmp_path / "large"
    made.mkdir()
    for i in range(3):
        Image.fromarray(np.full((960, 1280), 90, np.uint8)).save(made / f"{i}.png")
    (made / "broken.png").write_bytes(b"no image")
    return made


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["8"], "a defect of 8 px: 6 tiles a picture beside the whole picture"),
        (["16.0"], "a defect of 16 px: 2 tiles a picture beside the whole picture"),
        (
            ["0.2", "--mm-per-pixel", "0.016"],
            "a defect of 12.5 px: 4 tiles a picture beside the whole picture",
        ),
        (
            ["40"],
            "a defect of 40 px: no tiles, as it is about 9 px large in the whole picture",
        ),
    ],
)
def test_what_is_to_be_found_is_written_and_what_it_means_is_said(
    folder: Path,
    large: Path,
    asked: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["init", str(large), "--smallest-defect", *asked]) == 0
    assert f"large: {said}" in capsys.readouterr().out
    assert main(["add-line", "again", str(large), "--smallest-defect", *asked]) == 0
    assert f"again: {said}" in capsys.readouterr().out
    for name in ("large", "again"):
        settings = load_settings(folder / "params.yaml").line(name)
        written = settings.train.resolution.model_dump(exclude_none=True)
        assert list(written.values()) == [float(word) for word in asked if word[0] != "-"]
        sizes = [(960, 1280)]
        found = resolved(settings.train, sizes).resolution.tiled_size  # what the training will do
        assert ("no tiles" in said) == (found is None)
        assert found is None or f" {tile_count(found)} tiles" in said


def test_tiles_are_those_of_the_projects_own_region(
    folder: Path, large: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init"]) == 0
    params = folder / "params.yaml"
    region = "  train: {region: {size: [960, 1280], inspect: [[[0, 0], [479, 479]]]}}\n"
    params.write_text(params.read_text().replace("defaults:\n", f"defaults:\n{region}"))
    assert main(["add-line", "caps", str(large), "--smallest-defect", "8"]) == 0
    assert "caps: a defect of 8 px: 1 tile a picture beside the whole picture" in capsys.readouterr().out


def test_a_bucket_is_not_asked_for_the_sizes_of_its_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "s3://plant/lids", "--smallest-defect", "8"]) == 0
    assert "how many tiles the smallest defect takes is said by the first training" in capsys.readouterr().out
    assert load_settings(folder / "params.yaml").line("lids").train.resolution.smallest_defect == 8


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--smallest-defect", "0"], "'0': expected a number above 0"),
        (["--smallest-defect", "-3"], "'-3': expected a number above 0"),
        (["--smallest-defect", "nan"], "'nan': expected a number above 0"),
        (["--smallest-defect", "8", "--mm-per-pixel", "0"], "'0': expected a number above 0"),
        (
            ["--smallest-defect", "961"],
            "is a defect of 961 px, larger than the pictures: they are 960 x 1,280 px; give",
        ),
        (
            ["--smallest-defect", "20", "--mm-per-pixel", "0.016"],
            "smallest_defect = 20 mm, with mm_per_pixel = 0.016, is a defect of 1250 px, larger than the pictures",
        ),
        (["--mm-per-pixel", "0.016"], "--mm-per-pixel is the scale of --smallest-defect: give that, too"),
    ],
)
def test_a_defect_that_cannot_be_is_refused_and_nothing_is_written(
    folder: Path, large: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert main(["init", str(large), *words]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert says in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_a_smallest_defect_needs_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--smallest-defect", "8"]) == 2
    assert "--smallest-defect is of the line of the pictures: give their folder, too" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_a_line_is_seen_as_it_was_tried(folder: Path, large: Path) -> None:
    tried = {"preset": "fast", "align": "shift", "resolution": {"smallest_defect": 0.2, "mm_per_pixel": 0.016}}
    words = shlex.split(next_command(large, {**tried, "optimiser": {"steps": 5}}))
    assert main(["caps" if word == "NAME" else word for word in words[1:]]) == 0
    assert YAML(typ="safe").load(folder / "params.yaml")["lines"]["caps"]["train"] == tried


def test_what_tiles_mean_is_said_without_torch(folder: Path, large: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None  # as if it were not installed\n"
        "from morphad.cli import main\n"
        f"assert main(['init', {str(large)!r}, '--smallest-defect', '8']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 tiles" in done.stdout


def test_a_line_is_added_to_a_project_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["add-line", "cap", "."]) == 2
    assert "run morphad init" in capsys.readouterr().err


def test_the_template_is_the_repositorys_own() -> None:
    template = Path(project.__file__).with_name("template")
    assert (template / "dvc.yaml").read_text() == (REPO / "dvc.yaml").read_text()
    settings = YAML(typ="safe").load(template / "params.yaml")
    assert settings["lines"] == {}
    own = set((template / "gitignore").read_text().splitlines())
    assert own <= set((REPO / ".gitignore").read_text().splitlines())
