"""A dossier holds what was decided and on what, and shows it when anything in it is not as it was written."""

import hashlib
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from morphad.base.errors import BadInputError, CheckFailedError, MorphadError
from morphad.base.files import write_json
from morphad.cli import main
from morphad.data.manifest import SCHEMA, manifest_id, write_manifest
from morphad.data.split.holdout import FrozenHoldout, FrozenImage
from morphad.registry import DatasetFacts, Registry, detector_hash, dossier, dossier_zip
from morphad.registry.dossier_check import hold_against, verify
from morphad.settings import RegisterSettings, SplitSettings

LINE = "papers"
NO: dict[str, Any] = {"promote": False, "reasons": ["AUROC may be 0.1 lower"], "figures": {}}
Members = dict[str, bytes]


@dataclass(frozen=True)
class Published:
    """A line with two versions of real detectors: the second replaced the first."""

    registry: Registry
    settings: RegisterSettings
    detector: Path
    report: Path
    facts: DatasetFacts
    file: Path
    fingerprint: str


def _data(folder: Path) -> DatasetFacts:
    rows = pd.DataFrame({
        "path": [f"{n}.png" for n in range(12)], "sha256": [hashlib.sha256(bytes([n])).hexdigest() for n in range(12)],
        "line": LINE, "label": ["good"] * 9 + ["defect"] * 3, "defect": [""] * 9 + ["spot"] * 3,
        "role": ["train"] * 4 + ["calibration"] * 3 + ["holdout"] * 5, "reason": "",
    })  # fmt: skip
    for field in SCHEMA:
        if field.name not in rows:
            rows[field.name] = "" if str(field.type) == "string" else 8
    held = rows[rows["role"] == "holdout"]
    frozen = FrozenHoldout.of(
        [FrozenImage(row.sha256, row.path, row.label, row.defect) for row in held.itertuples()], 0, SplitSettings()
    )
    write_manifest(rows, folder / "split.parquet")
    write_json(folder / "holdout.json", frozen.to_json())
    return DatasetFacts(
        folder / "split.parquet",
        manifest_id(rows),
        frozen.id,
        {"train": 4},
        holdout_labels=frozen.labels_id,
        holdout=folder / "holdout.json",
    )


@pytest.fixture(scope="module")
def published(store: Path, tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MORPHAD_CODE_REVISION", "0123abc")
        settings = RegisterSettings(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
        registry, place = Registry(settings), tmp_path_factory.mktemp("papers")
        facts = _data(place)
        report, detector = place / "report", Path(shutil.copytree(tiny_detector, place / "detector"))
        report.mkdir()
        (report / "index.html").write_text("<h1>page</h1>")
        (report / "examples.png").write_bytes(bytes(range(256)))
        for number in (1, 2):
            if number == 2:
                (detector / "note.txt").write_text("another one")
            figures = {"detector_hash": detector_hash(detector), "holdout_id": facts.holdout_id, "image_auroc": 0.9}
            write_json(report / "metrics.json", figures)
            registry.publish(
                LINE, detector, report, params={}, metrics={}, dataset=facts, card=f"# Card {number}\n",
                actor="trainer", tags={"image_digest": "sha256:12", "morphad.reason": "manual"},
            )  # fmt: skip
            decision = {
                "promote": True,
                "reasons": ["not worse"],
                "figures": {"n": number},
                "holdout_id": facts.holdout_id,
            }
            registry.promote(LINE, number, decision, "anna")
        file = place / "dossier.zip"
        _, fingerprint = registry.dossier(LINE, 2, file, "quality manager")
        yield Published(registry, settings, detector, report, facts, file, fingerprint)


def unpacked(file: Path) -> Members:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: Members, file: Path, *, forged: bool = False) -> Path:
    """A zip of these; a forger makes SHA256SUMS fit."""
    if forged:
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in members.items() if name != dossier.SUMS}
        members = {**members, dossier.SUMS: dossier.sums_text(hashes).encode()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def flipped(data: bytes, position: int, bit: int = 0) -> bytes:
    return data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]


def wrong(file: Path) -> str:
    return "\n".join(f"{finding.what}: {finding.said}" for finding in verify(file).wrong)


