"""The command line as a person uses it: a whole line from pictures to verdicts, and every way it can go wrong."""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from morphad.base import files
from morphad.cli import main
from morphad.data.manifest import read_manifest
from morphad.registry import Registry
from morphad.settings.reading import load_settings
from project import LINE, VERBS, Project, assert_told, untimed
from tiny import TRAIN


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_set: Callable[..., Path]) -> tuple[Project, dict[str, str]]:
    """A line through all eight verbs, and what each of them said. Not to be changed."""
    project = Project(tmp_path_factory.mktemp("whole"))
    make_set(project.camera)
    project.configure()
    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for verb in VERBS:
            code, out, err = project.run(verb)
            assert code == 0, out + err
            assert err == ""
            said[verb] = out
    return project, said


@pytest.fixture
def copy(whole: tuple[Project, dict[str, str]], tmp_path: Path) -> Project:
    """The same, to be changed; with its own registry, still empty."""
    ignored = shutil.ignore_patterns("mlflow.db", "mlartifacts", "registration.json", "decision.json")
    project = Project(Path(shutil.copytree(whole[0].root, tmp_path / "project", ignore=ignored)))
    project.configure()
    return project


@pytest.fixture
def fresh(tmp_path: Path, make_set: Callable[..., Path]) -> Project:
    """A line of which nothing has run."""
    project = Project(tmp_path / "project")
    make_set(project.camera, good=30, test_good=2, defects=2)
    project.configure()
    return project


