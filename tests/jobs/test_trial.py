"""`morphad try`: a folder of pictures to a page, with nothing else."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest

from morphad.cli import main
from morphad.settings import presets
from tiny import TRAIN


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(presets, "PRESETS", MappingProxyType({"default": TRAIN, "fast": TRAIN}))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_pictures_to_a_page(tmp_path: Path, make_set: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    pictures = make_set(tmp_path / "caps", good=50, test_good=0, defects=3)
    others = make_set(tmp_path / "others", good=2, test_good=0, defects=2, seed=3)
    (pictures / "train" / "good" / "broken.png").write_bytes(b"no image")
    assert main(["try", str(pictures), "--also", str(others / "test"), str(others / "train")]) == 0
    said = capsys.readouterr().out
    assert "With 50 good pictures a threshold can promise that at most 7.2 % of good parts are rejected" in said
    assert "broken.png: " in said
    verdicts = [line.split("\t")[0] for line in said.splitlines() if line.endswith(".png") and "\t" in line]
    assert len(verdicts) == 4
    assert set(verdicts) <= {"accept", "reject"}
    assert f"morphad init {pictures} --line NAME" in said
    page = Path("try.html").read_text()
    assert "broken.png" in page
    assert page.count("<figure>") == 6 + 3 + 4
    assert "http" not in page.replace("http-equiv", "")
    assert [path.name for path in Path().iterdir()] == ["try.html"]


def test_a_picture_that_cannot_be_read_has_no_verdict(
    tmp_path: Path, make_set: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = make_set(tmp_path / "caps", good=20, test_good=0, defects=0)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    assert main(["try", str(pictures), "--also", str(bad)]) == 2
    assert "bad.png: " in capsys.readouterr().out


def test_too_few_pictures_are_refused_before_anything_is_learned(
    tmp_path: Path, make_set: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = make_set(tmp_path / "caps", good=12, test_good=0, defects=0)
    assert main(["try", str(pictures)]) == 2
    assert "12 good pictures that can be read; a trial needs at least 13" in capsys.readouterr().err
    assert not Path("try.html").exists()


def test_small_defects_are_asked_for_here_and_in_the_next_step(
    tmp_path: Path, make_set: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = make_set(tmp_path / "my caps", good=20, test_good=0, defects=0, side=160)
    monkeypatch.setattr(presets, "PRESETS", MappingProxyType({"default": {**TRAIN, "image_size": [64, 64]}}))
    asked = ["--smallest-defect", "0.2", "--mm-per-pixel", "0.025"]
    assert main(["try", str(pictures), *asked]) == 0
    said = capsys.readouterr().out
    assert "a defect of 8 px: 1 tile a picture beside the whole picture" in said
    page = Path("try.html").read_text()
    following = said.splitlines()[-1].split(", ")[1]
    assert following == f"morphad init '{pictures}' --line NAME {' '.join(asked)}"
    assert following.replace("'", "&#39;") in page
    assert "A picture, 160 x 160 px, is seen whole at 64 x 64 px: 40\N{NO-BREAK SPACE}% of its scale." in page
    assert "It is also seen in 1 tile cut from it at 160 x 160 px: 100\N{NO-BREAK SPACE}% of its scale." in page
    (tmp_path / "plant").mkdir()
    monkeypatch.chdir(tmp_path / "plant")
    assert main(shlex.split(following.replace("NAME", "caps"))[1:]) == 0
    assert "caps: a defect of 8 px: " in capsys.readouterr().out


def test_a_defect_larger_than_the_pictures_is_refused_before_anything_is_learned(
    tmp_path: Path, make_set: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = make_set(tmp_path / "caps", good=20, test_good=0, defects=0)
    assert main(["try", str(pictures), "--smallest-defect", "5000"]) == 2
    assert "is a defect of 5000 px, larger than the pictures" in capsys.readouterr().err
    assert main(["try", str(pictures), "--mm-per-pixel", "0.1"]) == 2
    assert "--mm-per-pixel is the scale of --smallest-defect" in capsys.readouterr().err
    assert not Path("try.html").exists()


def test_it_needs_nothing_but_the_core() -> None:
    code = (
        "import sys\n"
        "for name in ('mlflow', 'dvc', 'boto3', 'great_expectations', 'matplotlib', 'sklearn', 'kfp'):\n"
        "    sys.modules[name] = None  # as if it were not installed\n"
        "import morphad.jobs.trial, morphad.jobs.predict, morphad.model.training.fit\n"
        "from morphad.cli import main\n"
        "assert main(['status']) == 2\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'pip install "morphad[pipeline]"' in done.stderr
