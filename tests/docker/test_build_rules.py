"""What can be known of the images without building them."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from docker.utils import exclude_paths

ROOT = Path(__file__).parents[2]
TARGETS = ("cpu", "cuda", "serve")


def stages() -> dict[str, tuple[str, list[str]]]:
    """Name of a stage -> what it starts from, its instructions."""
    text = (ROOT / "docker/Dockerfile").read_text().replace("\\\n", " ")
    found: dict[str, tuple[str, list[str]]] = {}
    for block in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]:
        head, *rest = block.splitlines()
        parent, _, name = head.split()
        found[name] = (parent, [line for line in rest if line and not line.startswith("#")])
    return found


def whole(target: str) -> list[str]:
    """The instructions of a stage and of those it stands on, in order."""
    all_stages = stages()
    parent, own = all_stages[target]
    return [*(whole(parent) if parent in all_stages else []), *own]


def test_hadolint_finds_nothing() -> None:
    command = [Path(sys.executable).with_name("hadolint"), *sorted(ROOT.glob("docker/*Dockerfile"))]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_all_stages_stand_on_the_base_image() -> None:
    all_stages = stages()
    assert {parent for parent, _ in all_stages.values()} - set(all_stages) == {"${BASE_IMAGE}"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_final_stage_installs_nothing_and_has_no_root(target: str) -> None:
    lines = whole(target)
    commands = [line for line in lines if line.startswith("RUN")]
    assert not [command for command in commands if re.search(r"\b(pip|uv|apt-get|curl)\b", command)]
    *_, user = (line for line in lines if line.startswith("USER"))
    assert re.fullmatch(r"USER [1-9]\d*:0", user)
    assert not [line for line in lines if line.startswith("ENTRYPOINT")]  # kfp gives the whole command


@pytest.mark.parametrize("target", TARGETS)
def test_labels_tell_version_and_revision(target: str) -> None:
    labels = " ".join(line for line in whole(target) if line.startswith("LABEL"))
    assert 'org.opencontainers.image.version="${VERSION}"' in labels
    assert 'org.opencontainers.image.revision="${REVISION}"' in labels


def test_the_cpu_image_takes_nothing_from_the_cuda_environment() -> None:
    assert not [line for line in whole("cpu") if "cuda" in line.lower().replace("without cuda", "")]


def test_only_what_is_named_goes_into_a_build(tmp_path: Path) -> None:
    wanted = ["constraints.txt", "docker/install", "docker/resolve", "docker/wheels/torch.whl", "pyproject.toml"]
    wanted += ["LICENSE", "README.md", "src/morphad/cli/__init__.py", "src/morphad/report/page.html"]
    wanted += ["components/train.py", "pipelines/training.py", "pipelines/cluster.yaml"]
    kept_out = [".git/config", ".env", "docker/s3.env", "data/pcb/images/1.png", "mlflow.db", ".dvc/config.local"]
    kept_out += ["reports/pcb/index.html", "kubeconfig", "secrets.yaml", "id_rsa", ".venv/bin/python", "params.yaml"]
    kept_out += [
        "pipelines/compiled/training.yaml",
        "src/morphad/__pycache__/cli.pyc",
        "src/morphad.egg-info/PKG-INFO",
        "tests/conftest.py",
    ]
    for name in wanted + kept_out:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    sent = {name for name in exclude_paths(str(tmp_path), rules) if (tmp_path / name).is_file()}
    assert sent - {".dockerignore"} == set(wanted)


class TestBuildScript:
    """`docker/build` with an engine that only writes down what it was asked."""

    @staticmethod
    def engine(folder: Path, name: str) -> Path:
        program = folder / name
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {folder}/asked\n'
            f'case $1 in --version) echo "{name} version 1";; image) echo 2097000000;; esac\n'
        )
        program.chmod(0o755)
        return program

    @staticmethod
    def build(**settings: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CONTAINER_ENGINE": "", "TARGETS": "", "IMAGE": "", "IMAGE_BUILD_ARGS": ""}
        return subprocess.run(
            [ROOT / "docker/build"], env={**environment, **settings}, capture_output=True, text=True, check=False
        )

    @pytest.mark.parametrize(("name", "options"), [("podman", " --format docker"), ("docker", "")])
    def test_three_images_with_version_and_revision(self, name: str, options: str, tmp_path: Path) -> None:
        done = self.build(CONTAINER_ENGINE=str(self.engine(tmp_path, name)), IMAGE_BUILD_ARGS="--build-arg EXTRAS=demo")
        assert done.returncode == 0, done.stderr
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        asked = [line for line in (tmp_path / "asked").read_text().splitlines() if line.startswith("build ")]
        names = [f"localhost/morphad-python:{version}{suffix}" for suffix in ("", "-cuda", "-serve")]
        assert [line.split("--target ")[1] for line in asked] == [
            f"{target} --tag {tag} ." for target, tag in zip(TARGETS, names, strict=True)
        ]
        for line in asked:
            assert f"--build-arg VERSION={version} --build-arg REVISION=" in line
            assert f"{options} --build-arg EXTRAS=demo --target" in line
        assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [[tag, "2097"] for tag in names]

    def test_components_run_in_the_images_that_are_built(self, tmp_path: Path) -> None:
        done = self.build(CONTAINER_ENGINE=str(self.engine(tmp_path, "docker")), TARGETS="cpu cuda")
        compiled = (ROOT / "pipelines/compiled/training.yaml").read_text()
        assert set(re.findall(r"image: (\S+)", compiled)) == {line.split()[0] for line in done.stdout.splitlines()[1:]}

    def test_no_engine_is_told(self, tmp_path: Path) -> None:
        done = self.build(CONTAINER_ENGINE=str(tmp_path / "nothing"))
        assert done.returncode == 3
        assert "CONTAINER_ENGINE" in done.stderr

    def test_a_failed_build_ends_it(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path, "docker")
        engine.write_text(engine.read_text() + "[ $1 != build ]\n")
        done = self.build(CONTAINER_ENGINE=str(engine))
        assert done.returncode == 1
        assert (tmp_path / "asked").read_text().count("build ") == 1
