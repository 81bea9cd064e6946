"""Images in a bucket on a real server: what is fetched, what is not fetched again, and what faults come to."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import botocore.auth
import pytest

from morphad.base.errors import BadInputError, OutageError, ServiceError
from morphad.data.index import open_memory
from morphad.data.manifest import read_manifest
from morphad.data.source.mirror import Mirror
from morphad.data.source.s3 import Bucket, read_object
from morphad.data.source.uploading import upload_folder
from morphad.settings import IngestSettings, LineSettings
from morphad.steps.ingest import ingest as ingest_step
from morphad.steps.paths import LinePaths
from tests.data.wire import Broken, Wire

if TYPE_CHECKING:
    from stack.object_store import ObjectStore

LINE = "caps"


@pytest.fixture
def place(tmp_path: Path) -> LinePaths:
    return LinePaths.checkout(tmp_path / "project", LINE)


@pytest.fixture
def camera(tmp_path: Path, make_set: Callable[..., Path]) -> Path:
    """26 images, 4 of them defects with masks: 30 files, some of them oddly named."""
    folder = make_set(tmp_path / "camera", good=20, test_good=2, defects=4, side=24)
    good = folder / "train" / "good"
    (good / "000.png").rename(good / "a part, left side.png")
    (good / "001.png").rename(good / "Prüfling 日本 + 100%.png")
    return folder


@pytest.fixture
def prefix(camera: Path, s3_bucket: str) -> str:
    url = f"s3://{s3_bucket}/line 1/ä"
    upload_folder(camera, url, "test")
    return url


@pytest.fixture
def wire(s3: "ObjectStore", s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    with Wire(s3.endpoint) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", wire.endpoint)
        yield wire


def settings_of(path: object, **further: Any) -> IngestSettings:
    source = "s3" if str(path).startswith("s3://") else "folder"
    return IngestSettings.model_validate({"source": source, "path": str(path), "patience_seconds": 20, **further})


def ingest(place: LinePaths, settings: IngestSettings) -> dict[str, Any]:
    return ingest_step(LineSettings(ingest=settings), place)


def changes(figures: dict[str, Any]) -> tuple[int, int, int]:
    return figures["new"], figures["changed"], figures["gone"]


def parts(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def put(s3: "ObjectStore", url: str, name: str, data: bytes, **further: Any) -> None:
    bucket, key = parts(url)
    s3.client().put_object(Bucket=bucket, Key=f"{key}/{name}", Body=data, **further)


def other_image(camera: Path) -> bytes:
    """Bytes of an image that is not in the line."""
    from PIL import Image

    Image.new("L", (24, 24), 77).save(camera.parent / "other.png")
    return (camera.parent / "other.png").read_bytes()


def test_a_bucket_gives_the_same_line_as_a_folder(camera: Path, prefix: str, tmp_path: Path) -> None:
    beside = LinePaths.checkout(tmp_path / "beside", LINE)
    place = LinePaths.checkout(tmp_path / "bucket", LINE)
    ingest(beside, settings_of(camera))
    figures = ingest(place, settings_of(prefix))
    assert (figures["good"], figures["defect"], changes(figures)) == (22, 4, (26, 0, 0))
    assert place.manifest.read_bytes() == beside.manifest.read_bytes()
    for row in read_manifest(place.manifest).itertuples():
        assert (place.snapshot / str(row.path)).read_bytes() == (camera / str(row.path)).read_bytes()
        if row.mask:
            assert (place.snapshot / str(row.mask)).is_file()


def test_nothing_new_is_nothing_fetched_and_nothing_written(prefix: str, place: LinePaths, wire: Wire) -> None:
    ingest(place, settings_of(prefix))
    assert set(wire.gets().values()) == {1}
    assert len(wire.gets()) == 30
    before, files = place.manifest.read_bytes(), {path: path.stat().st_ino for path in place.snapshot.rglob("*")}
    wire.requests.clear()
    assert changes(ingest(place, settings_of(prefix))) == (0, 0, 0)
    assert wire.gets() == {}
    assert place.manifest.read_bytes() == before
    assert {path: path.stat().st_ino for path in place.snapshot.rglob("*")} == files


def test_new_overwritten_and_deleted_objects_are_noticed(
    s3: "ObjectStore", camera: Path, prefix: str, place: LinePaths, wire: Wire
) -> None:
    ingest(place, settings_of(prefix))
    wire.requests.clear()
    bucket, key = parts(prefix)
    put(s3, prefix, "train/good/new.png", other_image(camera))
    put(s3, prefix, "train/good/002.png", other_image(camera))
    s3.client().delete_object(Bucket=bucket, Key=f"{key}/train/good/003.png")
    s3.client().delete_object(Bucket=bucket, Key=f"{key}/test/spot/000.png")
    s3.client().delete_object(Bucket=bucket, Key=f"{key}/ground_truth/spot/000_mask.png")
    assert changes(ingest(place, settings_of(prefix))) == (1, 1, 2)
    assert sorted(path.rsplit("/", 1)[1] for path in wire.gets()) == ["002.png", "new.png"]
    assert (place.snapshot / "train/good/002.png").read_bytes() == other_image(camera)
    names = set(read_manifest(place.manifest)["path"])
    assert "train/good/new.png" in names
    assert not names & {"train/good/003.png", "test/spot/000.png"}
    for folder in (place.snapshot, place.memory / "mirror"):
        assert not [path for path in folder.rglob("*") if path.match("good/003.png") or "000_mask" in path.name]


def test_a_listing_of_many_pages(s3: "ObjectStore", s3_bucket: str, place: LinePaths, wire: Wire) -> None:
    for number in range(23):
        s3.client().put_object(Bucket=s3_bucket, Key=f"line/{number:02}.png", Body=b"x")
    s3.client().put_object(Bucket=s3_bucket, Key="line-2/other.png", Body=b"x")
    with open_memory(place.memory, LINE) as memory:
        mirror = Mirror(settings_of(f"s3://{s3_bucket}/line"), memory, page=5)
    assert list(mirror.names) == [f"{number:02}.png" for number in range(23)]
    assert len(wire.requests) == 5


@pytest.mark.slow
def test_a_listing_of_20_000_keys(s3: "ObjectStore", s3_bucket: str, place: LinePaths, wire: Wire) -> None:
    def put(first: int) -> None:
        # To the filer behind the S3 gateway, which takes several thousand a second.
        filer = http.client.HTTPConnection("127.0.0.1", s3.port + 3)
        for number in range(first, first + 5_000):
            filer.request("PUT", f"/buckets/{s3_bucket}/line/{number // 1000:02}/{number:05}.png", body=b"")
            assert filer.getresponse().read() is not None

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(0, 20_000, 5_000)))
    with open_memory(place.memory, LINE) as memory:
        mirror = Mirror(settings_of(f"s3://{s3_bucket}/line"), memory)
    assert list(mirror.names) == [f"{number // 1000:02}/{number:05}.png" for number in range(20_000)]
    assert len(wire.requests) == 20


def test_a_killed_ingest_goes_on_and_fetches_nothing_twice(
    s3: "ObjectStore", prefix: str, place: LinePaths, wire: Wire
) -> None:
    def slow(method: str, path: str) -> None:
        time.sleep(0.05)

    wire.rule = slow
    script = (
        "import sys; from pathlib import Path; from morphad.steps.ingest import ingest\n"
        "from morphad.settings import IngestSettings, LineSettings\n"
        "from morphad.steps.paths import LinePaths\n"
        "place = LinePaths.checkout(Path(sys.argv[1]), 'caps')\n"
        "ingest(LineSettings(ingest=IngestSettings(source='s3', path=sys.argv[2], transfers=2)), place)\n"
    )
    environment = {**os.environ, "AWS_ENDPOINT_URL_S3": wire.endpoint}
    child = subprocess.Popen([sys.executable, "-c", script, str(place.manifest.parents[2]), prefix], env=environment)
    deadline = time.monotonic() + 60
    while len(wire.gets()) < 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    mirror = place.memory / "mirror"
    there = {path.relative_to(mirror).as_posix() for path in mirror.rglob("*.png")}
    assert 5 < len(there) < 30
    assert not place.snapshot.exists()
    assert not place.manifest.exists()

    time.sleep(0.2)
    wire.rule = lambda method, path: None
    first = wire.gets()
    wire.requests.clear()
    figures = ingest(place, settings_of(prefix))
    assert (figures["good"], figures["defect"]) == (22, 4)
    second = wire.gets()
    assert len(first | second) == 30
    assert not [path for path in second if path.split("ä/", 1)[1] in there]
    assert sum(second.values()) == 30 - len(there)


def test_an_object_replaced_while_it_is_read_comes_whole_and_new(
    s3: "ObjectStore", camera: Path, prefix: str, place: LinePaths, wire: Wire
) -> None:
    replaced = []

    def replace(method: str, path: str) -> None:
        if method == "GET" and path.endswith("002.png") and "train" in path and not replaced:
            replaced.append(path)
            put(s3, prefix, "train/good/002.png", other_image(camera))

    wire.rule = replace
    ingest(place, settings_of(prefix))
    assert replaced
    assert (place.snapshot / "train/good/002.png").read_bytes() == other_image(camera)
    wire.requests.clear()
    assert changes(ingest(place, settings_of(prefix))) == (0, 0, 0)
    assert wire.gets() == {}


def test_an_object_replaced_time_and_again_is_named(
    s3: "ObjectStore", prefix: str, place: LinePaths, wire: Wire
) -> None:
    def replace(method: str, path: str) -> None:
        if method == "GET" and path.endswith("002.png") and "train" in path:
            put(s3, prefix, "train/good/002.png", os.urandom(100))

    wire.rule = replace
    with pytest.raises(BadInputError, match=r"train/good/002\.png: was replaced 3 times while it was read"):
        ingest(place, settings_of(prefix))
    assert not place.snapshot.exists()


def test_an_object_deleted_after_the_listing_is_left_out(
    s3: "ObjectStore", prefix: str, place: LinePaths, wire: Wire
) -> None:
    def delete(method: str, path: str) -> None:
        if method == "GET" and path.endswith("train/good/002.png"):
            bucket, key = parts(prefix)
            s3.client().delete_object(Bucket=bucket, Key=f"{key}/train/good/002.png")

    wire.rule = delete
    assert ingest(place, settings_of(prefix))["good"] == 21


def test_cut_answers_and_busy_servers_are_asked_again(prefix: str, place: LinePaths, wire: Wire) -> None:
    faults = {
        "002.png": [Broken()] * 2,
        "003.png": [Broken(503, "SlowDown")] * 3,
        "004.png": [Broken(500, "InternalError")],
    }

    def fail(method: str, path: str) -> Broken | None:
        left = faults.get(path.rsplit("/", 1)[1], []) if "train" in path else []
        return left.pop() if left else None

    wire.rule = fail
    assert ingest(place, settings_of(prefix))["good"] == 22
    assert not any(faults.values())
    assert wire.gets().total() == 36


def test_a_server_that_dies_and_comes_back_costs_nothing_but_time(
    s3: "ObjectStore", prefix: str, place: LinePaths, wire: Wire
) -> None:
    died = []

    def die(method: str, path: str) -> None:
        if len(wire.gets()) == 12 and not died:
            died.append(True)
            s3.kill()
            s3.start()

    wire.rule = die
    assert ingest(place, settings_of(prefix, patience_seconds=60))["good"] == 22
    assert died


def test_a_dead_server_is_given_up(
    s3: "ObjectStore",
    prefix: str,
    place: LinePaths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://user:pa55word@127.0.0.1:9")
    with pytest.raises(OutageError, match=r"S3 at http://127\.0\.0\.1:9: no answer for") as told:
        ingest(place, settings_of(prefix, patience_seconds=1))
    assert "run again to go on" in str(told.value)
    said = capsys.readouterr().err + str(told.value)
    assert "waiting up to 1 s" in said
    assert "pa55word" not in said


@pytest.mark.parametrize(
    ("environment", "kind", "message"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "not-the-secret"},
            ServiceError,
            r"refused access to bucket .*SignatureDoesNotMatch",
        ),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, ServiceError, r"refused access .*InvalidAccessKeyId.*AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, BadInputError, "no credentials found"),
        ({"AWS_PROFILE": "night-shift"}, BadInputError, "night-shift"),
        ({"AWS_ENDPOINT_URL_S3": "no address"}, BadInputError, "AWS_"),
    ],
)
def test_wrong_credentials_say_what_to_set(  # noqa: PLR0917
    prefix: str, place: LinePaths, monkeypatch: pytest.MonkeyPatch, s3: "ObjectStore",
    environment: dict[str, str | None], kind: type[Exception], message: str,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.delenv(name, raising=False)
            if value is not None:
                patch.setenv(name, value)
        with pytest.raises(kind, match=message) as told:
            ingest(place, settings_of(prefix))
    for secret in (s3.secret_key, "not-the-secret"):
        assert secret not in str(told.value)
    assert not place.snapshot.exists()


def test_a_clock_that_is_off_is_named(prefix: str, place: LinePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    now = botocore.auth.get_current_datetime
    with monkeypatch.context() as patch, pytest.raises(ServiceError, match=r"clock"):
        patch.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: now(*a, **k) - timedelta(hours=3))
        ingest(place, settings_of(prefix))


def test_a_bucket_that_is_not_there_and_a_prefix_without_images(s3_bucket: str, place: LinePaths) -> None:
    with pytest.raises(BadInputError, match=r"there is no bucket no-such-bucket"):
        ingest(place, settings_of("s3://no-such-bucket/line"))
    with pytest.raises(BadInputError, match=r"no images found"):
        ingest(place, settings_of(f"s3://{s3_bucket}/nothing/here"))


def test_an_object_too_large_is_refused_by_name_and_not_fetched(
    s3: "ObjectStore", prefix: str, place: LinePaths, wire: Wire
) -> None:
    put(s3, prefix, "train/good/huge.png", bytes(300_000))
    with pytest.raises(BadInputError, match=r"train/good/huge\.png: is 0 MB large; at most 0\.2 MB \(ingest\.max_meg"):
        ingest(place, settings_of(prefix, max_megabytes=0.2))
    figures = ingest(place, settings_of(prefix, max_megabytes=0.2, max_rejects=1))
    assert (figures["good"], figures["rejects"]) == (22, 1)
    assert not [path for path in wire.gets() if "huge" in path]


def test_an_image_of_5_gb_is_refused_unread(prefix: str, camera: Path, place: LinePaths, wire: Wire) -> None:
    wire.rewrite = lambda body: re.sub(rb"(good/002\.png</Key>.*?<Size>)\d+", rb"\g<1>5368709120", body)
    told = r"train/good/002\.png: is 5,369 MB large; at most 256 MB \(ingest\.max_megabytes\)"
    with pytest.raises(BadInputError, match=told):
        ingest(place, settings_of(prefix))
    assert not [path for path in wire.gets() if path.endswith("train/good/002.png")]
    os.truncate(camera / "train/good/002.png", 5 << 30)  # takes no room
    with pytest.raises(BadInputError, match=told):
        ingest(place, settings_of(camera))


def test_keys_that_cannot_be_names_of_files_are_refused(s3: "ObjectStore", s3_bucket: str, place: LinePaths) -> None:
    s3.client().put_object(Bucket=s3_bucket, Key="a/line\nbreak.png", Body=b"x")
    with pytest.raises(BadInputError, match=r"'a/line\\nbreak\.png' cannot be names of files"):
        ingest(place, settings_of(f"s3://{s3_bucket}/a"))
    for name in ("\u00e9.png", "e\u0301.png"):
        s3.client().put_object(Bucket=s3_bucket, Key=f"b/{name}", Body=b"x")
    with pytest.raises(BadInputError, match=r"look the same \(Unicode normal forms\)"):
        ingest(place, settings_of(f"s3://{s3_bucket}/b"))


def test_a_key_that_leads_elsewhere_is_refused_before_anything_is_fetched(
    prefix: str, place: LinePaths, wire: Wire
) -> None:
    # The server here takes no such key; Amazon's does.
    wire.rewrite = lambda body: body.replace(b"train/good/002.png", b"train/../../../002.png")
    with pytest.raises(BadInputError, match=r"ä/train/\.\./\.\./\.\./002\.png' cannot be names of files"):
        ingest(place, settings_of(prefix))
    assert wire.gets() == {}
    assert not [path for path in place.manifest.parents[2].rglob("*") if path.suffix == ".png"]


def test_the_limit_fetches_no_more_than_it_takes(prefix: str, place: LinePaths, wire: Wire) -> None:
    figures = ingest(place, settings_of(prefix, limit=3))
    assert (figures["good"], figures["defect"]) == (3, 3)
    assert wire.gets().total() == 9


def test_a_file_of_the_mirror_that_was_spoilt_is_fetched_again(
    camera: Path, prefix: str, place: LinePaths, wire: Wire
) -> None:
    ingest(place, settings_of(prefix))
    spoilt = place.memory / "mirror" / "train/good/002.png"
    whole = spoilt.read_bytes()
    spoilt.write_bytes(bytes(len(whole)))  # and the snapshot's file with it, which is the same
    wire.requests.clear()
    ingest(place, settings_of(prefix))
    assert wire.gets().total() == 1
    assert (place.snapshot / "train/good/002.png").read_bytes() == whole


def test_a_lost_memory_costs_no_transfer(prefix: str, place: LinePaths, wire: Wire) -> None:
    ingest(place, settings_of(prefix))
    before = place.manifest.read_bytes()
    (place.memory / "index.sqlite").write_bytes(b"not a database" * 100)
    (place.memory / "mirror" / "stray.png").write_bytes(b"x")
    wire.requests.clear()
    ingest(place, settings_of(prefix))
    assert wire.gets() == {}
    assert place.manifest.read_bytes() == before
    assert not (place.memory / "mirror" / "stray.png").exists()


class TestMetadata:
    @pytest.fixture
    def bucket(self, s3: "ObjectStore", s3_bucket: str, camera: Path) -> str:
        """Flat folders of lots: labels in tags, the time in a JSON file beside each image."""
        client = s3.client()
        for lot in ("L7", "L8"):
            for number, file in enumerate(sorted((camera / "train/good").iterdir())[:4]):
                key = f"cam/{lot}/B/{number}.png"
                client.put_object(
                    Bucket=s3_bucket,
                    Key=key,
                    Body=file.read_bytes(),
                    Tagging=f"verdict={'NOK' if number == 3 else 'OK'}",
                )
                sidecar = {"camera": {"serial": 41, "gain": [1, 2]}, "taken": f"2026-05-0{number + 1}T06:00:00+02:00"}
                client.put_object(Bucket=s3_bucket, Key=f"cam/{lot}/B/{number}.json", Body=json.dumps(sidecar).encode())
        return f"s3://{s3_bucket}/cam"

    METADATA: ClassVar[dict[str, Any]] = {
        "pattern": r"^(?P<lot>L\d+)/(?P<shift>[ABC])/",
        "tags": {"label": "verdict"},
        "sidecar": {"camera": "camera.serial", "acquired": "taken"},
        "labels": {"OK": "good", "NOK": "defect"},
    }

    def test_pattern_tags_and_sidecars_fill_the_manifest(self, bucket: str, place: LinePaths) -> None:
        figures = ingest(place, settings_of(bucket, metadata=self.METADATA))
        assert (figures["good"], figures["defect"]) == (6, 2)
        row = read_manifest(place.manifest).set_index("path").loc["L8/B/3.png"]
        assert (row["label"], row["defect"], row["lot"], row["shift"]) == ("defect", "defect", "L8", "B")
        assert (row["camera"], row["acquired"], row["origin"]) == ("41", "2026-05-04T06:00:00+02:00", "L8/B")

    def test_a_verdict_that_changes_is_seen_though_the_image_does_not(
        self, s3: "ObjectStore", bucket: str, place: LinePaths, wire: Wire
    ) -> None:
        ingest(place, settings_of(bucket, metadata=self.METADATA))
        name, key = parts(bucket)
        tags = {"TagSet": [{"Key": "verdict", "Value": "NOK"}]}
        s3.client().put_object_tagging(Bucket=name, Key=f"{key}/L7/B/0.png", Tagging=tags)
        sidecar = json.dumps({"camera": {"serial": 42}}).encode()
        s3.client().put_object(Bucket=name, Key=f"{key}/L7/B/1.json", Body=sidecar)
        wire.requests.clear()
        assert ingest(place, settings_of(bucket, metadata=self.METADATA))["defect"] == 3
        rows = read_manifest(place.manifest).set_index("path")
        assert (rows.loc["L7/B/1.png", "camera"], rows.loc["L7/B/1.png", "acquired"]) == ("42", "")
        assert not [path for path in wire.gets() if path.endswith("1.png")]

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            ({"tags": {"label": "nothing"}}, r"L7/B/0\.png: has no label.*\n.*\n.*\n  and 5 more"),
            (
                {"tags": {"label": "verdict"}},
                r"L7/B/0\.png: label 'OK'; expected good, defect \(ingest\.metadata\.labels",
            ),
            ({"pattern": r"^(?P<lot>L7)/", "tags": {"defect": "x"}}, r"L8/B/0\.png.* are not named as"),
            ({"sidecar": {"lot": "camera", "defect": "x"}}, r"L7/B/0\.json: camera holds an object, expected text"),
            ({"sidecar": {"acquired": "camera.serial", "defect": "x"}}, r"acquired '41'; expected ISO 8601"),
        ],
    )
    def test_metadata_that_say_nothing_or_nonsense_are_named(
        self, bucket: str, place: LinePaths, metadata: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(BadInputError, match=message):
            ingest(place, settings_of(bucket, metadata=metadata))

    def test_a_sidecar_that_is_no_json_is_named(self, s3: "ObjectStore", bucket: str, place: LinePaths) -> None:
        put(s3, bucket, "L7/B/2.json", b"{")
        with pytest.raises(BadInputError, match=r"L7/B/2\.json is no JSON"):
            ingest(place, settings_of(bucket, metadata=self.METADATA))


DISK_FULL = """
import resource, sys
from pathlib import Path
from morphad.base.errors import MorphadError
from morphad.settings import IngestSettings, LineSettings
from morphad.steps.ingest import ingest
from morphad.steps.paths import LinePaths
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)  # of any file; a full disk fails the same way
place = LinePaths.checkout(Path(sys.argv[1]), "caps")
try:
    ingest(LineSettings(ingest=IngestSettings(source="s3", path=sys.argv[2])), place)
