"""The program that leaves few good images of a set."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import few
from morphad.base.errors import BadInputError


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_few_training_images_stay_and_all_others(
    make_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_set(tmp_path / "set", good=20, test_good=3, defects=2)
    for target in ("once", "again"):
        monkeypatch.setattr("sys.argv", ["few", str(root), str(tmp_path / target), "--images", "4"])
        few.main()
    left = names(tmp_path / "once")
    training = {name for name in left if name.startswith("train/")}
    assert len(training) == 4
    assert left - training == {name for name in names(root) if not name.startswith("train/")}
    assert left == names(tmp_path / "again")
    assert "train/good 4 of 20" in capsys.readouterr().out

    with pytest.raises(BadInputError, match="is there already"):
        few.main()
    monkeypatch.setattr("sys.argv", ["few", str(root), str(tmp_path / "more"), "--images", "21"])
    with pytest.raises(BadInputError, match="at least 21 images in train/good, got 20"):
        few.main()
    assert not (tmp_path / "more").exists()
