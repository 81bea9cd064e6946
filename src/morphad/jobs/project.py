"""`morphad init` and `morphad add-line`: a project in a folder, and a line in its settings."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from morphad.base.errors import BadInputError
from morphad.base.files import write_text
from morphad.base.wording import counted, exact_percent
from morphad.data.source.finding import find_images
from morphad.decision.attainable import calibration_images, good_for, tightest_rate
from morphad.settings import LINE_NAME, IngestSettings, LineSettings
from morphad.settings.reading import load_settings, resolve

PARAMS = "params.yaml"
_TEMPLATES = {"params.yaml": PARAMS, "dvc.yaml": "dvc.yaml", "gitignore": ".gitignore"}
_DVCIGNORE = "# What ingest remembers between runs: it is this machine's alone.\n/data/*/memory\n"
_NEXT_RATES = (0.02, 0.01, 0.001)  # of which the next within sight is named


@dataclass(frozen=True)
class Made:
    """A new project.

    Attributes:
        files: What was written or started.
        line: Its first line; None without pictures.
        says: What is to be said of the line.
    """

    files: list[str]
    line: str | None
    says: list[str]


def make_project(root: Path, pictures: str | None, line: str | None) -> Made:
    """Make a project in a folder: params.yaml, dvc.yaml, .gitignore, git and DVC.

    Args:
        root: The folder; what it holds already stays.
        pictures: Of a first line, as for `add_line`; None for none.
        line: The line's name; None: that of the pictures' folder.

    Raises:
        BadInputError: The folder holds a project already, git or DVC are missing, or the line is wrong.
    """
    if line is not None and pictures is None:
        raise BadInputError("--line names the line of the pictures: give their folder, too")
    for name in _TEMPLATES.values():
        if name != ".gitignore" and (root / name).exists():
            raise BadInputError(
                f"{root.resolve() / name}: there is a project here; morphad add-line NAME PICTURES adds a line"
            )
    for command in ("git", "dvc"):
        if shutil.which(command) is None:
            raise BadInputError(f'{command} is not installed; install it, or: pip install "morphad[pipeline]"')
    first = line or (_named_after(pictures) if pictures else None)
    block = _block(root, first, pictures) if first and pictures else None  # before anything is written
    done = []
    for template, target in _TEMPLATES.items():
        text = (files("morphad.jobs") / "template" / template).read_text(encoding="utf-8")
        there = root / target
        if target == ".gitignore" and there.exists():
            text = there.read_text(encoding="utf-8").rstrip("\n") + "\n" + text
        write_text(there, text)
        done.append(target)
    if not _inside_git(root):
        _run(root, "git", "init", "--quiet")
        done.append("a git repository")
    if not (root / ".dvc").is_dir():
        _run(root, "dvc", "init", "--quiet", *([] if (root / ".git").exists() else ["--subdir"]))
        _run(root, "dvc", "config", "core.analytics", "false")
        done.append("a DVC project")
    write_text(
        root / ".dvcignore", "# What ingest remembers between runs: it is this machine's alone.\n/data/*/memory\n"
    )
    says = _add(root, first, block) if first and block else []
    return Made(done, first, says)


def add_line(root: Path, name: str, pictures: str) -> list[str]:
    """Add a line to the project's params.yaml, whose comments stay.

    Args:
        root: The project's folder.
        name: The line's.
        pictures: A folder, s3://bucket/prefix, or a listing (.csv, .parquet).

    Returns:
        What is to be said of the line: how many pictures, and which rates they allow.

    Raises:
        BadInputError: There is no project, the name is wrong or there already, or the pictures cannot be found.
    """
    if not (root / PARAMS).is_file():
        raise BadInputError(
            f"{root.resolve() / PARAMS}: not found; run morphad init first, or go to the project's folder"
        )
    return _add(root, name, _block(root, name, pictures))


def _block(root: Path, name: str, pictures: str) -> dict[str, Any]:
    """The line's block of the settings."""
    if not LINE_NAME.fullmatch(name):
        raise BadInputError(f"line {name!r}: expected a-z, 0-9 and inner hyphens, at most 63 characters, such as cap-7")
    if pictures.startswith("s3://"):
        return {"ingest": {"source": "s3", "path": pictures}}
    path = Path(pictures)
    if not path.exists():
        raise BadInputError(f"{pictures}: not found; give a folder of pictures, a listing (.csv) or s3://bucket/prefix")
    inside = path.resolve().is_relative_to(root.resolve())
    place = os.path.relpath(path.resolve(), root.resolve()) if inside else str(path.resolve())
    return {"ingest": {"source": "folder" if path.is_dir() else "listing", "path": place}}


def _add(root: Path, name: str, block: dict[str, Any]) -> list[str]:
    says = _says(root, block)
    yaml = YAML()
    yaml.width = 120
    file = root / PARAMS
    whole = yaml.load(file.read_text(encoding="utf-8"))
    if not isinstance(whole, dict):
        raise BadInputError(f"{file}: expected keys `seed`, `defaults` and `lines`")
    lines = whole.get("lines")
    if isinstance(lines, dict) and name in lines:
        raise BadInputError(f"{file}: has a line {name} already; give another name, or change its block there")
    if not lines:
        whole["lines"] = {name: block}
    else:
        lines[name] = block
    text = StringIO()
    yaml.dump(whole, text)
    resolve(YAML(typ="safe").load(text.getvalue()))  # refused before it is written
    write_text(file, text.getvalue())
    load_settings(file)
    _ignore(root, block["ingest"])
    return says


def _ignore(root: Path, ingest: dict[str, Any]) -> None:
    """Keep pictures that lie in the project out of git: DVC versions what the steps make of them."""
    place = Path(ingest["path"])
    if ingest["source"] != "folder" or place.is_absolute():
        return
    file = root / ".gitignore"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if (entry := f"/{place.as_posix()}/") not in text.splitlines():
        write_text(file, f"{text}{entry}\n")


def _says(root: Path, block: dict[str, Any]) -> list[str]:
    """How many pictures there are, and which rates they allow; nothing of a bucket, which would have to be fetched."""
    if block["ingest"]["source"] == "s3":
        return ["pictures in a bucket are counted by the first run"]
    path = root / block["ingest"]["path"]
    settings = LineSettings(ingest=IngestSettings(**{**block["ingest"], "path": str(path)}))
    images = find_images(settings.ingest)
    good = sum(image.label == "good" for image in images)
    share = settings.split.calibration
    calibration = calibration_images(good, share)
    counts = f"{counted(good, 'good picture')} and {counted(len(images) - good, 'defect picture')}"
    if calibration == 0:
        return [f"{counts}: too few good ones for any threshold; add some"]
    tightest = tightest_rate(calibration)
    rate = next((rate for rate in _NEXT_RATES if rate < tightest), None)
    further = f"; {exact_percent(rate)} takes about {good_for(rate, share):,} good ones" if rate else ""
    return [f"{counts}: at most {exact_percent(tightest)} of good parts rejected now{further}"]


def _named_after(pictures: str) -> str:
    """A line's name made of a folder's."""
    stem = Path(pictures.removeprefix("s3://").rstrip("/")).resolve().stem.lower()
    name = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:63].strip("-")
    if not name:
        raise BadInputError(f"{pictures}: no line can be named after it; give --line NAME")
    return name


def _inside_git(root: Path) -> bool:
    done = subprocess.run(["git", "rev-parse", "--is-inside-work-tree"], cwd=root, capture_output=True, check=False)
    return done.returncode == 0


def _run(root: Path, *words: str) -> None:
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadInputError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