class TestWholeLine:
    def test_every_file_lies_where_the_workspace_says(self, whole: tuple[Project, dict[str, str]]) -> None:
        place = whole[0].place
        for path in (
            place.manifest, place.rejects, place.feedback, place.validation, place.contract_page, place.reference,
            place.split, place.holdout, place.registration, place.decision, place.fitted / "detector.json",
            place.detector / "detector.json",
            place.snapshot / "train" / "good" / "000.png",
        ):  # fmt: skip
            assert path.is_file(), path
        assert not place.checkpoint.exists()
        assert {path.name for path in place.report.iterdir()} == {
            "metrics.json", "roc.json", "histogram.json", "predictions.csv", "examples.png", "index.html",
            "contract.html",
        }  # fmt: skip
        left = [path for path in whole[0].root.rglob(".*") if "mlartifacts" not in path.parts]
        assert left == []

    def test_every_verb_says_what_came_of_it(self, whole: tuple[Project, dict[str, str]]) -> None:
        for verb, told in {
            "ingest": "86 good and 8 defect images, 0 left out, data ",
            "validate": "the data keeps its contract",
            "split": " holdout ",
            "train": "of the morphological cases",
            "calibrate": "at most 10 % of good parts are rejected on average",
            "evaluate": "index.html",
            "register": f"morphad-{LINE} version 1 registered as challenger",
            "promote": "Promoted",
        }.items():
            assert whole[1][verb].startswith(f"{LINE}: ")
            assert told in whole[1][verb]
            assert re.search(r"[^\n] \(\d+\.\d s\)\n\Z", whole[1][verb])  # how long it took

    def test_figures_are_complete_and_the_spots_are_found(self, whole: tuple[Project, dict[str, str]]) -> None:
        metrics = json.loads((whole[0].place.report / "metrics.json").read_text())
        assert {"image_auroc", "image_ap", "pixel_auroc", "aupro", "per_defect", "n_good", "n_defect"} <= set(metrics)
        assert metrics["n_defect"] == 8
        assert metrics["image_auroc"] > 0.9
        assert metrics["pixel_auroc"] > 0.9
        decision = json.loads(whole[0].place.decision.read_text())
        assert decision["promote"] is True
        assert decision["version"] == 1
        assert decision["champion_before"] is None

    def test_promoted_again_nothing_changes(self, whole: tuple[Project, dict[str, str]]) -> None:
        project, said = whole
        before = project.run("history")
        for _ in range(2):
            code, out, _ = project.run("promote")
            assert (code, untimed(out)) == (0, untimed(said["promote"]))
            assert json.loads(project.place.decision.read_text())["promote"] is True
        assert project.run("history") == before

    def test_registered_again_it_is_there_already(self, whole: tuple[Project, dict[str, str]]) -> None:
        code, out, _ = whole[0].run("register")
        assert code == 0
        assert "version 1 is in the registry already" in out

    def test_history_names_who_decided_what(self, whole: tuple[Project, dict[str, str]]) -> None:
        code, out, _ = whole[0].run("history")
        assert code == 0
        assert "champion" in out
        assert "(name as given, no account) promoted version 1; it is in service." in out

    def test_summary_says_what_came_of_it_and_what_to_do_next(self, whole: tuple[Project, dict[str, str]]) -> None:
        code, out, _ = whole[0].run("summary")
        assert code == 0
        assert out.startswith(LINE)
        assert "Version 1 is champion" in out
        assert "What to do next" in out
        assert f"morphad predict {LINE} IMAGE" in out
        assert f"finish {LINE}" not in out
        assert (whole[0].root / "reports" / "index.html").is_file()

    def test_predict_gives_a_verdict_a_line_and_a_heatmap_each(
        self, whole: tuple[Project, dict[str, str]], tmp_path: Path
    ) -> None:
        project = whole[0]
        spoilt = sorted((project.camera / "test" / "spot").iterdir())
        images = [str(path) for path in spoilt]
        code, out, err = project.run("predict", *images, "--heatmaps", str(tmp_path / "maps"))
        assert (code, err) == (0, f"# model: models:/morphad-{LINE}/1\n")
        head, *rows = [row.split("\t") for row in out.splitlines()]
        assert head == ["verdict", "p_value", "score", "image"]
        assert [row[3] for row in rows] == images
        assert sum(row[0] == "reject" for row in rows) >= 6
        assert all(0 < float(row[1]) <= 1 for row in rows)
        for path in spoilt:
            with Image.open(tmp_path / "maps" / path.name) as heatmap:
                assert (heatmap.size, heatmap.mode) == ((48, 48), "RGB")

        again = project.run("predict", *images, "--model", str(project.place.detector))
        assert again[1] == out
        folder = project.run("predict", str(spoilt[0].parent), "--model", str(project.place.detector))
        assert folder[1] == out

    def test_predict_gives_a_verdict_on_all_that_can_be_read_and_names_the_others(
        self, whole: tuple[Project, dict[str, str]], tmp_path: Path
    ) -> None:
        project = whole[0]
        good = sorted((project.camera / "test" / "good").iterdir())
        images = tmp_path / "Prüfung #1, 100 %"
        images.mkdir()
        for path in good:
            (images / f"größe {path.name}").write_bytes(path.read_bytes())
        (images / "a damaged.png").write_bytes(good[0].read_bytes()[:300])
        (images / "text.png").write_text("no image")
        (images / "notes.txt").write_text("no image, and no image's name")
        for model in ([], ["--model", str(project.place.detector)]):
            code, out, err = project.run("predict", str(images), str(tmp_path / "none.png"), *model)
            assert code == 2
            verdicts = [row.split("\t") for row in out.splitlines()[1:]]
            assert [row[3] for row in verdicts] == [str(images / f"größe {path.name}") for path in good]
            assert {row[0] for row in verdicts} <= {"accept", "reject"}
            _, damaged, text, none, last = err.splitlines()
            assert damaged.startswith(f"{images / 'a damaged.png'}: damaged or not supported (")
            assert text == f"{images / 'text.png'}: not a JPEG, PNG, BMP, TIFF or WebP image"
            assert none == f"{tmp_path / 'none.png'}: not found"
            assert last == "morphad predict: no verdict on 3 of 9 images, each named above; replace them"

    def test_predict_refuses_what_it_cannot_do_before_any_verdict(
        self, whole: tuple[Project, dict[str, str]], tmp_path: Path
    ) -> None:
        project = whole[0]
        good = str(project.camera / "test" / "good" / "000.png")
        detector = ("--model", str(project.place.detector))
        (tmp_path / "000.png").write_bytes(Path(good).read_bytes())
        (tmp_path / "empty").mkdir()
        for bad, told in (
            ((str(tmp_path / "empty"), *detector), "empty: a folder without images"),
            ((str(tmp_path / "000.png"), *detector, "--heatmaps", str(tmp_path / "maps")), "000.png"),
            (("--model", str(tmp_path / "nothing")), "nothing/detector.json"),
        ):
            code, out, err = project.run("predict", good, *bad)
            assert (code, out) == (2, "")
            assert told in err.splitlines()[-1]


