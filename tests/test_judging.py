"""The gate judges what it promotes: files, registry and frozen holdout have to belong together."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from morphad.data.manifest import manifest_id, read_manifest, write_manifest
from project import LINE, VERBS, Project, assert_told
from tiny import TRAIN

OTHER = {**TRAIN, "score": {**TRAIN["score"], "densities": ["gaussian"]}}
LAX = {"overkill_margin": 0.5, "auroc_margin": 0.5, "escape_margin": 1.0}


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, make_set: Callable[..., Path]) -> Project:
    """A line through all verbs but promote. Not to be changed."""
    project = Project(tmp_path_factory.mktemp("registered"))
    make_set(project.camera)
    project.configure()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        project.done(*VERBS[:-1])
    return project


@pytest.fixture(scope="module")
def in_service(registered: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same with its version in service. Not to be changed."""
    project = copied(registered, tmp_path_factory.mktemp("in-service") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        project.done("promote")
    return project


@pytest.fixture
def copy(registered: Project, tmp_path: Path) -> Project:
    """A line with a registered version, to be changed."""
    return copied(registered, tmp_path / "project")


@pytest.fixture
def promoted(in_service: Project, tmp_path: Path) -> Project:
    """A line with a champion, to be changed."""
    return copied(in_service, tmp_path / "project")


def copied(project: Project, folder: Path) -> Project:
    """A project elsewhere; its registry goes with it."""
    other = Project(Path(shutil.copytree(project.root, folder)))
    other.configure()
    return other


def client(project: Project) -> MlflowClient:
    uri = f"sqlite:///{project.root / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_a_detector_that_was_calibrated_again_is_not_promoted_under_the_old_version(copy: Project) -> None:
    copy.configure(calibrate={"false_reject_rate": 0.2})
    copy.done("calibrate", "evaluate")
    assert_told(copy.run("promote"), 2, "not the detector that was registered as version 1", f"morphad register {LINE}")
    assert copy.registry.champion(LINE) is None
    copy.done("register", "promote")
    assert copy.registry.champion(LINE).number == 2
    copy.configure(calibrate={"false_reject_rate": 0.15})
    copy.done("calibrate")
    assert_told(copy.run("promote"), 2, "not the detector that was registered as version 2")  # although 2 is champion


def test_a_registration_at_another_registry_is_refused(copy: Project) -> None:
    elsewhere = {"tracking_uri": f"sqlite:///{copy.root / 'other.db'}"}
    copy.configure(register=elsewhere)
    assert copy.run("promote")[0] == 2
    kept = copy.place.registration.read_text()
    copy.done("register")
    copy.place.registration.write_text(kept)
    assert_told(copy.run("promote"), 2, "version 1 was registered at ", "mlflow.db; version 1 at ", "is another one")
    assert copy.registry.champion(LINE) is None


def test_figures_of_another_detector_or_holdout_are_not_registered(copy: Project) -> None:
    copy.configure(calibrate={"false_reject_rate": 0.2})
    copy.done("calibrate")
    assert_told(
        copy.run("register"), 2, "metrics.json: its figures are of another detector", f"morphad evaluate {LINE}"
    )
    copy.configure(split={"renew_holdout": True, "holdout": 0.3})
    copy.done("evaluate", "split")
    assert_told(copy.run("register"), 2, "figures are of another detector or holdout")


def test_a_renewed_holdout_needs_a_new_training(copy: Project) -> None:
    before = copy.run("history")
    copy.configure(split={"renew_holdout": True, "holdout": 0.3})
    copy.done("split")
    outcome = copy.run("promote")
    assert_told(outcome, 2, "version 1 of weave was made with holdout ", "train and register anew")
    assert copy.run("history") == before


@pytest.mark.parametrize("damage", ["cut", "relabelled", "swapped"])
def test_a_split_that_is_not_the_frozen_holdout_is_refused(damage: str, copy: Project) -> None:
    rows = read_manifest(copy.place.split)
    held = rows.index[(rows["role"] == "holdout") & (rows["label"] == "defect")]
    if damage == "cut":
        rows = rows.drop(held[:3]).reset_index(drop=True)
    elif damage == "relabelled":
        rows.loc[held[0], ["label", "defect"]] = ["good", ""]
    else:
        rows.loc[held[0], "role"] = "train"
    write_manifest(rows, copy.place.split)
    for verb in ("promote", "evaluate"):
        assert_told(copy.run(verb), 2, "split.parquet: its holdout of ", "is not the frozen one", "morphad split weave")
    assert copy.registry.champion(LINE) is None


def test_labels_of_the_holdout_that_were_changed_after_registration_are_noticed(copy: Project) -> None:
    rows, frozen = read_manifest(copy.place.split), json.loads(copy.place.holdout.read_text())
    image = next(image for image in frozen["images"] if image["label"] == "defect")
    image["defect"] = "scratch"
    rows.loc[rows["sha256"] == image["sha256"], "defect"] = "scratch"
    write_manifest(rows, copy.place.split)
    copy.place.holdout.write_text(json.dumps(frozen))
    assert_told(copy.run("promote"), 2, "registered with other labels of holdout", f"dvc repro promote@{LINE}")


def test_an_image_of_the_holdout_that_was_exchanged_is_noticed(copy: Project) -> None:
    rows = read_manifest(copy.place.split)
    name = rows.loc[rows["role"] == "holdout", "path"].iloc[0]
    Image.new("L", (48, 48), 90).save(copy.place.snapshot / name)
    assert_told(copy.run("promote"), 2, str(name), "not the image that was frozen", f"morphad ingest {LINE}")


def test_a_champion_that_was_deleted_is_no_reason_for_a_first_champion(promoted: Project) -> None:
    promoted.configure(calibrate={"false_reject_rate": 0.01})  # no threshold: refused
    promoted.done("calibrate", "evaluate", "register")
    assert_told(promoted.run("promote"), 1, "Refused")
    client(promoted).delete_model_version(f"morphad-{LINE}", "1")
    told = "by its records version 1 is champion, but MLflow no longer has that version"
    image = str(promoted.camera / "test" / "good" / "000.png")
    for verb, more in (("promote", ()), ("predict", (image,)), ("champion", ())):
        assert_told(promoted.run(verb, *more), 1, told, f"morphad registry repair {LINE}")
    code, out, _ = promoted.run("registry repair")
    assert (code, "plan: take the line out of service" in out, "Nothing was changed" in out) == (0, True, True)
    assert promoted.run("status")[0] == 1
    assert_told(promoted.run("registry repair", "--apply"), 2, "--apply needs --why")
    assert promoted.run("registry repair", "--apply", "--why", "cleaned up too much")[0] == 0
    assert promoted.run("status")[0] == 0
    assert_told(promoted.run("promote"), 1, "this detector was refused against version 1")


def test_rollback_brings_back_the_data_that_new_images_are_compared_with(
    promoted: Project, make_set: Callable[..., Path], tmp_path: Path
) -> None:
    first = manifest_id(read_manifest(promoted.place.reference))
    more = make_set(tmp_path / "more", good=20, test_good=0, defects=0, seed=5)
    for path in (more / "train" / "good").iterdir():
        path.rename(promoted.camera / "train" / "good" / f"new-{path.name}")
    promoted.configure(promote=LAX)
    promoted.done(*VERBS)
    assert promoted.registry.champion(LINE).number == 2
    assert manifest_id(read_manifest(promoted.place.reference)) != first
    code, out, _ = promoted.run("rollback", "--why", "too many escapes", "--actor", "Ana")
    assert (code, out) == (0, f"{LINE}: version 1 is champion again\n")
    assert manifest_id(read_manifest(promoted.place.reference)) == first == promoted.registry.champion(LINE).data_hash
    assert_told(
        promoted.run("promote"), 1, "Ana (name as given, no account) took version 2 out of service", "too many escapes"
    )
    assert promoted.run("withdraw", "--why", "camera moved")[0] == 0
    assert read_manifest(promoted.place.reference).empty


def without_time(said: str) -> str:
    """What a verb says, but for the seconds that it took."""
    return re.sub(r" \(\d+\.\d s\)", "", said)


def test_four_eyes(copy: Project) -> None:
    copy.configure(promote={"mode": "four-eyes"})
    code, out, _ = copy.run("promote", "--actor", "schedule")
    assert (code, "Version 1 passed the gate and awaits approval" in out) == (0, True)
    assert without_time(copy.run("promote", "--actor", "schedule")[1]) == without_time(out)
    assert copy.registry.champion(LINE) is None
    assert "awaits approval" in copy.run("summary")[1]
    trainer = copy.registry.version(LINE, 1).trained_by.name
    assert_told(copy.run("approve", "--why", "fine", "--actor", trainer), 1, "four eyes")
    assert copy.run("approve", "--why", "looked at 40 parts", "--actor", "Ben") == (
        0,
        f"{LINE}: version 1 is champion\n",
        "",
    )
    assert not read_manifest(copy.place.reference).empty
    history = copy.run("history")[1]
    assert "schedule (name as given, no account) found version 1 fit; it awaits approval" in history
    assert "Ben (name as given, no account) approved version 1; it is in service." in history
    assert "looked at 40 parts" in history


def test_who_decides_since_when_and_what_it_guarantees(copy: Project) -> None:
    assert "no version was in service" in copy.run("champion")[1]
    copy.done("promote")
    code, out, _ = copy.run("champion")
    assert code == 0
    assert "version 1 in service from 20" in out
    assert "at most 10 % of good parts are rejected on average, guaranteed from " in out
    assert "nothing was decided" in copy.run("champion", "--at", "2020-01-01")[1]
    today = json.loads(copy.run("history", "--json")[1])["decisions"][0]["at"][:10]
    assert "version 1 in service" in copy.run("champion", "--at", today)[1]
    assert_told(copy.run("champion", "--at", "yesterday"), 2, "--at 'yesterday': expected a day")
    code, out, _ = copy.run("status")
    assert code == 0
    assert all(words in out for words in (LINE, "promoted 1", "at most 10 %"))
    (row,) = json.loads(copy.run("status", "--json")[1])
    assert (row["line"], row["champion"], row["candidate"], row["differs"]) == (LINE, 1, None, False)


def test_a_kind_of_defect_of_any_name_is_registered(
    tmp_path: Path, make_set: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = Project(tmp_path / "project")
    make_set(project.camera, good=40)
    for folder in ("test", "ground_truth"):
        (project.camera / folder / "spot").rename(project.camera / folder / "Riss (tief)")
    project.configure()
    project.done(*VERBS)
    [version] = client(project).search_model_versions(f"name='morphad-{LINE}'")
    assert "Riss (tief)" in version.description


def test_promote_before_register_and_after_a_kill(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    copy.place.registration.unlink()
    assert_told(copy.run("promote"), 2, "registration.json: not found")
    copy.done("register", "promote")
    decision = copy.place.decision.read_bytes()
    copy.place.decision.unlink()  # killed after the decision, before it was written down here
    copy.done("promote")
    assert json.loads(copy.place.decision.read_text())["outcome"] == "promoted"
    assert json.loads(copy.place.decision.read_text())["figures"] == json.loads(decision)["figures"]
    assert len(copy.registry.trail(LINE).entries) == 1


def test_code_that_was_changed_in_the_store_after_the_gate_does_not_decide(promoted: Project) -> None:
    (package,) = (promoted.root / "mlartifacts").rglob("code/morphad/__init__.py")
    package.write_text(package.read_text() + "\n# one line more\n")
    image = str(promoted.camera / "test" / "good" / "000.png")
    assert_told(promoted.run("predict", image), 3, "are not those that were judged")
