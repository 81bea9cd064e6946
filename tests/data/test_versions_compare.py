"""What came, went and is said otherwise; names and addresses of versions; no credentials where eyes or files are."""

from pathlib import Path

import pandas as pd
import pytest

from morphad.base.errors import BadInputError
from morphad.base.files import write_json
from morphad.data.manifest import read_manifest, snapshot_id
from morphad.data.versions import DataVersion, Difference, compare, current_version, find_address, parse_version
from morphad.data.versions.comparing import Change
from morphad.data.versions.identity import Address, choose
from morphad.settings import DataSettings
from morphad.steps.paths import LinePaths
from tests.data.snapshots import noise, write_snapshot


def manifest(place: Path, images: dict[str, bytes], masks: dict[str, bytes] | None = None) -> pd.DataFrame:
    workspace = LinePaths.checkout(place, "caps")
    write_snapshot(workspace, images, masks)
    return read_manifest(workspace.manifest)


def test_equal_data_have_no_difference(tmp_path: Path) -> None:
    rows = manifest(tmp_path, noise(5))
    assert compare(rows, rows.sample(frac=1, random_state=0)) == Difference((), (), (), (), ())
    assert list(compare(rows, rows).in_words()) == ["no difference"]


def test_every_kind_of_difference_is_told(tmp_path: Path) -> None:
    images = noise(6) | noise(2, seed=1, folder="test/crack")
    crack, other_crack = sorted(noise(2, seed=1, folder="test/crack"))
    before = manifest(tmp_path, images, {crack: b"mask", other_crack: b"mask"})
    names = sorted(noise(6))
    later = dict(images)
    del later[names[0]]  # went
    later["train/good/new.png"] = b"new"  # came
    later["train/good/ moved ü.png"] = later.pop(names[1])
    later[names[2]] = b"taken again"
    after = manifest(tmp_path, later, {crack: b"other mask"})
    after.loc[after["path"] == names[3], ["label", "defect"]] = ["defect", "scratch"]
    after.loc[after["path"] == names[4], "group"] = "lot 7"
    after.loc[after["path"] == "train/good/ moved ü.png", "lot"] = "7"
    found = compare(before, after)
    assert found.came == ("train/good/new.png",)
    assert found.went == (names[0],)
    assert found.renamed == ((names[1], "train/good/ moved ü.png"),)
    assert found.replaced == (names[2],)
    said = {(change.path, change.field): (change.before, change.after) for change in found.changed}
    assert said[names[3], "label"] == ("good", "defect") and said[names[3], "defect"] == ("", "scratch")
    assert said[names[4], "group"] == ("", "lot 7")
    assert said["train/good/ moved ü.png", "lot"] == ("", "7")
    assert said[crack, "mask"][0] and said[crack, "mask"][1] and said[other_crack, "mask"][1] == ""
    told = "\n".join(found.in_words())
    for line in (
        "1 came", "  + train/good/new.png", "1 went", "1 renamed", "1 with other bytes", "1 with another label",
        f"  {names[3]}: good -> defect",
        f"  {crack}: another mask", f"  {other_crack}: mask removed", f"  {names[4]}: none -> lot 7",
    ):  # fmt: skip
        assert line in told


def test_long_lists_are_cut(tmp_path: Path) -> None:
    told = list(compare(manifest(tmp_path, noise(1)), manifest(tmp_path, noise(31))).in_words())
    assert told[0] == "30 came" and told[-1] == "  and 20 more"


def test_manifests_of_another_time_lack_columns(tmp_path: Path) -> None:
    rows = manifest(tmp_path, noise(2))
    named = rows.assign(lot="7")
    path = rows["path"].iloc[0]
    assert Change(path, "lot", "", "7") in compare(rows.drop(columns="lot"), named).changed
    assert Change(path, "lot", "7", "") in compare(named, rows.drop(columns="lot")).changed