class TestGate:
    def test_a_refusal_is_exit_1_or_with_record_0(self, copy: Project) -> None:
        copy.configure(calibrate={"false_reject_rate": 0.01})
        copy.done("calibrate", "evaluate", "register")
        outcome = copy.run("promote")
        assert_told(outcome, 1, "morphad promote: weave: Refused", "no threshold")
        recorded = copy.run("promote", "--record", "--actor", "night shift")
        assert recorded[0] == 0
        assert recorded[1].startswith(f"{LINE}: Refused")
        decision = json.loads(copy.place.decision.read_text())
        assert decision["promote"] is False
        assert "was refused" in copy.run("summary")[1]
        assert copy.run("history")[1].count("refused version 1") == 1  # the same refusal is recorded once
        assert_told(copy.run("predict", str(copy.camera / "test" / "good" / "000.png")), 2, "no champion")
        assert_told(copy.run("rollback", "--why", "test"), 1, "nothing to roll back")

    def test_a_second_version_takes_over_and_can_be_rolled_back(self, copy: Project) -> None:
        copy.done("register", "promote")
        gaussian = {**TRAIN, "score": {**TRAIN["score"], "densities": ["gaussian"]}}
        copy.configure(train=gaussian, promote={"overkill_margin": 0.5, "auroc_margin": 0.5, "escape_margin": 1.0})
        copy.done("train", "calibrate", "evaluate", "register", "promote")
        decision = json.loads(copy.place.decision.read_text())
        assert (decision["version"], decision["champion_before"]) == (2, 1)
        assert decision["figures"]["champion"] is not None
        assert len(read_manifest(copy.place.reference)) == 94
        code, out, _ = copy.run("rollback", "--why", "too many escapes", "--actor", "Ana")
        assert code == 0
        assert len(read_manifest(copy.place.reference)) == 94  # of the version that is back
        assert out == f"{LINE}: version 1 is champion again\n"
        history = copy.run("history")[1]
        assert "Ana (name as given, no account) put version 1 back in service in place of version 2." in history
        assert "too many escapes" in history
        assert_told(copy.run("promote"), 1, "took version 2 out of service", "too many escapes")
        assert copy.run("promote", "--record")[0] == 0
        assert copy.registry.champion(LINE).number == 1

    def test_the_version_of_the_data_is_on_record_with_the_model(self, copy: Project) -> None:
        subprocess.run(["git", "init", "--quiet", "--bare", str(copy.root / "registry.git")], check=True)
        with contextlib.chdir(copy.root):
            assert main(["data", "version", LINE, "--registry", "registry.git", "--remote", "store"]) == 0
        copy.done("register")
        settings = load_settings(copy.root / "params.yaml").line(LINE).register_
        tag = json.loads(copy.place.version.read_text())["name"]
        assert Registry(settings).version(LINE, 1).tags["morphad.data_version"] == f"{LINE}/{tag}"

    def test_a_server_that_is_away_is_exit_3_and_nothing_is_lost(self, copy: Project) -> None:
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        away = {"tracking_uri": f"http://127.0.0.1:{port}", "timeout_seconds": 1, "retries": 0}
        copy.configure(register=away)
        started = time.monotonic()
        assert_told(copy.run("register"), 3, f"127.0.0.1:{port}", "start the server")
        assert not copy.place.registration.exists()
        assert time.monotonic() - started < 15
        copy.configure()
        copy.done("register")
        copy.configure(register=away)
        for verb in ("promote", "history"):
            assert_told(copy.run(verb), 3, f"127.0.0.1:{port}")
        assert not copy.place.decision.exists()
        copy.configure()
        copy.done("promote")


