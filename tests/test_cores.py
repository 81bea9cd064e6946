"""How many cores a process may use, with the files of a cgroup and with a real one where we may make it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cores import limited
from morphad.base.cores import available_cores


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def version_1(folder: str, quota: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        pytest.param("", {}, 16, id="no cgroup"),
        pytest.param("0::/\n", {"cpu.max": "max 100000\n"}, 16, id="no limit"),
        pytest.param("0::/\n", {"cpu.max": "200000 100000\n"}, 2, id="container of version 2"),
        pytest.param("0::/\n", {"cpu.max": "50000 100000\n"}, 1, id="half a core"),
        pytest.param("0::/\n", {"cpu.max": "250000 100000\n"}, 3, id="two and a half"),
        pytest.param("0::/\n", {"cpu.max": "6400000 100000\n"}, 16, id="more than there are"),
        pytest.param(
            "0::/kubepods/pod7/box\n",
            {"kubepods/pod7/box/cpu.max": "max 100000", "kubepods/pod7/cpu.max": "400000 100000"},
            4,
            id="the pod's limit around it",
        ),
        pytest.param(
            "0::/../../pod7\n", {"cpu.max": "300000 100000", "../outside": ""}, 3, id="a path out of the namespace"
        ),
        pytest.param(
            "5:memory:/a\n4:cpu,cpuacct:/kubepods/box\n",
            version_1("cpu/kubepods/box", 800000),
            8,
            id="version 1",
        ),
        pytest.param(
            "4:cpuacct,cpu:/docker/f00\n",
            version_1("cpu", 150000),
            2,
            id="container of version 1",
        ),
        pytest.param("4:cpu:/\n", version_1("cpu", -1), 16, id="version 1, no limit"),
        pytest.param("0::/\n", {"cpu.max": "nonsense\n"}, 16, id="what nobody understands"),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, cgroup: str, files: dict[str, str], expected: int) -> None:
    assert available_cores(machine(tmp_path, cgroup, files)) == expected


def test_fewer_cores_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert available_cores(machine(tmp_path, "0::/\n", {"cpu.max": "200000 100000"})) == 1


@pytest.fixture
def one_core() -> Iterator[Path]:
    """A cgroup of this machine with a limit of one core."""
    with limited(1) as folder:
        if folder is None:
            pytest.skip("cannot make a cgroup here")
        yield folder


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
@pytest.mark.parametrize(("given", "expected"), [({}, "1 1"), ({"OMP_NUM_THREADS": "2"}, "1 2")])
def test_networks_take_a_thread_a_core_of_the_cgroup(one_core: Path, given: dict[str, str], expected: str) -> None:
    script = (
        "import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()));"
        "from morphad.model.detector import Detector; import torch;"
        "from morphad.base.cores import available_cores; print(available_cores(), torch.get_num_threads())"
    )
    clean = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(one_core)], env=clean | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_the_machine_it_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