def test_it_holds_all_that_is_known(published: Published) -> None:
    members = unpacked(published.file)
    assert list(members) == sorted(members)
    assert set(members) == {
        "README.txt", "SHA256SUMS", "card.md", "facts.json", "trail.jsonl",
        "data/holdout.json", "data/manifest.parquet",
        "decisions/000002-promoted.json", "decisions/000002-promoted.txt",
        "detector/detector.json", "detector/files.json",
        "report/examples.png", "report/index.html", "report/metrics.json",
    }  # fmt: skip
    assert members["card.md"] == b"# Card 2\n"
    assert members["report/examples.png"] == bytes(range(256))
    assert json.loads(members["decisions/000002-promoted.json"])["figures"] == {"n": 2}
    facts = json.loads(members["facts.json"])
    assert (facts["line"], facts["version"], facts["decisions"], facts["about"]) == (LINE, 2, 2, [2])
    assert facts["detector_hash"] == detector_hash(published.detector)
    assert (facts["data_hash"], facts["holdout_id"]) == (published.facts.data_hash, published.facts.holdout_id)
    assert (facts["code_revision"], facts["image_digest"], facts["reason"]) == ("0123abc", "sha256:12", "manual")
    assert facts["made_by"].startswith("quality manager")
    assert facts["registered_by"].startswith("trainer")
    assert facts["missing"] == {}
    assert "is in service" in members["README.txt"].decode()


def test_it_is_as_it_was_written(published: Published) -> None:
    checked = verify(published.file)
    assert [finding.what for finding in checked.findings if finding.passed] == [
        "files", "facts", "trail", "decisions", "detector", "data", "holdout", "report",
    ]  # fmt: skip
    assert checked.fingerprint == published.fingerprint
    assert checked.state[0] == "Version 2 is in service."


def test_sha256sum_alone_can_check_it(published: Published, tmp_path: Path) -> None:
    with zipfile.ZipFile(published.file) as archive:
        archive.extractall(tmp_path)

    def run(command: str) -> str:
        return subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert run("sha256sum -c SHA256SUMS").count(": OK\n") == len(unpacked(published.file)) - 1
    first, second = (json.loads(row) for row in (tmp_path / "trail.jsonl").read_text().split("\n")[:2])
    assert run("sed -n 1p trail.jsonl | tr -d '\\n' | sha256sum").split()[0] == second["before"]
    assert run("sha256sum decisions/*.json").split()[0] == second["document_sha256"]
    assert run("sha256sum detector/files.json").split()[0] == second["detector"] != first["detector"]


