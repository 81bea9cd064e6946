"""Operators' verdicts: read with care, joined with who and when, used by the next split, never in a frozen holdout."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from morphad.base.errors import BadInputError
from morphad.base.files import read_json
from morphad.data.feedback import COLUMNS, OperatorVerdict, apply_verdicts, as_ingested, join_verdicts, read_verdicts
from morphad.data.manifest import read_manifest, snapshot_id
from morphad.data.split.holdout import FrozenHoldout
from morphad.data.split.roles import split_manifest
from morphad.settings import IngestSettings, LineSettings, SplitSettings
from morphad.steps.ingest import ingest
from morphad.steps.paths import LinePaths
from morphad.steps.split import split as split_step
from stack.object_store import ObjectStore

HEADER = "image,verdict,defect,by,at,comment\n"


def said(
    image: str, verdict: str = "escape", defect: str = "", at: str = "2025-03-01T10:00:00", by: str = "Ann"
) -> OperatorVerdict:
    return OperatorVerdict(image, verdict, defect, by, f"{at}+00:00", "")


def manifest(good: int = 40, defects: int = 4) -> pd.DataFrame:
    rows = []
    for number in range(good + defects):
        defect = number >= good
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        rows.append({
            "path": f"{number:03}.png", "sha256": digest, "label": "defect" if defect else "good",
            "defect": "crack" if defect else "", "mask": f"masks/{number:03}.png" if defect else "",
            "mask_sha256": digest if defect else "", "masked": 0.1 if defect else 0.0, "group": "", "lot": "",
            "shift": "", "camera": "", "acquired": "", "peak": 250, "perceptual_hash": digest,
        })  # fmt: skip
    return pd.DataFrame(rows)


def split(
    rows: pd.DataFrame, frozen: FrozenHoldout | None = None, **settings: Any
) -> tuple[pd.DataFrame, FrozenHoldout]:
    result, holdout = split_manifest(rows, SplitSettings(**settings), 0, frozen)
    return result.set_axis(result["path"].tolist()), holdout


def roles(rows: pd.DataFrame, role: str, label: str = "good") -> list[str]:
    return rows.loc[(rows["role"] == role) & (rows["label"] == label), "path"].tolist()


class TestReading:
    def test_csv_and_json_say_the_same(self, tmp_path: Path) -> None:
        table = tmp_path / "feed.csv"
        table.write_text(
            "\ufeff" + HEADER
            + 'a/größe 1.png, escape, crack, Ann, 2025-03-01T10:00:00+01:00,"under, the lamp"\n'
            + f"{'AB' * 32},false_reject,,Ben,2025-03-02 07:30,\n",
            encoding="utf-8",
        )  # fmt: skip
        expected = [
            OperatorVerdict("a/größe 1.png", "escape", "crack", "Ann", "2025-03-01T09:00:00+00:00", "under, the lamp"),
            OperatorVerdict("ab" * 32, "false_reject", "", "Ben", "2025-03-02T07:30:00+00:00", ""),
        ]
        assert read_verdicts(str(table)) == expected
        feed = tmp_path / "feed.json"
        feed.write_text(json.dumps([{**vars(v), "comment": v.comment or None} for v in expected]), encoding="utf-8")
        assert read_verdicts(str(feed)) == expected

    def test_a_name_copied_from_a_table_of_predictions_is_the_images(self, tmp_path: Path) -> None:
        (tmp_path / "feed.csv").write_text(HEADER + "'=cmd.png,escape,,Ann,2025-03-01T10:00:00Z,\n")
        assert [verdict.image for verdict in read_verdicts(str(tmp_path / "feed.csv"))] == ["=cmd.png"]

    def test_an_empty_feed_is_one(self, tmp_path: Path) -> None:
        (tmp_path / "feed.csv").write_text(HEADER)
        assert read_verdicts(str(tmp_path / "feed.csv")) == []

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "column 'image' is missing; the header is empty, expected image, verdict"),
            ("path,verdict,by,at\n", "column 'image' is missing"),
            ("image;verdict;by;at\n", "column 'image' is missing"),
            (f"{HEADER}a.png,escape,,Ann\n", "row 2 has not 6 cells"),
            (f"{HEADER}a.png,escape,,Ann,2025-03-01,x,y\n", "row 2 has not 6 cells"),
            (
                f"{HEADER}a.png,false reject,,Ann,2025-03-01,\n",
                "row 2: verdict = 'false reject': expected false_reject",
            ),
            (f"{HEADER}a.png,escape,,,2025-03-01,\n", "row 2: by is missing"),
            (f"{HEADER},escape,,Ann,2025-03-01,\n", "row 2: image is missing"),
            (f"{HEADER}a.png,escape,,Ann,yesterday,\n", "row 2: at = 'yesterday': expected a time such as"),
            (f"{HEADER}a.png,false_reject,crack,Ann,2025-03-01,\n", "row 2: defect = 'crack' of a false reject"),
            ("image,verdict,by,at,colour\na.png,escape,Ann,2025-03-01,red\n", "row 2: unknown 'colour'"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "feed.csv").write_text(text)
        with pytest.raises(BadInputError, match=rf"feed\.csv: .*{message}"):
            read_verdicts(str(tmp_path / "feed.csv"))

    @pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"image": 3, "verdict": "escape", "by": "x", "at": "2025"}]'])
    def test_json_that_is_no_feed(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "feed.json").write_text(text)
        with pytest.raises(BadInputError, match=r"feed\.json: (not valid JSON|expected a list|row 1: image = 3)"):
            read_verdicts(str(tmp_path / "feed.json"))

    def test_a_feed_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match=r"no\.csv: no verdicts there; create the file, or"):
            read_verdicts(str(tmp_path / "no.csv"))
        (tmp_path / "latin.csv").write_bytes(HEADER.encode() + "größe".encode("latin-1"))
        with pytest.raises(BadInputError, match="not UTF-8"):
            read_verdicts(str(tmp_path / "latin.csv"))

    def test_from_a_bucket(self, s3: ObjectStore, s3_bucket: str) -> None:
        feed = f"{HEADER}a.png,escape,crack,Ann,2025-03-01T10:00Z,\n"
        s3.client().put_object(Bucket=s3_bucket, Key="caps/feed.csv", Body=feed.encode())
        assert read_verdicts(f"s3://{s3_bucket}/caps/feed.csv") == [said("a.png", defect="crack")]


class TestJoining:
    def test_who_and_when_stand_beside_the_image_and_labels_stay(self) -> None:
        rows = manifest()
        by_hash = rows["sha256"].iloc[7]
        joined, feedback = join_verdicts(
            rows, [said("003.png", defect="scratch"), said(by_hash, "false_reject", by="Ben")]
        )
        three, seven = joined.iloc[3], joined.iloc[7]
        assert (three["verdict"], three["verdict_defect"], three["verdict_by"]) == ("escape", "scratch", "Ann")
        assert three["verdict_at"] == "2025-03-01T10:00:00+00:00"
        assert (seven["verdict"], seven["verdict_by"]) == ("false_reject", "Ben")
        assert (joined.drop(index=[3, 7])[list(COLUMNS)] == "").all().all()
        assert joined[rows.columns].equals(rows)
        assert (feedback.verdicts, feedback.images, feedback.remarks()) == (2, 2, [])
        assert snapshot_id(joined) != snapshot_id(rows)

    def test_the_latest_holds_and_contradictions_are_listed(self) -> None:
        feed = [
            said("003.png", "escape", "crack", "2025-03-03T08:00:00", "Ben"),
            said("003.png", "false_reject", "", "2025-03-02T08:00:00"),
            said("004.png", "escape", "crack", "2025-03-01T08:00:00"),
            said("004.png", "escape", "crack", "2025-03-02T08:00:00"),
        ]
        joined, feedback = join_verdicts(manifest(), feed)
        assert joined.loc[3, ["verdict", "verdict_by"]].tolist() == ["escape", "Ben"]
        assert joined.loc[4, "verdict_at"] == "2025-03-02T08:00:00+00:00"
        assert list(feedback.contradictions) == ["003.png"]
        assert feedback.remarks() == [
            "verdicts on 003.png contradict each other, the last one holds: false reject by Ann at "
            "2025-03-02T08:00:00+00:00; escape (crack) by Ben at 2025-03-03T08:00:00+00:00"
        ]

    def test_unknown_images_are_listed(self) -> None:
        joined, feedback = join_verdicts(manifest(), [said("003.png"), said("x.png"), said("y.png"), said("x.png")])
        assert feedback.unknown == ("x.png", "y.png") and feedback.images == 1
        assert feedback.remarks() == ["2 verdicts are about images that the line does not have: x.png, y.png"]
        assert (joined["verdict"] != "").sum() == 1

    def test_a_verdict_holds_for_all_images_with_the_same_bytes(self) -> None:
        rows = manifest()
        rows.loc[9, "sha256"] = rows.loc[3, "sha256"]
        joined, feedback = join_verdicts(rows, [said("009.png")])
        assert joined.loc[[3, 9], "verdict"].tolist() == ["escape", "escape"] and feedback.images == 2

    def test_a_new_feed_replaces_the_old_one(self) -> None:
        joined, _ = join_verdicts(manifest(), [said("003.png")])
        again, _ = join_verdicts(joined, [said("004.png")])
        assert again.index[again["verdict"] != ""].tolist() == [4]


class TestSplitting:
    def test_an_escape_leaves_training_and_calibration(self) -> None:
        rows, _ = split(manifest())
        for role in ("train", "calibration"):
            image = roles(rows, role)[0]
            after, _ = split(join_verdicts(manifest(), [said(image, defect="scratch")])[0])
            assert after.loc[image, ["label", "defect", "role"]].tolist() == ["defect", "scratch", "holdout"]
            assert after.loc[image, ["source_label", "source_defect"]].tolist() == ["good", ""]

    def test_an_escape_after_the_holdout_was_frozen_is_excluded_and_says_by_whom(self) -> None:
        rows, frozen = split(manifest())
        image = roles(rows, "train")[0]
        after, same = split(join_verdicts(manifest(), [said(image)])[0], frozen)
        assert same is frozen and after.loc[image, "role"] == "excluded"
        assert after.loc[image, "reason"] == (
            "a defect by the verdict of Ann at 2025-03-01T10:00:00+00:00, after the holdout was frozen; set "
            "split.renew_holdout to draw a new one"
        )
        assert "pending" not in after

    def test_a_false_reject_of_an_image_labelled_defect_becomes_good(self) -> None:
        after, _ = split(join_verdicts(manifest(), [said("041.png", "false_reject")])[0])
        image = after.loc["041.png"]
        assert (image["label"], image["defect"], image["mask"], image["mask_sha256"], image["masked"]) == (
            "good",
            "",
            "",
            "",
            0,
        )
        assert image["source_mask"] == "masks/041.png" and image["role"] in {"train", "calibration", "holdout"}

    def test_a_false_reject_of_a_good_image_only_says_so(self) -> None:
        before, _ = split(manifest())
        after, _ = split(join_verdicts(manifest(), [said("003.png", "false_reject")])[0])
        assert after["role"].equals(before["role"]) and "source_label" not in after

    @pytest.mark.parametrize("label", ["good", "defect"])
    def test_a_frozen_image_keeps_its_label_and_the_verdict_waits_for_a_new_holdout(self, label: str) -> None:
        rows, frozen = split(manifest())
        image = roles(rows, "holdout", label)[0]
        verdict = said(image, "escape", "scratch") if label == "good" else said(image, "false_reject")
        told, _ = join_verdicts(manifest(), [verdict])
        after, same = split(told, frozen)
        assert same is frozen
        columns = ["role", "label", "defect", "mask", "mask_sha256", "masked"]
        assert after.loc[image, columns].tolist() == rows.loc[image, columns].tolist()
        becomes = "escape by {}: defect (scratch)" if label == "good" else "false reject by {}: good"
        who_and_when = "Ann at 2025-03-01T10:00:00+00:00"
        assert after.loc[image, "pending"] == f"{becomes.format(who_and_when)} with split.renew_holdout"
        assert (after["pending"] != "").sum() == 1
        renewed, other = split(told, frozen, renew_holdout=True)
        assert "pending" not in renewed and renewed.loc[image, "label"] != label
        assert {i.path: i.label for i in other.images}.get(image, renewed.loc[image, "label"]) == renewed.loc[
            image, "label"
        ]
        kept, _ = split(told, other)
        assert "pending" not in kept and kept["label"].equals(renewed["label"])

    def test_a_new_label_of_the_source_does_not_get_into_a_frozen_holdout_either(self) -> None:
        rows, frozen = split(manifest())
        image = roles(rows, "holdout")[0]
        other = manifest()
        other.loc[other["path"] == image, ["label", "defect"]] = ["defect", "dent"]
        after, _ = split(other, frozen)
        assert after.loc[image, ["label", "defect"]].tolist() == ["good", ""]
        assert after.loc[image, "pending"] == "the source's new label: defect (dent) with split.renew_holdout"

    def test_another_kind_of_defect_waits_too_unless_the_holdout_is_too_old_to_know(self) -> None:
        rows, frozen = split(manifest())
        image = roles(rows, "holdout", "defect")[0]
        told, _ = join_verdicts(manifest(), [said(image, defect="dent")])
        assert split(told, frozen)[0].loc[image, "defect"] == "crack"
        value = frozen.to_json()
        for entry in value["images"]:
            del entry["defect"]
        after, _ = split(manifest(), FrozenHoldout.from_json(value))
        assert after.loc[image, "defect"] == "crack" and "pending" not in after

    def test_what_was_ingested_can_be_told_from_a_split(self) -> None:
        rows, frozen = split(manifest())
        feed = [said(roles(rows, "train")[0]), said("041.png", "false_reject"), said(roles(rows, "holdout")[0])]
        told, _ = join_verdicts(manifest(), feed)
        for known in (None, frozen):
            assert snapshot_id(as_ingested(split(told, known)[0])) == snapshot_id(told)

    def test_nothing_is_added_where_nothing_is_said(self) -> None:
        assert apply_verdicts(manifest(), {}).equals(manifest())


def test_the_whole_way(make_set: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ingest with a feed, split, a verdict on the holdout, a renewed holdout; each step says what it did."""
    place = LinePaths.checkout(tmp_path, "weave")
    camera = make_set(tmp_path / "camera", good=24, defects=3)
    feed = tmp_path / "feed.csv"

    def ingest_and_split(*lines: str, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], pd.DataFrame]:
        feed.write_text(HEADER + "".join(f"{line}\n" for line in lines))
        told = IngestSettings(path=str(camera), verdicts=str(feed))
        ingested = ingest(LineSettings(ingest=told), place)
        figures = split_step(LineSettings(ingest=told, split=SplitSettings(**settings)), place, 0)
        return ingested, figures, read_manifest(place.split).set_index("path")

    _, figures, rows = ingest_and_split()
    assert figures["warnings"] == []
    trained = rows.index[rows["role"] == "train"][0]
    held = rows.index[(rows["role"] == "holdout") & (rows["label"] == "good")][0]
    lines = (
        f"{trained},escape,spot,Ann,2025-03-01,",
        f"{held},escape,spot,Ann,2025-03-01,",
        "gone.png,escape,,Ann,2025-03-01,",
    )
    ingested, figures, rows = ingest_and_split(*lines)
    assert ingested["verdicts"] == 2
    assert ingested["remarks"] == ["1 verdicts are about images that the line does not have: gone.png"]
    assert read_json(place.feedback)["unknown"] == ["gone.png"]
    assert rows.loc[trained, "role"] == "excluded" and rows.loc[held, "label"] == "good"
    assert figures["warnings"] == [
        f"{held} is of the frozen holdout: escape by Ann at 2025-03-01T00:00:00+00:00: defect (spot) with "
        "split.renew_holdout"
    ]
    _, figures, rows = ingest_and_split(*lines, renew_holdout=True)
    assert figures["warnings"] == []
    assert rows.loc[[trained, held], "role"].tolist() == ["holdout", "holdout"]
    assert rows.loc[[trained, held], "label"].tolist() == ["defect", "defect"]