class TestWrongUse:
    def test_no_settings_file(self, tmp_path: Path) -> None:
        project = Project(tmp_path)
        for verb in ("summary", *VERBS, "history"):
            assert_told(project.run(verb), 2, f"morphad {verb}: ", str(tmp_path / "params.yaml"), "not found")
        assert list(tmp_path.iterdir()) == []

    def test_an_unknown_line(self, fresh: Project) -> None:
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            code = main(["ingest", "bottle", "--params", str(fresh.root / "params.yaml")])
        assert_told((code, "", err.getvalue()), 2, "no line 'bottle'", LINE)

    def test_a_verb_before_its_time_names_the_one_that_is_missing(self, fresh: Project) -> None:
        for verb, told in {
            "validate": "run `morphad ingest`",
            "split": "run `morphad ingest`",
            "train": "run `morphad",
            "calibrate": "run ",
            "evaluate": "run ",
            "register": "run ",
            "promote": "run ",
        }.items():
            assert_told(fresh.run(verb), 2, "not found", told)
        assert {path.name for path in fresh.root.iterdir()} == {"camera", "params.yaml"}

    def test_summary_of_a_line_that_has_not_run(self, fresh: Project) -> None:
        code, out, _ = fresh.run("summary")
        assert code == 0
        assert "not evaluated yet" in out
        assert f"finish {LINE}: dvc repro" in out

    @pytest.mark.parametrize("arguments", [[], ["fly"], ["ingest"], ["predict", LINE], ["rollback", LINE]])
    def test_argparse_ends_with_2(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "usage: morphad" in capsys.readouterr().err


class TestBadImages:
    def test_an_empty_folder(self, tmp_path: Path) -> None:
        project = Project(tmp_path)
        project.camera.mkdir()
        project.configure()
        assert_told(project.run("ingest"), 2, str(project.camera), "no images")
        shutil.rmtree(project.camera)
        assert_told(project.run("ingest"), 2, str(project.camera), "not found")
        assert {path.name for path in tmp_path.iterdir()} == {"data", "params.yaml"}
        assert [path.name for path in (tmp_path / "data" / LINE).iterdir()] == ["memory"]  # no snapshot, no manifest

    def test_three_images(self, tmp_path: Path, make_set: Callable[..., Path]) -> None:
        project = Project(tmp_path)
        make_set(project.camera, good=3, test_good=0, defects=0)
        project.configure()
        project.done("ingest")
        assert_told(project.run("validate"), 1, "min_good", "only 3 good images, at least 20 are needed")
        project.configure(validate={"min_good": 1})
        project.done("validate", "split")
        assert_told(project.run("train"), 2, "at least 10 good training images, got 1", "add images")
        assert not project.place.fitted.exists()

    def test_identical_images(self, fresh: Project) -> None:
        first, *others = sorted((fresh.camera / "train" / "good").iterdir())
        shutil.rmtree(fresh.camera / "test" / "good")
        for other in others:
            other.write_bytes(first.read_bytes())
        fresh.done("ingest")
        assert_told(fresh.run("validate"), 1, "all 30 good images look the same", "byte copies")
        assert json.loads(fresh.place.validation.read_text())  # the findings are written all the same
        assert_told(fresh.run("split"), 1, "independent unit")

    def test_one_image_of_another_size(self, fresh: Project) -> None:
        odd = fresh.camera / "test" / "good" / "big.png"
        Image.open(odd.with_name("000.png")).crop((4, 8, 30, 32)).save(odd)
        fresh.done("ingest")
        assert_told(fresh.run("validate"), 1, "size: 1 image not of", "test/good/big.png")
        fresh.configure(validate={"severity": {"size": "warning"}}, calibrate={"false_reject_rate": 0.2})
        code, out, _ = fresh.run("validate")
        assert code == 0
        assert "warning: size" in out
        fresh.done("split", "train", "calibrate", "evaluate")

    def test_corrupt_files_are_refused_by_name_or_left_out(self, fresh: Project) -> None:
        broken = sorted((fresh.camera / "train" / "good").iterdir())[::20]
        for path in broken:
            path.write_bytes(path.read_bytes()[:100])
        assert_told(fresh.run("ingest"), 2, "2 of 34 images", "000.png", "020.png", "ingest.max_rejects")
        assert not fresh.place.snapshot.exists()
        fresh.configure(ingest={"max_rejects": 2})
        code, out, _ = fresh.run("ingest")
        assert code == 0
        assert "30 good and 2 defect images, 2 left out" in out
        rejects = json.loads(fresh.place.rejects.read_text())
        assert [reject["name"] for reject in rejects] == ["train/good/000.png", "train/good/020.png"]

    def test_a_mask_without_its_image(self, fresh: Project) -> None:
        (fresh.camera / "test" / "spot" / "001.png").unlink()
        assert_told(fresh.run("ingest"), 2, "001_mask.png", "add the image, or remove the mask")

    def test_a_defect_that_is_among_the_good(self, fresh: Project) -> None:
        shutil.copy(fresh.camera / "test" / "spot" / "000.png", fresh.camera / "train" / "good" / "good.png")
        fresh.done("ingest")
        assert_told(fresh.run("validate"), 1, "test/spot/000.png", "train/good/good.png", "other label")
        assert_told(fresh.run("split"), 1, "test/spot/000.png", "train/good/good.png")

    def test_missing_weights(self, fresh: Project) -> None:
        fresh.configure(train={**TRAIN, "weights": str(fresh.root / "none.pth")})
        fresh.done("ingest", "split")
        assert_told(fresh.run("train"), 2, "none.pth", "train.weights")
        assert not fresh.place.fitted.exists()

    def test_a_line_without_defects_goes_all_the_way(self, tmp_path: Path, make_set: Callable[..., Path]) -> None:
        project = Project(tmp_path)
        make_set(project.camera, good=60, test_good=0, defects=0)
        project.configure(calibrate={"false_reject_rate": 0.2}, evaluate={"bootstrap": 100})
        project.done("ingest", "validate", "split", "train", "calibrate", "evaluate")
        assert json.loads((project.place.report / "metrics.json").read_text())["image_auroc"] is None
        assert "no defects to measure on" in project.run("summary")[1]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "promote"])