def version(number: int, day: int = 1) -> DataVersion:
    identity = f"{number:064x}"[::-1]
    return DataVersion("caps", f"2025-03-{day:02}-{identity[:12]}", identity, "d", "", "me", 1, 1, 1, "m")


def test_a_version_is_chosen_by_name_by_digits_or_as_the_latest() -> None:
    versions = [version(0x1A2B), version(0x1A2C, 2), version(0xFFFF, 3)]
    assert choose(versions, "caps", "latest") is versions[2]
    assert choose(versions, "caps", versions[0].name) is versions[0]
    assert choose(versions, "caps", "ffff") is versions[2]
    with pytest.raises(BadInputError, match=r"caps@1234: no such version; the last ones are caps@2025-03-01-"):
        choose(versions, "caps", "1234")
    with pytest.raises(BadInputError, match="the registry has none of this line"):
        choose([], "caps", "latest")
    same = [
        version(0xABCD),
        DataVersion.from_json(version(0xABCD).to_json() | {"name": "2025-04-01-dcba00000000"}, "x"),
    ]
    with pytest.raises(BadInputError, match="2 versions begin so"):
        choose(same, "caps", "dcba")


@pytest.mark.parametrize(
    "text", ["caps", "caps@", "caps@abc", "Caps@latest", "../x@latest", "caps@2025-01-01", "a@b@c"]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="expected LINE@DATE-HASH"):
        parse_version(text)


@pytest.mark.parametrize("change", [
    {"good": "1"}, {"line": "../x"}, {"name": "2025-03-01-000000000000"}, {"name": "../../etc"}, {"bytes": None},
])  # fmt: skip
def test_a_record_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    good = version(3).to_json()
    assert DataVersion.from_json(good, "x") == version(3)
    with pytest.raises(BadInputError, match=r"^x: "):
        DataVersion.from_json(good | change, "x")


def test_the_current_version_is_forgotten_when_the_data_change(tmp_path: Path) -> None:
    rows, record = manifest(tmp_path, noise(3)), tmp_path / "version.json"
    assert current_version(record, rows) is None
    identity = snapshot_id(rows)
    known = DataVersion.from_json(version(1).to_json() | {"id": identity, "name": f"2025-03-01-{identity[:12]}"}, "x")
    write_json(record, known.to_json())
    assert current_version(record, rows.sample(frac=1, random_state=0)) == known
    assert current_version(record, rows.iloc[1:]) is None
    assert current_version(record, rows.assign(mask_sha256="x")) is None


def test_the_registry_is_named_by_option_then_environment_then_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MORPHAD_DATA_REGISTRY", raising=False)
    monkeypatch.delenv("MORPHAD_DATA_REMOTE", raising=False)
    with pytest.raises(BadInputError, match="no data registry is named: give --registry"):
        find_address(DataSettings())
    assert find_address(DataSettings(registry="here.git", remote="store")).registry == str(tmp_path / "here.git")
    monkeypatch.setenv("MORPHAD_DATA_REGISTRY", "git@host:team/data.git")
    monkeypatch.setenv("MORPHAD_DATA_REMOTE", "s3://bucket/dvc")
    found = find_address(DataSettings(registry="here.git", remote="store"))
    assert (found.registry, found.remote) == ("git@host:team/data.git", "s3://bucket/dvc")
    assert find_address(DataSettings(), "https://host/x.git").registry == "https://host/x.git"
    assert find_address(DataSettings(), "x", "store").remote == str(tmp_path / "store")


@pytest.mark.parametrize("remote", ["s3://KEY:SECRET@bucket/x", "s3://KEY@bucket", "https://me:SECRET@host/x"])
def test_credentials_do_not_get_into_a_registry(remote: str) -> None:
    with pytest.raises(BadInputError, match="holds credentials") as caught:
        find_address(DataSettings(), "x", remote)
    assert "SECRET" not in str(caught.value) and "KEY" not in str(caught.value).replace("AWS_ACCESS_KEY_ID", "")
    shown = Address(remote, None).shown
    assert "SECRET" not in shown and "KEY" not in shown
