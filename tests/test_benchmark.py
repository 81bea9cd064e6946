"""`morphad benchmark` on two tiny sets, with a preset as small as it gets."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import psutil
import pytest

from exhaustive import EXHAUSTIVE
from morphad.base.errors import BadInputError
from morphad.cli import main
from morphad.jobs import benchmark
from morphad.settings import presets
from tiny import TRAIN

KEYS = {
    "image_auroc", "image_ap", "pixel_auroc", "aupro", "per_defect", "fit_seconds", "images_per_second", "peak_rss_mb",
    "n_train", "n_test", "interval", "case_accuracy",
}  # fmt: skip


class HereExecutor:
    """Runs in this process, which knows the tiny preset; a fresh process is tried once, below."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> "HereExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "HereExecutor":
        self.call = lambda: function(*arguments)
        return self

    def result(self) -> Any:
        return self.call()


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "PRESETS", MappingProxyType({"default": TRAIN, "paper": TRAIN}))
    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", HereExecutor)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make_set: Callable[..., Path]) -> Path:
    root = tmp_path_factory.mktemp("sets")
    make_set(root / "felt", good=20, test_good=5, defects=4, seed=1)
    make_set(root / "net", good=20, test_good=5, defects=4, seed=2)
    (root / "notes").mkdir()
    (root / "licence.txt").write_text("text")
    return root


@pytest.mark.usefixtures("_quick")
class TestRun:
    def test_every_set_has_its_figures(self, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "results" / "figures.json"
        assert main(["benchmark", str(sets), "--out", str(out)]) == 0
        results = json.loads(out.read_text())

        assert list(results) == ["felt", "net"]
        for row in results.values():
            assert set(row) == KEYS
            assert set(row["per_defect"]) == {"spot"}
            assert row["per_defect"]["spot"] == row["image_auroc"] > 0.9
            assert row["pixel_auroc"] > 0.9
            assert (row["n_train"], row["n_test"]) == (20, 9)
            assert row["fit_seconds"] > 0
            assert row["images_per_second"] > 0
            assert row["peak_rss_mb"] > 50
        table = capsys.readouterr().out
        assert [line.split()[0] for line in table.splitlines()] == ["set", "felt", "net", "written"]
        assert str(out) in table

    def test_a_set_can_be_chosen_or_be_the_root(self, sets: Path, tmp_path: Path) -> None:
        for root, chosen in ((sets, ["--sets", "net"]), (sets / "net", []), (sets / "net", ["--sets", "net"])):
            out = tmp_path / "figures.json"
            assert main(["benchmark", str(root), *chosen, "--preset", "paper", "--out", str(out)]) == 0
            assert list(json.loads(out.read_text())) == ["net"]

    def test_figures_of_equal_seeds_are_equal(self, sets: Path) -> None:
        timed = {"fit_seconds", "images_per_second", "peak_rss_mb"}
        first, second = (benchmark.measure(sets / "net", {"preset": "default"}, 5) for _ in range(2))
        assert {key: first[key] for key in KEYS - timed} == {key: second[key] for key in KEYS - timed}

    def test_labels_of_the_test_images_do_not_reach_the_scores(
        self, make_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[list[str], list[float]]] = []
        evaluate = benchmark.evaluate

        def watch(labels: list[str], scores: list[float], **others: Any) -> dict[str, Any]:
            seen.append((labels, scores))
            return evaluate(labels, scores, **others)

        monkeypatch.setattr(benchmark, "evaluate", watch)
        root = make_set(tmp_path / "set", good=20, test_good=4, defects=4)
        benchmark.measure(root, {"preset": "default"}, 0)
        # Good and defect change their names; the order of the files stays.
        (root / "ground_truth").rename(tmp_path / "masks")
        (root / "test" / "good").rename(root / "test" / "crack")
        (root / "test" / "spot").rename(root / "test" / "good")
        benchmark.measure(root, {"preset": "default"}, 0)

        (labels, scores), (other_labels, other_scores) = seen
        assert labels == ["good"] * 4 + ["defect"] * 4
        assert other_labels == ["defect"] * 4 + ["good"] * 4
        np.testing.assert_allclose(other_scores, scores, rtol=1e-5)

    def test_what_is_not_there_is_told(self, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = ["--out", str(tmp_path / "figures.json")]
        for arguments, told in (
            ([str(sets), "--sets", "net,wool"], "no set 'wool'; sets there: felt, net"),
            ([str(sets / "net"), "--sets", "felt"], "no set 'felt'; sets there: net"),
            ([str(sets / "notes")], "no folder with train/good in it"),
            ([str(sets / "nowhere")], "no such folder"),
            ([str(sets / "licence.txt")], "no such folder"),
        ):
            assert main(["benchmark", *arguments, *out]) == 2
            assert told in capsys.readouterr().err
        assert not (tmp_path / "figures.json").exists()

    def test_a_place_that_cannot_be_written_is_told_before_the_work(
        self, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def work(*_: object) -> None:
            raise AssertionError("worked in vain")

        monkeypatch.setattr(benchmark, "measure", work)
        (tmp_path / "file").write_text("old")
        for out in (tmp_path, tmp_path / "file" / "figures.json"):
            assert main(["benchmark", str(sets), "--out", str(out)]) == 2
            assert "cannot write" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_a_set_without_test_images_is_told(self, make_set: Callable[..., Path], tmp_path: Path) -> None:
        root = make_set(tmp_path / "set", good=20, test_good=0, defects=0)
        with pytest.raises(BadInputError, match=r"expected images in train/good and in test/; got 20 and 0"):
            benchmark.measure(root, {"preset": "default"}, 0)


def test_a_damaged_image_comes_back_from_the_other_process_as_one_sentence(
    make_set: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_set(tmp_path / "set", good=20, test_good=2, defects=2)
    (root / "train" / "good" / "007.png").write_bytes(b"no image")
    assert main(["benchmark", str(root), "--out", str(tmp_path / "figures.json")]) == 2
    told = capsys.readouterr().err
    assert "007.png" in told
    assert "Traceback" not in told


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a process that was killed")
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, *([signal.SIGTERM] if EXHAUSTIVE else [])])
def test_a_benchmark_that_is_killed_leaves_no_process_behind(ended_by: signal.Signals) -> None:
    script = (
        "import time; from morphad.jobs.benchmark import fresh_process\n"
        "if __name__ == '__main__':\n"
        "    with fresh_process() as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True); pool.submit(time.sleep, 600).result()\n"
    )
    with subprocess.Popen([sys.executable, "-c", "import os; " + script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.send_signal(ended_by)
        parent.wait(60)
        assert psutil.wait_procs([child], 30)[1] == []