def test_two_dossiers_differ_in_nothing_but_when_they_were_made(published: Published, tmp_path: Path) -> None:
    published.registry.dossier(LINE, 2, tmp_path / "again.zip", "quality manager")
    first, second = unpacked(published.file), unpacked(tmp_path / "again.zip")
    assert list(first) == list(second)
    assert {name for name in first if first[name] != second[name]} == {"README.txt", "facts.json", "SHA256SUMS"}
    with zipfile.ZipFile(tmp_path / "again.zip") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_flipped_bit_in_any_file_is_noticed(published: Published, tmp_path: Path) -> None:
    members, draw = unpacked(published.file), np.random.default_rng(0)
    for name, data in members.items():
        for position in {0, len(data) // 2, len(data) - 1, *(int(draw.integers(len(data))) for _ in range(4))}:
            changed = {**members, name: flipped(data, position, int(draw.integers(8)))}
            said = wrong(packed(changed, tmp_path / "flipped.zip"))
            assert name in said, (name, position)


def test_every_bit_of_the_trail_is_pinned_even_where_the_sums_were_made_to_fit(
    published: Published, tmp_path: Path
) -> None:
    members, draw = unpacked(published.file), np.random.default_rng(1)
    data = members["trail.jsonl"]
    for position in range(0, len(data), 31):
        changed = {**members, "trail.jsonl": flipped(data, position, int(draw.integers(8)))}
        assert "trail" in wrong(packed(changed, tmp_path / "forged.zip", forged=True)), position


@pytest.mark.parametrize(
    "name",
    [
        "decisions/000002-promoted.json",
        "detector/detector.json",
        "detector/files.json",
        "data/holdout.json",
        "data/manifest.parquet",
    ],
)
def test_what_the_trail_pins_is_noticed_where_the_sums_were_made_to_fit(
    published: Published, tmp_path: Path, name: str
) -> None:
    members = unpacked(published.file)
    other = {"data/holdout.json": b'"label": "good"', "data/manifest.parquet": b""}.get(name)
    if name == "data/manifest.parquet":
        rows = pd.read_parquet(published.facts.manifest)
        rows.loc[10, "label"] = "good"
        write_manifest(rows, tmp_path / "manifest.parquet")
        changed = (tmp_path / "manifest.parquet").read_bytes()
    elif other:
        changed = members[name].replace(b'"label": "defect"', other)
    else:
        changed = members[name] + b"\n"
    assert changed != members[name]
    said = wrong(packed({**members, name: changed}, tmp_path / "forged.zip", forged=True))
    assert name in said
    assert not said.startswith("files")


@pytest.mark.parametrize(
    ("key", "value"),
    [("detector_hash", "0" * 64), ("data_hash", "0" * 64), ("holdout_id", "0" * 64), ("version", 1), ("format", 2),
     ("guarantee", "all"), ("decisions", 1), ("about", [1, 2]), ("version", "2"), ("line", "b"), ("missing", None)],
)  # fmt: skip
def test_facts_that_the_rest_does_not_bear_out_are_noticed(
    published: Published, tmp_path: Path, key: str, value: object
) -> None:
    members = unpacked(published.file)
    facts = {**json.loads(members["facts.json"]), key: value}
    members["facts.json"] = json.dumps(facts).encode()
    assert wrong(packed(members, tmp_path / "forged.zip", forged=True))


def test_removed_added_and_swapped_files_are_noticed(published: Published, tmp_path: Path) -> None:
    members, file = unpacked(published.file), tmp_path / "changed.zip"
    names = list(members)
    for name in names:
        rest = {other: data for other, data in members.items() if other != name}
        assert f"{name} " in wrong(packed(rest, file)), name
        if not name.startswith((dossier.SUMS, "README", "report/")):
            assert name in wrong(packed(rest, file, forged=True)), name
        other = names[names.index(name) - 1]
        said = wrong(packed({**members, name: members[other], other: members[name]}, file))
        assert {name, other} & {dossier.SUMS} or (name in said and other in said), name
        assert said
    assert "report/new.html was added" in wrong(packed({**members, "report/new.html": b"x"}, file))
    added = {**members, "decisions/000001-promoted.json": b"{}"}
    assert "belongs to no decision" in wrong(packed(added, file, forged=True))


def test_damage_anywhere_in_the_file_never_passes_for_another_content(published: Published, tmp_path: Path) -> None:
    whole, draw, file = published.file.read_bytes(), np.random.default_rng(2), tmp_path / "damaged.zip"
    content = unpacked(published.file)
    for _ in range(100):
        file.write_bytes(flipped(whole, int(draw.integers(len(whole))), int(draw.integers(8))))
        try:
            passed = not verify(file).wrong
        except MorphadError:
            continue
        assert not passed or unpacked(file) == content
    for length in range(0, len(whole), len(whole) // 40):
        file.write_bytes(whole[:length])
        with pytest.raises(BadInputError, match="not a zip file, or cut off"):
            verify(file)


def _zip(file: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "C:x", "a\\..\\x", "a//b", "./x", "folder/", "a\nb", "\x1b[2J"]
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match="is no name for a file in a dossier; nothing was read"):
        verify(_zip(tmp_path / "evil.zip", (dossier.FACTS, b"{}"), (name, b"x")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_links_twins_and_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    file = tmp_path / "evil.zip"
    with pytest.raises(BadInputError, match="'link' is no plain file"):
        verify(_zip(file, (link, b"/etc/passwd")))
    with pytest.raises(BadInputError, match=r"'facts.json' is there twice"):
        verify(_zip(file, (dossier.FACTS, b"{}"), (dossier.FACTS, b"{} ")))
    monkeypatch.setattr(dossier_zip, "MOST_BYTES", 1 << 20)
    with pytest.raises(BadInputError, match="unpacks to more than"):
        verify(_zip(file, (dossier.FACTS, bytes(2 << 20))))
    monkeypatch.setattr(dossier_zip, "MOST_MEMBERS", 3)
    with pytest.raises(BadInputError, match="holds 4 files"):
        verify(_zip(file, *((str(number), b"") for number in range(4))))


def test_texts_that_exhaust_a_reader_are_wrong_and_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = b"[" * 200_000
    assert "facts.json cannot be read" in wrong(packed({dossier.FACTS: deep}, tmp_path / "a.zip", forged=True))
    monkeypatch.setattr(dossier_zip, "MOST_BYTES_READ", 100)
    assert "facts.json is larger" in wrong(packed({dossier.FACTS: bytes(101)}, tmp_path / "b.zip", forged=True))


def test_what_is_no_dossier_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not found"):
        verify(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(BadInputError, match="not a zip file"):
        verify(tmp_path / "text.zip")
    with pytest.raises(BadInputError, match="not a dossier"):
        verify(_zip(tmp_path / "other.zip", ("README.txt", b"x")))


def test_with_the_model_its_weights_are_held_by_the_trail(published: Published, tmp_path: Path) -> None:
    file = tmp_path / "whole.zip"
    published.registry.dossier(LINE, 2, file, with_model=True)
    members = unpacked(file)
    weights = [
        name for name in members if name.startswith("model/artifacts/detector/") and name.endswith(".safetensors")
    ]
    assert weights
    assert "model/code/morphad/__init__.py" in members
    assert not wrong(file)
    for name in weights:
        changed = {**members, name: flipped(members[name], len(members[name]) // 2)}
        assert "detector: model/artifacts/detector/" in wrong(packed(changed, tmp_path / "forged.zip", forged=True))


def test_a_trail_that_was_cut_short_is_noticed_against_the_registry_only(
    published: Published, tmp_path: Path, line_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.registry.dossier(LINE, 1, tmp_path / "first.zip")
    members = unpacked(tmp_path / "first.zip")
    first = members["trail.jsonl"].split(b"\n")[0]
    facts = json.loads(members["facts.json"])
    facts |= {"decisions": 1, "about": [1], "trail_sha256": hashlib.sha256(first).hexdigest()}
    facts["made_at"] = (datetime.fromisoformat(facts["made_at"]) + timedelta(hours=1)).isoformat()
    members |= {"trail.jsonl": first + b"\n", "facts.json": json.dumps(facts).encode()}
    members = {name: data for name, data in members.items() if not name.startswith("decisions/000002")}
    cut = packed(members, tmp_path / "cut.zip", forged=True)
    assert main(["verify", str(cut)]) == 0
    assert "Not checked: whether all of it was written anew, or its trail cut short" in capsys.readouterr().out
    assert main(["verify", str(cut), "--against", LINE, "--params", str(line_file)]) == 1
    assert "the registry has 1 more from before it was made" in capsys.readouterr().out


@pytest.fixture
def line_file(published: Published, tmp_path: Path) -> Path:
    """Settings of the line and of another one."""
    text = f"defaults:\n  register: {{tracking_uri: '{published.settings.tracking_uri}'}}\nlines:\n"
    (tmp_path / "params.yaml").write_text(
        text + "".join(f"  {line}: {{ingest: {{path: x}}}}\n" for line in (LINE, "b"))
    )
    return tmp_path / "params.yaml"


def test_the_verbs_and_their_exit_codes(
    published: Published, tmp_path: Path, line_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, params = tmp_path / "out" / "dossier.zip", ["--params", str(line_file)]
    assert main(["dossier", LINE, "2", "--out", str(file), "--actor", "eva", *params]) == 0
    assert "fingerprint" in capsys.readouterr().out
    assert main(["verify", str(file), "--against", LINE, *params]) == 0
    out = capsys.readouterr().out
    assert "ok     trail: 2 decisions" in out
    assert "ok     registry's trail: it begins with the 2 decisions" in out
    assert "ok     registry's version: version 2 has the same detector" in out
    assert "Not checked" not in out
    assert "By the registry now: Version 2 is in service." in out
    assert main(["history", LINE, *params]) == 0
    assert "promoted version 2; it is in service. Before it version 1" in capsys.readouterr().out
    changed = packed({**unpacked(file), "card.md": b"perfect"}, tmp_path / "changed.zip")
    assert main(["verify", str(changed)]) == 1
    told = capsys.readouterr()
    assert "WRONG  files: card.md is not as it was written" in told.out
    assert "changed.zip: not as it was written: card.md" in told.err
    assert main(["verify", str(line_file)]) == 2
    assert main(["verify", str(file), "--against", "b", *params]) == 2
    assert "is of line papers, not of b" in capsys.readouterr().err
    assert main(["dossier", LINE, "7", "--out", str(tmp_path / "none.zip"), *params]) == 2
    assert "versions registered: 1, 2" in capsys.readouterr().err
    assert not (tmp_path / "none.zip").exists()


def test_a_dossier_of_another_registry_is_noticed(
    published: Published, registry: Registry, line: str, add_versions: Callable[..., None]
) -> None:
    checked, version = verify(published.file), published.registry.version(LINE, 2)
    theirs = published.registry.trail(LINE)
    assert all(finding.passed for finding in hold_against(checked, theirs, version))
    add_versions(1)
    registry.promote(line, 1, {"reasons": []}, "anna")
    foreign = type(theirs)(LINE, "", registry.trail(line).entries, frozenset())
    assert hold_against(checked, foreign, None)[0].said.startswith("decision 1 of the dossier is not decision 1")
    shorter = type(theirs)(LINE, "", theirs.entries[:1], frozenset())
    assert "the registry only 1" in hold_against(checked, shorter, version)[0].said
    assert hold_against(checked, theirs, published.registry.version(LINE, 1))[1].passed is False


def test_a_version_that_was_rolled_back_says_so(
    registry: Registry, line: str, add_versions: Callable[..., None], tmp_path: Path
) -> None:
    add_versions(2)
    registry.promote(line, 1, {"reasons": []}, "anna")
    registry.promote(line, 2, {"reasons": []}, "anna")
    registry.dossier(line, 2, tmp_path / "before.zip")
    registry.rollback(line, "escapes in lot 7", "bert")
    before = verify(tmp_path / "before.zip")
    assert before.state[0] == "Version 2 is in service."
    since = hold_against(before, registry.trail(line), registry.version(line, 2))[0]
    assert since.passed
    assert "about version 2" in since.said
    assert "put version 1 back in service in place of version 2" in since.said
    assert "ROLLED BACK" not in " ".join(before.state)
    registry.dossier(line, 2, tmp_path / "after.zip")
    readme = unpacked(tmp_path / "after.zip")["README.txt"].decode()
    assert "Version 2 is no longer in service." in readme
    assert "ROLLED BACK" in readme
    assert "escapes in lot 7" in readme
    assert "ROLLED BACK" in verify(tmp_path / "after.zip").state[0]
    registry.dossier(line, 1, tmp_path / "back.zip")
    state = verify(tmp_path / "back.zip").state
    assert state[0] == "Version 1 is in service."
    assert [said.split(" from ")[0].split(" since ")[0] for said in state[1:]] == [
        "It was in service",
        "It is in service",
    ]


def test_a_version_without_decisions_has_a_dossier(
    registry: Registry, line: str, add_versions: Callable[..., None], tmp_path: Path
) -> None:
    add_versions(1)
    facts, _ = registry.dossier(line, 1, tmp_path / "new.zip")
    assert set(facts.missing) == {"report", "data", "card.md", "detector"}
    checked = verify(tmp_path / "new.zip")
    assert not checked.wrong
    assert checked.state == ["No decision about version 1 is on record."]


def test_a_refused_and_a_waiting_version_say_so(
    registry: Registry, line: str, add_versions: Callable[..., None], tmp_path: Path
) -> None:
    add_versions(2)
    registry.refuse(line, 1, NO)
    registry.propose(line, 2, {"reasons": ["good"]}, "anna")
    for number, said in ((1, "is not in service. The last decision about it: refused"), (2, "awaits approval")):
        registry.dossier(line, number, tmp_path / "dossier.zip")
        assert said in unpacked(tmp_path / "dossier.zip")["README.txt"].decode()


def test_a_version_that_mlflow_no_longer_has_is_told_from_its_run(
    published: Published, client: MlflowClient, tmp_path: Path
) -> None:
    registry, line = published.registry, "gone"
    done = registry.publish(
        line, published.detector, published.report, params={}, metrics={}, tags={}, dataset=published.facts,
        card="# Card",
    )  # fmt: skip
    registry.promote(line, 1, {"reasons": ["good"]}, "anna")
    client.delete_model_version(f"morphad-{line}", "1")
    facts, _ = registry.dossier(line, 1, tmp_path / "gone.zip")
    assert facts.missing == {"version": "MLflow no longer has version 1 of morphad-gone"}
    assert facts.run_id == done.run_id
    assert any("MLflow no longer has that version" in told for told in facts.differences)
    members = unpacked(tmp_path / "gone.zip")
    assert members["card.md"] == b"# Card"
    assert "detector/detector.json" in members
    assert not [said for said in wrong(tmp_path / "gone.zip").split("\n") if said and not said.startswith("data: ")]
    client.delete_run(done.run_id)
    facts, _ = registry.dossier(line, 1, tmp_path / "deleted.zip")
    assert facts.run_id == done.run_id


def test_a_version_whose_run_is_gone_too_is_told_from_its_decisions(
    registry: Registry, client: MlflowClient, line: str, add_versions: Callable[..., None], tmp_path: Path
) -> None:
    add_versions(1)
    registry.promote(line, 1, {"reasons": ["good"]}, "anna")
    client.delete_model_version(f"morphad-{line}", "1")
    facts, _ = registry.dossier(line, 1, tmp_path / "gone.zip")
    assert {"version", "run", "report", "data", "detector", "card.md"} == set(facts.missing)
    assert facts.detector_hash == registry.trail(line).head.detector
    assert not verify(tmp_path / "gone.zip").wrong
    readme = unpacked(tmp_path / "gone.zip")["README.txt"].decode()
    assert "- version: MLflow no longer has version 1" in readme
    with pytest.raises(BadInputError, match="versions registered: none"):
        registry.dossier(line, 2, tmp_path / "never.zip")


def _documents(registry: Registry, client: MlflowClient, line: str) -> Path:
    uri = client.get_run(registry.trail(line).run_id).info.artifact_uri
    return Path(uri.removeprefix("file://")) / "decisions"


def test_a_document_that_was_changed_stops_it_and_a_lost_one_is_told(
    registry: Registry, client: MlflowClient, line: str, add_versions: Callable[..., None], tmp_path: Path
) -> None:
    add_versions(1)
    registry.promote(line, 1, {"reasons": ["good"]}, "anna")
    file = tmp_path / "dossier.zip"
    file.write_text("an earlier one")
    (document,) = _documents(registry, client, line).iterdir()
    written = document.read_text()
    document.write_text(written.replace("good", "best"))
    with pytest.raises(CheckFailedError, match="is not what was written"):
        registry.dossier(line, 1, file)
    assert file.read_text() == "an earlier one"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    document.unlink()
    facts, _ = registry.dossier(line, 1, file)
    assert "no longer among the artifacts" in facts.missing["decisions/000001-promoted.json"]
    assert not verify(file).wrong


def test_a_damaged_model_stops_it(published: Published, client: MlflowClient, tmp_path: Path) -> None:
    model = client.get_model_version(f"morphad-{LINE}", "1").source.removeprefix("models:/")
    stored = Path(client.get_logged_model(model).artifact_location.removeprefix("file://"))
    description = stored / "artifacts" / "detector" / "detector.json"
    written = description.read_bytes()
    try:
        description.write_text("{}")
        with pytest.raises(CheckFailedError, match="is not the one that was published"):
            published.registry.dossier(LINE, 1, tmp_path / "dossier.zip")
    finally:
        description.write_bytes(written)
    assert not (tmp_path / "dossier.zip").exists()


def test_passwords_that_an_earlier_page_showed_are_not_passed_on(published: Published, tmp_path: Path) -> None:
    report = Path(shutil.copytree(published.report, tmp_path / "report"))
    (report / "index.html").write_text("<p>register.tracking_uri https://anna:s3cret@mlflow.example</p>")
    published.registry.publish(
        "leaky", published.detector, report, params={}, metrics={}, tags={}, dataset=published.facts
    )  # fmt: skip
    facts, _ = published.registry.dossier("leaky", 1, tmp_path / "dossier.zip", with_model=True)
    members = unpacked(tmp_path / "dossier.zip")
    assert not [name for name, data in members.items() if b"s3cret" in data]
    assert facts.masked == ("report/index.html",)
    assert "Credentials were made unreadable in: report/index.html" in members["README.txt"].decode()


def test_reasons_cannot_steer_a_terminal(
    registry: Registry, line: str, add_versions: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_versions(1)
    registry.promote(line, 1, {"reasons": []}, "anna")
    registry.withdraw(line, "\x1b[2Jbad\r\nok     trail: all good", "bert")
    registry.dossier(line, 1, tmp_path / "dossier.zip")
    assert main(["verify", str(tmp_path / "dossier.zip")]) == 0
    out = capsys.readouterr().out
    assert "TAKEN OUT OF SERVICE" in out
    assert "\x1b" not in out
    assert out.count("\nok     trail: ") == 1
    texts = [data for name, data in unpacked(tmp_path / "dossier.zip").items() if name.endswith(".txt")]
    assert not [text for text in texts if b"\x1b" in text]
