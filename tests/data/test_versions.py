"""Versions with a real git registry, real DVC, a folder or a real S3 server: made, brought back, and nothing broken."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from exhaustive import EXHAUSTIVE, sample
from morphad.base.errors import BadInputError, ServiceError
from morphad.base.files import read_json, write_json
from morphad.cli import main
from morphad.data.versions import Address, DataVersion, get_version, list_versions, make_version, read_version_manifest
from morphad.steps.paths import LinePaths
from stack.object_store import ObjectStore
from tests.data.snapshots import content, noise, relabel, write_snapshot

LINE = "caps"
PARAMS = "data: {{{}}}\nlines: {{caps: {{ingest: {{path: x}}}}}}\n"
SHARD = r"[0-9a-f]{32}\.tar"


@dataclass
class Plant:
    """A bare registry, a place for the bytes, and as many project folders as are asked for."""

    root: Path
    remote: str

    @property
    def registry(self) -> Path:
        return self.root / "registry.git"

    @property
    def address(self) -> Address:
        return Address(str(self.registry), self.remote)

    def place(self, name: str = "project") -> LinePaths:
        return LinePaths.checkout(self.root / name, LINE)

    def make(self, place: LinePaths, by: str = "tester") -> tuple[DataVersion, bool]:
        return make_version(
            LINE,
            self.address,
            manifest=place.manifest,
            snapshot_dir=place.snapshot,
            rejects=place.rejects,
            record=place.version,
            by=by,
        )

    def tags(self) -> list[str]:
        return self.git("tag", "--list").split()

    def git(self, *words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(self.registry), *words], check=True, capture_output=True, text=True
        ).stdout

    def hook(self, script: str) -> None:
        hook = self.registry / "hooks" / "pre-receive"
        hook.write_text("#!/bin/sh\n" + script, encoding="utf-8")
        hook.chmod(0o755)

    def objects(self) -> list[Path]:
        return [path for path in Path(self.remote).rglob("*") if path.is_file()]


def new_plant(root: Path, remote: str | None = None) -> Plant:
    subprocess.run(["git", "init", "--quiet", "--bare", str(root / "registry.git")], check=True)
    return Plant(root, remote or str(root / "store"))


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return new_plant(tmp_path)


@pytest.fixture(autouse=True)
def _no_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As in a container: no name for git, no settings of a user."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "no-dvc-config"))
    for name in ("MORPHAD_DATA_REGISTRY", "MORPHAD_DATA_REMOTE"):
        monkeypatch.delenv(name, raising=False)
    yield


IMAGES = (
    noise(5) | noise(2, seed=1, folder="test/crack") | {"train/good/größe 1 ü.png": b"umlaut", "copy.png": b"umlaut"}
)
MASKS = {sorted(noise(2, seed=1, folder="test/crack"))[0]: b"mask"}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plant, list[DataVersion]]:
    """Two versions of a line; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        plant = new_plant(tmp_path_factory.mktemp("plant"))
        place = plant.place()
        write_snapshot(place, IMAGES, MASKS)
        write_json(place.rejects, [{"name": "x.png", "reason": "is empty"}])
        first, new = plant.make(place)
        assert new and read_json(place.version) == first.to_json()
        write_snapshot(place, IMAGES | noise(3, seed=2), MASKS)
        relabel(place, "copy.png", label="defect", defect="scratch")
        second, new = plant.make(place)
        assert new
        return plant, [first, second]


def test_a_version_comes_back_byte_for_byte_anywhere(history: tuple[Plant, list[DataVersion]], tmp_path: Path) -> None:
    plant, versions = history
    for version, images in zip(versions, (IMAGES, IMAGES | noise(3, seed=2)), strict=True):
        out = tmp_path / version.name
        got, brought = get_version(Address(str(plant.registry), None), LINE, version.name, out)
        assert (got, brought) == (version, True)
        files = content(out)
        assert {path: files[f"images/{path}"] for path in images} == images
        assert [path for path in files if "/masks/" in path] == [f"images/masks/{next(iter(MASKS))}.png"]
        assert set(files) - {path for path in files if path.startswith("images/")} == {
            "manifest.parquet", "rejects.json", "version.json"
        }  # fmt: skip
    second = plant.place()
    assert files["manifest.parquet"] == second.manifest.read_bytes()
    assert content(second.snapshot) == content(out / "images")
    assert json.loads(files["rejects.json"]) == [{"name": "x.png", "reason": "is empty"}]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_version_holds_what_it_says(history: tuple[Plant, list[DataVersion]]) -> None:
    plant, (first, second) = history
    assert (first.good, first.defect) == (7, 2) and (second.good, second.defect) == (9, 3)
    assert first.bytes == sum(map(len, IMAGES.values())) + 4 and first.by == "tester"
    assert plant.tags() == sorted([first.tag, second.tag])
    assert first.tag == f"caps/{first.created[:10]}-{first.id[:12]}"