def test_a_folder_that_cannot_be_written_is_exit_2(
    verb: str, copy: Project, whole: tuple[Project, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if verb == "register":
        copy.root.joinpath("params.yaml").write_bytes(whole[0].root.joinpath("params.yaml").read_bytes())
    make = files.tempfile.mkstemp

    def deny(*arguments: Any, **keywords: Any) -> Any:
        if Path(keywords.get("dir") or "/").resolve().is_relative_to(copy.root):
            raise PermissionError(errno.EACCES, "Permission denied")
        return make(*arguments, **keywords)

    monkeypatch.setattr(files.tempfile, "mkstemp", deny)
    assert_told(copy.run(verb), 2, LINE, "cannot write (Permission denied)", "permissions")


class TestStart:
    def test_help_is_quick_and_imports_nothing_heavy(self) -> None:
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "morphad.cli", "--help"], capture_output=True, text=True, check=True
            )
            seconds.append(time.perf_counter() - started)
        assert all(verb in done.stdout for verb in (*VERBS, "predict", "rollback", "history", "summary", "benchmark"))
        assert "exit codes: 0 done" in done.stdout
        assert min(seconds) < 0.5
        code = (
            "import sys, contextlib\nfrom morphad.cli import main\n"
            "with contextlib.suppress(SystemExit):\n    main(['--help'])\n"
            "print([m for m in ('torch', 'mlflow', 'pandas', 'numpy', 'pydantic', 'great_expectations', 'kfp') "
            "if m in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "[]"

    @pytest.mark.parametrize("arguments", [["--help"], ["summary"]])
    def test_a_reader_that_leaves_is_no_error(self, arguments: list[str], fresh: Project) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(
            [sys.executable, "-m", "morphad.cli", *arguments],
            cwd=fresh.root, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, "")

    def test_interrupted_it_says_how_to_go_on(self, fresh: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("morphad.steps.ingest.ingest", interrupt)
        assert_told(fresh.run("ingest"), 130, "interrupted; run it again to go on")