except MorphadError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    ("room", "told"),
    [
        (0, "lock: cannot write (File too large); check free space"),
        (100, "check free space and permissions"),
        (200_000, "cannot write (File too large); check free space"),
    ],
)
def test_a_full_disk_is_told_and_nothing_is_left_half_written(  # noqa: PLR0917
    s3: "ObjectStore", prefix: str, place: LinePaths, wire: Wire, room: int, told: str
) -> None:
    put(s3, prefix, "train/good/large.png", os.urandom(300_000))
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(place.manifest.parents[2]), prefix, str(room)],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert told in done.stdout
    assert "Traceback" not in done.stderr
    assert not [
        path for path in place.manifest.parents[2].rglob("*") if "large" in path.name or path.parent.name == "incoming"
    ]
    assert not place.snapshot.exists()

    mirror = place.memory / "mirror"
    there = {path.relative_to(mirror).as_posix() for path in mirror.rglob("*.png")}
    wire.requests.clear()
    figures = ingest(place, settings_of(prefix, max_rejects=1))  # there is room again; large.png is no image
    assert (figures["good"], figures["defect"], figures["rejects"]) == (22, 4, 1)
    assert not [path for path in wire.gets() if path.split("ä/", 1)[1] in there]


def test_two_ingests_of_a_line_at_once(place: LinePaths, camera: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from morphad.data.index import open_memory\n"
        "with open_memory(Path(sys.argv[1]), 'caps'):\n    print('open', flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(place.memory)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(BadInputError, match=rf"is being ingested by process {child.pid} on .*wait for its end"):
            ingest(place, settings_of(camera))
    finally:
        child.kill()
        child.wait()
    assert ingest(place, settings_of(camera))["good"] == 22


def test_upload_sends_what_is_not_there(camera: Path, s3_bucket: str) -> None:
    url = f"s3://{s3_bucket}/reports/caps"
    assert upload_folder(camera, url, "test") == (30, 30)
    assert upload_folder(camera, url, "test") == (0, 30)
    (camera / "train/good/002.png").write_bytes(b"other")
    assert upload_folder(camera, f"{url}/", "test") == (1, 30)
    assert read_object(f"{url}/train/good/002.png") == b"other"
    with pytest.raises(BadInputError, match=r"none\.png: not found at http"):
        read_object(f"{url}/none.png")
    with pytest.raises(BadInputError, match="is over"):
        read_object(f"{url}/train/good/002.png", max_bytes=3)
    with pytest.raises(BadInputError, match="no such folder"):
        upload_folder(camera / "none", url, "test")
    with pytest.raises(BadInputError, match=r"expected s3://bucket/prefix"):
        upload_folder(camera, "reports/caps", "test")


def test_versions_of_a_bucket_that_keeps_them_are_remembered(
    s3: "ObjectStore", camera: Path, prefix: str, place: LinePaths
) -> None:
    bucket, _ = parts(prefix)
    s3.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    try:
        put(s3, prefix, "train/good/002.png", other_image(camera))
        ingest(place, settings_of(prefix))
        with open_memory(place.memory, LINE) as memory:
            assert memory.objects()["train/good/002.png"].version
        assert [listed.key for listed in Bucket(bucket).list("")]
    finally:
        versions = s3.client().list_object_versions(Bucket=bucket)
        for version in [*versions.get("Versions", ()), *versions.get("DeleteMarkers", ())]:
            s3.client().delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])


@pytest.mark.parametrize(
    ("name", "value", "code", "told"),
    [
        ("AWS_SECRET_ACCESS_KEY", "not-the-secret", 3, "refused access to bucket"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", 3, "no answer for"),
        ("AWS_REGION", None, 0, ""),
    ],
)
def test_the_command_ends_with_a_code_and_one_line(  # noqa: PLR0917
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], s3: "ObjectStore",
    name: str, value: str | None, code: int, told: str,
) -> None:  # fmt: skip
    from morphad.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(
        f"lines: {{caps: {{ingest: {{source: s3, path: '{prefix}', patience_seconds: 1}}}}}}"
    )
    with monkeypatch.context() as patch:
        patch.delenv(name)
        patch.delenv("AWS_DEFAULT_REGION", raising=False)
        if value is not None:
            patch.setenv(name, value)
        assert main(["ingest", "caps"]) == code
    said = "".join(capfd.readouterr())
    assert told in said
    assert "Traceback" not in said
    assert s3.secret_key not in said
    assert s3.access_key not in said
    assert "not-the-secret" not in said