def test_a_new_version_sends_only_what_is_new(history: tuple[Plant, list[DataVersion]]) -> None:
    plant, _ = history
    sizes = sorted(path.stat().st_size for path in plant.objects() if path.stat().st_size % 10_240 == 0)
    assert sizes == [10_240, 20_480]  # three new images after nine


def test_the_same_content_is_a_version_once(history: tuple[Plant, list[DataVersion]], tmp_path: Path) -> None:
    plant, (first, _) = history
    other = LinePaths.checkout(tmp_path / "other", LINE)
    write_snapshot(other, IMAGES, MASKS)
    before = plant.git("rev-parse", "HEAD")
    assert plant.make(other) == (first, False)
    assert read_json(other.version) == first.to_json()
    assert plant.git("rev-parse", "HEAD") == before


def test_what_is_there_already_is_not_fetched_and_another_snapshot_is_kept(
    history: tuple[Plant, list[DataVersion]], tmp_path: Path
) -> None:
    plant, (first, second) = history
    address = Address(str(plant.registry), None)
    get_version(address, LINE, first.id[:8], tmp_path / "out")
    assert get_version(address, LINE, first.name, tmp_path / "out") == (first, False)
    with pytest.raises(BadInputError, match=r"out: holds another snapshot, or this one changed; .*--replace"):
        get_version(address, LINE, "latest", tmp_path / "out")
    (tmp_path / "out" / "images" / "copy.png").write_bytes(b"edited")
    with pytest.raises(BadInputError, match="--replace"):
        get_version(address, LINE, first.name, tmp_path / "out")
    assert get_version(address, LINE, "latest", tmp_path / "out", replace=True) == (second, True)
    assert len(list((tmp_path / "out" / "images" / "train" / "good").iterdir())) == 9


def test_versions_are_listed_and_their_manifests_read(history: tuple[Plant, list[DataVersion]], tmp_path: Path) -> None:
    plant, versions = history
    assert list_versions(plant.address, LINE, tmp_path / "a") == versions
    assert list_versions(plant.address, "other", tmp_path / "b") == []
    _, rows = read_version_manifest(plant.address, LINE, "latest", tmp_path / "c")
    assert rows.set_index("path").at["copy.png", "defect"] == "scratch"


