"""A Kubeflow to talk to, and a project that is compiled for it."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def fake() -> Iterator["FakeKubeflow"]:  # noqa: F821 - imported below, for machines without kfp
    """A server that answers as Kubeflow does, on this machine."""
    from fake_kubeflow import serving

    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training pipeline as it is compiled from this repository's sources."""
    return _compiled(tmp_path_factory, "training")


@pytest.fixture(scope="session")
def compiled_batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The batch prediction pipeline as it is compiled from this repository's sources."""
    return _compiled(tmp_path_factory, "batch-predict")


def _compiled(tmp_path_factory: pytest.TempPathFactory, pipeline: str) -> Path:

    path = tmp_path_factory.mktemp("compiled") / f"{pipeline}.yaml"
    path.write_text(compile_once(REPO / "pipelines" / "cluster.yaml", pipeline))
    return path


@functools.cache
def compile_once(cluster: Path, pipeline: str) -> str:
    """What the sources are compiled to."""
    from morphad.kubeflow.compiling import render

    return render(cluster, pipeline)


@pytest.fixture
def command(
    fake: "FakeKubeflow",  # noqa: F821
    compiled: Path,
    compiled_batch: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """Run `morphad ...` in the repository against the server; give exit code and all that was printed."""
    from morphad.cli import main
    from morphad.kubeflow import uploads as versions

    # The same sources are compiled once, not for each command.
    monkeypatch.setattr(versions, "render", compile_once)
    for name in ("KFP_TOKEN", "KFP_NAMESPACE", "SSL_CERT_FILE", "MORPHAD_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KFP_HOST", fake.address)
    monkeypatch.chdir(REPO)

    def run(*words: str | os.PathLike[str]) -> tuple[int, str]:
        takes_compiled = "--compiled" not in words and not {"status", "logs", "end", "again"} & set(words[:2])
        path = compiled_batch if {"submit-batch", "batch-predict"} & set(words) else compiled
        code = main([*map(str, words), *(["--compiled", str(path)] if takes_compiled else [])])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run
