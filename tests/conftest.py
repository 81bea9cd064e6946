"""Fixtures that more than one test module needs."""

import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tiny import TRAIN

if TYPE_CHECKING:
    from stack.object_store import ObjectStore
    from stack.stack import Stack

_NUMBERS = itertools.count()

# How long an example takes says what else the machine does.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fast tests first: what is broken shows early. Side by side, slow files first: else one of them ends alone."""
    slow = {item for item in items if item.get_closest_marker("slow")}
    if not hasattr(config, "workerinput"):  # pytest-xdist's
        items.sort(key=lambda item: item in slow)
        return
    tests, slow_tests = Counter(item.path for item in items), Counter(item.path for item in slow)
    items.sort(key=lambda item: -slow_tests[item.path] / tests[item.path])


@pytest.fixture(scope="session")
def real_sets() -> Path:
    """Folder of real image sets in MVTec AD layout, for tests and benchmarks only."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MORPHAD_REAL_SETS", default))
    if not (folder / "mvtec" / "bottle").is_dir():
        pytest.skip(f"no real image sets at {folder}; set MORPHAD_REAL_SETS to a folder that holds mvtec/bottle")
    return folder


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a saved detector with a threshold: the real thing, as small as it gets. Not to be changed."""
    import numpy as np

    from morphad.model.detector import Detector
    from morphad.settings import CalibrateSettings
    from morphad.settings.presets import train_settings

    settings = train_settings(TRAIN)
    random = np.random.default_rng(0)
    good = random.normal(120, 10, (40, 32, 32)).clip(0, 255).astype(np.uint8)
    detector = Detector(settings, seed=0).fit(good[:20])
    detector.calibrate(good[20:], CalibrateSettings(false_reject_rate=0.2))
    folder = tmp_path_factory.mktemp("tiny") / "detector"
    detector.save(folder)
    return folder


@pytest.fixture(scope="session")
def make_set() -> Callable[..., Path]:
    """Draw a set in MVTec AD layout: grey weaves, some of the test images with a bright spot and its mask."""
    import numpy as np
    from PIL import Image

    def make(
        root: Path, *, good: int = 80, test_good: int = 6, defects: int = 8, seed: int = 0, side: int = 48
    ) -> Path:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:side, :side]

        def weave() -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
            phases = rng.uniform(0, 6, 2)
            grey = 120 + 25 * np.sin(y / 3 + phases[0]) * np.cos(x / 4 + phases[1]) + rng.normal(0, 6, (side, side))
            return grey.clip(0, 255).astype(np.uint8)

        for part in ("train/good", "test/good", "test/spot", "ground_truth/spot"):
            (root / part).mkdir(parents=True, exist_ok=True)
        for part, count in (("train/good", good), ("test/good", test_good)):
            for i in range(count):
                Image.fromarray(weave()).save(root / part / f"{i:03}.png")
        for i in range(defects):
            grey, centre = weave(), rng.integers(side // 5, side - side // 5, 2)
            spot = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= 25
            grey[spot] = 240
            Image.fromarray(grey).save(root / "test/spot" / f"{i:03}.png")
            Image.fromarray((255 * spot).astype(np.uint8)).save(root / "ground_truth/spot" / f"{i:03}_mask.png")
        return root

    return make


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator["ObjectStore"]:
    """A real S3 server, one for all tests. Who stops or kills it starts it again: same port, same keys, same data."""
    from stack.object_store import ObjectStore

    store = ObjectStore(tmp_path_factory.mktemp("s3"))
    store.start()
    yield store
    store.kill()  # in order takes 15 s, and its data are thrown away


@pytest.fixture
def s3_bucket(s3: "ObjectStore", monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a new bucket on a running server; the environment leads boto3 there, and nowhere else."""
    s3.start()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{next(_NUMBERS)}"
    s3.create_bucket(bucket)
    yield bucket
    s3.start()
    s3.client().delete_bucket(Bucket=bucket)


@pytest.fixture(scope="session")
def stack() -> Iterator["Stack"]:
    """PostgreSQL, S3 and MLflow as `make stack` starts them, on free ports; one for all tests."""
    from stack import database
    from stack.__main__ import main
    from stack.stack import Stack

    if not database.programs("postgres"):
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # Not in pytest's own folder, which nobody else may enter: root's PostgreSQL runs as another user.
    place = Path(tempfile.mkdtemp(prefix="morphad-stack-"))
    place.chmod(0o755)
    folder = place / "stack"
    try:
        ports = ["--postgres-port=0", "--s3-port=0", "--mlflow-port=0"]
        assert main(["up", "--folder", str(folder), *ports]) == 0
        yield Stack.open(folder)
    finally:
        for server in Stack.of_running(folder).servers:
            server.kill()
        shutil.rmtree(place)