def test_the_command_line(plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    place = plant.place()
    write_snapshot(place, IMAGES, MASKS)
    monkeypatch.chdir(place.manifest.parents[2])
    given = ["--registry", str(plant.registry)]
    assert main(["data", "version", LINE, *given]) == 2
    assert "does not say yet where the bytes are kept; set data.remote" in capsys.readouterr().err
    assert main(["data", "version", LINE, *given, "--remote", plant.remote, "--actor", "Ann"]) == 0
    name = read_json(place.version)["name"]
    assert f"caps@{name}: 7 good and 2 defect images, " in capsys.readouterr().out
    Path("params.yaml").write_text(
        f"data: {{registry: '{plant.registry}'}}\nlines: {{caps: {{ingest: {{path: x}}}}}}\n"
    )
    assert main(["data", "version", LINE]) == 0
    assert capsys.readouterr().out == f"caps: is version caps@{name} already\n"
    write_snapshot(place, IMAGES | noise(1, seed=7), MASKS)
    assert main(["data", "diff", "caps@latest", "caps", "--json", "diff.json"]) == 0
    assert capsys.readouterr().out == "1 came\n  + train/good/7-000.png\n"
    assert read_json(Path("diff.json"))["came"] == ["train/good/7-000.png"]
    assert main(["data", "get", "caps@latest"]) == 2
    assert "holds another snapshot" in capsys.readouterr().err
    assert main(["data", "get", "caps@latest", "--replace"]) == 0
    assert content(place.snapshot) == {**IMAGES, f"masks/{next(iter(MASKS))}.png": b"mask"}
    assert main(["data", "log", LINE]) == 0
    assert f"caps@{name}  " in (log := capsys.readouterr().out) and log.endswith("  by Ann\n")
    assert main(["data", "get", "caps@ffffffff"]) == 2
    assert f"no such version; the last ones are caps@{name}" in capsys.readouterr().err
    Path("params.yaml").write_text(PARAMS.format(f"registry: '{plant.registry}', remote: other"))
    write_snapshot(place, IMAGES | noise(1, seed=7), MASKS)
    assert main(["data", "version", LINE]) == 2
    assert f"keeps its bytes at {plant.remote}, but data.remote says" in capsys.readouterr().err


def test_a_snapshot_that_changed_since_ingest_is_no_version(plant: Plant) -> None:
    place = plant.place()
    write_snapshot(place, noise(4))
    (place.snapshot / "train/good/0-002.png").write_bytes(b"x" * 900)
    with pytest.raises(BadInputError, match=r"0-002\.png: changed since the manifest was written"):
        plant.make(place)
    (place.snapshot / "train/good/0-001.png").unlink()
    with pytest.raises(BadInputError, match=r"0-001\.png: cannot be read \(No such file or directory\)"):
        plant.make(place)
    assert plant.tags() == [] and not place.version.exists()


def test_two_at_once_in_one_folder_is_refused(plant: Plant) -> None:
    from morphad.base.files import working_folder

    place = plant.place()
    write_snapshot(place, noise(2))
    with (
        working_folder(place.manifest.parents[2] / "data" / f".{LINE}.version"),
        pytest.raises(BadInputError, match="another process works here"),
    ):
        plant.make(place)


def test_damaged_bytes_are_an_error_and_nothing_is_left_by_halves(plant: Plant, tmp_path: Path) -> None:
    place, out = plant.place(), tmp_path / "out"
    write_snapshot(place, noise(20))
    version, _ = plant.make(place)
    shard = max(plant.objects(), key=lambda path: path.stat().st_size)
    whole = bytearray(shard.read_bytes())
    whole[700] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(whole)
    for _ in ("other bytes", "gone"):
        with pytest.raises(ServiceError, match=rf"dvc pull failed \(.*caps/shards/{SHARD}"):
            get_version(plant.address, LINE, version.name, out)
        assert not out.exists()
        shard.unlink(missing_ok=True)
    # The images are still here: the next version does not count on the shard that is gone.
    relabel(place, "train/good/0-000.png", label="defect", defect="crack")
    get_version(plant.address, LINE, plant.make(place)[0].name, out)
    assert content(out / "images") == noise(20)


def test_a_registry_that_is_none_or_does_not_answer(plant: Plant, tmp_path: Path) -> None:
    place = plant.place()
    write_snapshot(place, noise(2))
    plant.registry.rename(tmp_path / "elsewhere.git")
    with pytest.raises(BadInputError, match=r"registry\.git: cannot be read .* git init --bare"):
        plant.make(place)
    with pytest.raises(ServiceError, match=r"http://\*\*\*@127\.0\.0\.1:1/x\.git: cannot be read") as caught:
        list_versions(Address("http://me:SECRET@127.0.0.1:1/x.git", None), LINE, tmp_path / "work")
    assert "SECRET" not in str(caught.value) and "me" not in str(caught.value).split("//")[1].split("/")[0]
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()]


def test_a_registry_that_refuses_says_why_and_has_no_tag(plant: Plant) -> None:
    place = plant.place()
    write_snapshot(place, noise(2))
    plant.hook("echo 'error: only Ann may push' >&2; exit 1")
    with pytest.raises(ServiceError, match=r"does not accept caps/\S+ \(.*only Ann may push"):
        plant.make(place)
    assert plant.tags() == [] and not place.version.exists()
    plant.hook("exit 0")
    assert plant.make(place)[1]


COMMAND = [sys.executable, "-m", "morphad.cli", "data", "version", LINE]


def start(plant: Plant, place: LinePaths, command: list[str] = COMMAND) -> "subprocess.Popen[str]":
    environment = {
        **os.environ, "MORPHAD_DATA_REGISTRY": str(plant.registry), "MORPHAD_DATA_REMOTE": plant.remote
    }  # fmt: skip
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=place.manifest.parents[2], env=environment, stdout=pipe, stderr=pipe, text=True
    )


def test_versioners_at_once_end_with_all_versions(plant: Plant, tmp_path: Path) -> None:
    """The first commit of all: the registry is empty, and each push takes so long that they meet."""
    plant.hook("sleep 1\n")
    places = [plant.place(f"project{number}") for number in range(3)]
    contents = [noise(3, seed=1), noise(3, seed=2), noise(3, seed=2)]
    for place, images in zip(places, contents, strict=True):
        write_snapshot(place, images)
    processes = [start(plant, place) for place in places]
    ends = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert [code for _, _, code in ends] == [0, 0, 0], ends
    versions = list_versions(plant.address, LINE, tmp_path / "list")
    assert len(versions) == 2 and sorted(plant.tags()) == sorted(version.tag for version in versions)
    plant.git("fsck", "--strict")
    for place, images in zip(places[:2], contents[:2], strict=True):
        name = read_json(place.version)["name"]
        get_version(plant.address, LINE, name, tmp_path / place.manifest.parents[2].name / "out")
        assert content(tmp_path / place.manifest.parents[2].name / "out" / "images") == images


KILLER = """
import os, signal, sys
from morphad.cli import main
from morphad.data.versions.commands import Commands
run = Commands.run
def killing(self, command):
    word = " ".join(command[-len(command) + 1:])
    hit = sys.argv[1] in word
    if hit and sys.argv[2] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    done = run(self, command)
    if hit and sys.argv[2] == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return done
Commands.run = killing
sys.exit(main(sys.argv[3:]))
"""


