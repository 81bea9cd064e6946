"""What git must not take, and what it must: by fixed rules, not by those that DVC writes when a step went well."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture
def ignored(tmp_path: Path) -> Any:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(REPO / ".gitignore", tmp_path)

    def is_ignored(path: str) -> bool:
        return subprocess.run(["git", "check-ignore", "--quiet", path], cwd=tmp_path, check=False).returncode == 0

    return is_ignored


def outputs() -> list[tuple[str, bool]]:
    """Path and whether DVC keeps it, of every output of every stage for a line `b`."""
    stages = YAML(typ="safe").load(REPO / "dvc.yaml")["stages"]
    found = []
    for stage in stages.values():
        for section in ("outs", "metrics", "plots"):
            for entry in stage["do"].get(section, []):
                path, options = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
                found.append((path.replace("${key}", "b"), options.get("cache", True)))
    return found


def test_what_dvc_keeps_is_not_for_git_and_the_rest_is(ignored: Any) -> None:
    found = outputs()
    assert ("data/b/images", True) in found
    assert ("data/b/holdout.json", False) in found
    assert ignored("data/b/settings/train.json")  # they follow from params.yaml, which is in git
    found.remove(("data/b/settings", False))
    for path, kept in found:
        inside = f"{path}/1.png" if Path(path).suffix == "" else path
        assert ignored(inside) is kept, path


def test_what_else_a_project_holds(ignored: Any) -> None:
    for path in (
        "data/b/version.json", "data/b/.gitignore", "data/raw/x.dvc", "params.yaml", "dvc.lock", "reports/notes.md"
    ):  # fmt: skip
        assert not ignored(path), path
    for path in (
        "data/b/memory/x", "data/b/.images.k2/1.png", "models/b/.fitted.k2/x", "models/b/checkpoint.safetensors",
        "reports/index.html", "reports/b/region.png", "mlflow.db", "mlflow.db-journal", ".mlflow.db.k2",
        "mlartifacts/morphad/x",
    ):  # fmt: skip
        assert ignored(path), path