def killed(plant: Plant, place: LinePaths, at: str, when: str, words: list[str]) -> None:
    process = start(plant, place, [sys.executable, "-c", KILLER, at, when, *words])
    out, err = process.communicate(timeout=300)
    assert process.returncode == -9, (at, when, out, err)


def test_killed_anywhere_a_rerun_ends_right_and_no_tag_lacks_bytes(plant: Plant, tmp_path: Path) -> None:
    place = plant.place()
    write_snapshot(place, IMAGES, MASKS)
    cuts = (("dvc push", "before"), ("dvc push", "after"), (" commit ", "after"), ("--atomic", "before"))
    for at, when in sample(cuts, 2):
        killed(plant, place, at, when, ["data", "version", LINE])
        assert plant.tags() == [] and not place.version.exists()
    killed(plant, place, "--atomic", "after", ["data", "version", LINE])
    assert len(plant.tags()) == 1 and not place.version.exists()
    version, new = plant.make(place)
    assert not new and plant.tags() == [version.tag]
    assert not (place.manifest.parents[2] / "data" / f".{LINE}.version").exists()
    project = tmp_path / "other"
    project.mkdir()
    words = ["data", "get", version.spelling]
    for at in ("fetch", "dvc pull") if EXHAUSTIVE else ("dvc pull",):
        killed(plant, LinePaths.checkout(project, LINE), at, "after", words)
        assert not (project / "data" / LINE).exists()
    process = start(plant, LinePaths.checkout(project, LINE), [sys.executable, "-m", "morphad.cli", *words])
    assert process.communicate(timeout=300)[1] == "" and process.returncode == 0
    assert content(project / "data" / LINE / "images") == content(place.snapshot)
    assert [path.name for path in (project / "data").iterdir()] == [LINE]


def test_a_fetch_that_was_cut_off_goes_on(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from morphad.data.versions import getting, shards

    monkeypatch.setattr(shards, "SHARD_BYTES", 4000)
    monkeypatch.setattr(getting, "BATCH", 1)
    place = plant.place()
    write_snapshot(place, noise(6))
    version, _ = plant.make(place)
    unpacked: list[str] = []
    unpack: Callable[..., None] = getting.unpack

    def failing(tar_file: Path, wanted: dict[str, list[Path]], name: str) -> None:
        if len(unpacked) == 2:
            unpacked.clear()
            raise KeyboardInterrupt
        unpacked.append(name)
        unpack(tar_file, wanted, name)

    monkeypatch.setattr(getting, "unpack", failing)
    with pytest.raises(KeyboardInterrupt):
        get_version(plant.address, LINE, version.name, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(getting, "unpack", lambda *given: (unpacked.append(given[2]), unpack(*given)))
    get_version(plant.address, LINE, version.name, tmp_path / "out")
    assert len(unpacked) == 1  # of three
    assert content(tmp_path / "out" / "images") == noise(6)


def test_on_s3_without_a_trace_of_credentials(
    s3: ObjectStore, s3_bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no-config").touch()
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))  # DVC refuses what is no file
    plant = new_plant(tmp_path, f"s3://{s3_bucket}/dvc")
    place, address = plant.place(), Address(str(plant.registry), None)
    write_snapshot(place, IMAGES, MASKS)
    version, _ = plant.make(place)
    get_version(address, LINE, version.name, tmp_path / "out")
    assert content(tmp_path / "out" / "images") == content(place.snapshot)
    history = plant.git("log", "--all", "--patch", "--text")
    assert s3_bucket in history
    write_snapshot(place, IMAGES | noise(2, seed=9), MASKS)
    wrong = s3.secret_key[::-1]
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
        with pytest.raises(ServiceError, match=r"dvc (pull|push|status) failed .* credentials") as caught:
            plant.make(place)
    said = history + str(caught.value) + "".join(capsys.readouterr())
    for secret in (s3.secret_key, s3.access_key, wrong):
        assert secret not in said
    assert plant.tags() == [version.tag]
    client = s3.client()
    largest = max(client.list_objects_v2(Bucket=s3_bucket)["Contents"], key=lambda entry: entry["Size"])
    whole = bytearray(client.get_object(Bucket=s3_bucket, Key=largest["Key"])["Body"].read())
    whole[whole.index(b"umlaut")] ^= 1
    client.put_object(Bucket=s3_bucket, Key=largest["Key"], Body=bytes(whole))
    with pytest.raises(ServiceError, match=rf"caps/shards/{SHARD}: damaged where the registry keeps its bytes"):
        get_version(address, LINE, version.name, tmp_path / "again")
    assert not (tmp_path / "again").exists()
