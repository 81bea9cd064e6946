"""`morphad init` and `morphad add-line`: a project in a folder, and a line in its settings."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ruamel.yaml import YAML

from morphad.base.errors import BadInputError
from morphad.base.files import write_text
from morphad.base.wording import counted, exact_percent
from morphad.data.images import UnreadableImageError, read_size
from morphad.data.source.finding import find_images
from morphad.data.source.image import SourceImage
from morphad.decision.attainable import calibration_images, good_for, tightest_rate
from morphad.model.sight import Sight
from morphad.settings import LINE_NAME, LineSettings
from morphad.settings.reading import load_settings, resolve

PARAMS = "params.yaml"
_TEMPLATES = {"params.yaml": PARAMS, "dvc.yaml": "dvc.yaml", "gitignore": ".gitignore"}
_DVCIGNORE = "# What ingest remembers between runs: it is this machine's alone.\n/data/*/memory\n"
_NONE: Mapping[str, Any] = MappingProxyType({})
_HEADERS = 100  # pictures whose size is read: sizes of a line's pictures hardly differ
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


def make_project(root: Path, pictures: str | None, line: str | None, train: Mapping[str, Any] = _NONE) -> Made:
    """Make a project in a folder: params.yaml, dvc.yaml, .gitignore, git and DVC.

    Args:
        root: The folder; what it holds already stays.
        pictures: Of a first line, as for `add_line`; None for none.
        line: The line's name; None: that of the pictures' folder.
        train: Settings of section `train` for the line, as for `add_line`.

    Raises:
        BadInputError: The folder holds a project already, git or DVC are missing, or the line is wrong.
    """
    if line is not None and pictures is None:
        raise BadInputError("--line names the line of the pictures: give their folder, too")
    if train and pictures is None:
        options = ", ".join("--smallest-defect" if key == "resolution" else f"--{key}" for key in train)
        is_or_are = "is" if len(train) == 1 else "are"
        raise BadInputError(f"{options} {is_or_are} of the line of the pictures: give their folder, too")
    for name in _TEMPLATES.values():
        if name != ".gitignore" and (root / name).exists():
            raise BadInputError(
                f"{root.resolve() / name}: there is a project here; morphad add-line NAME PICTURES adds a line"
            )
    for command in ("git", "dvc"):
        if shutil.which(command) is None:
            raise BadInputError(f'{command} is not installed; install it, or: pip install "morphad[pipeline]"')
    first = line or (_named_after(pictures) if pictures else None)
    texts = {
        target: (files("morphad.jobs") / "template" / template).read_text(encoding="utf-8")
        for template, target in _TEMPLATES.items()
    }
    says: list[str] = []
    if first and pictures:  # refused before anything is written
        texts[PARAMS], says = _with_line(texts[PARAMS], root, first, _block(root, first, pictures, train))
    ignored = root / ".gitignore"
    if ignored.exists():
        texts[".gitignore"] = ignored.read_text(encoding="utf-8").rstrip("\n") + "\n" + texts[".gitignore"]
    for target, text in texts.items():
        write_text(root / target, text)
    done = list(texts)
    if not _inside_git(root):
        _run(root, "git", "init", "--quiet")
        done.append("a git repository")
    if not (root / ".dvc").is_dir():
        _run(root, "dvc", "init", "--quiet", *([] if (root / ".git").exists() else ["--subdir"]))
        _run(root, "dvc", "config", "core.analytics", "false")
        done.append("a DVC project")
    write_text(root / ".dvcignore", _DVCIGNORE)
    if first:
        _settled(root, first)
    return Made(done, first, says)


def add_line(root: Path, name: str, pictures: str, train: Mapping[str, Any] = _NONE) -> list[str]:
    """Add a line to the project's params.yaml, whose comments stay.

    Args:
        root: The project's folder.
        name: The line's.
        pictures: A folder, s3://bucket/prefix, or a listing (.csv, .parquet).
        train: Settings of section `train` for the line, such as `resolution`.

    Returns:
        What is to be said of the line: how many pictures, which rates they allow, how they are seen.

    Raises:
        BadInputError: There is no project, the name is wrong or there already, the pictures cannot be found, or the
            smallest defect is larger than they are.
    """
    if not (root / PARAMS).is_file():
        raise BadInputError(
            f"{root.resolve() / PARAMS}: not found; run morphad init first, or go to the project's folder"
        )
    file = root / PARAMS
    text, says = _with_line(file.read_text(encoding="utf-8"), root, name, _block(root, name, pictures, train))
    write_text(file, text)
    _settled(root, name)
    return says


def _block(root: Path, name: str, pictures: str, train: Mapping[str, Any]) -> dict[str, Any]:
    """The line's block of the settings."""
    if not LINE_NAME.fullmatch(name):
        raise BadInputError(f"line {name!r}: expected a-z, 0-9 and inner hyphens, at most 63 characters, such as cap-7")
    training: dict[str, Any] = {"train": dict(train)} if train else {}
    if pictures.startswith("s3://"):
        return {"ingest": {"source": "s3", "path": pictures}, **training}
    path = Path(pictures)
    if not path.exists():
        raise BadInputError(f"{pictures}: not found; give a folder of pictures, a listing (.csv) or s3://bucket/prefix")
    inside = path.resolve().is_relative_to(root.resolve())
    place = os.path.relpath(path.resolve(), root.resolve()) if inside else str(path.resolve())
    return {"ingest": {"source": "folder" if path.is_dir() else "listing", "path": place}, **training}


def _with_line(params: str, root: Path, name: str, block: dict[str, Any]) -> tuple[str, list[str]]:
    """The text of params.yaml with one more line, and what is to be said of the line. Nothing is written."""
    yaml = YAML()
    yaml.width = 120
    whole = yaml.load(params)
    if not isinstance(whole, dict):
        raise BadInputError(f"{root / PARAMS}: expected keys `seed`, `defaults` and `lines`")
    lines = whole.get("lines")
    if isinstance(lines, dict) and name in lines:
        raise BadInputError(f"{root / PARAMS}: has a line {name} already; give another name, or change its block there")
    if not lines:
        whole["lines"] = {name: block}
    else:
        lines[name] = block
    text = StringIO()
    yaml.dump(whole, text)
    settings = resolve(YAML(typ="safe").load(text.getvalue())).line(name)
    return text.getvalue(), _says(root, settings)


def _settled(root: Path, name: str) -> None:
    """What follows a new line: a password is warned of, and pictures in the project are kept out of git."""
    ingest = load_settings(root / PARAMS).line(name).ingest
    place = Path(ingest.path)
    if ingest.source != "folder" or place.is_absolute():
        return
    file = root / ".gitignore"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if (entry := f"/{place.as_posix()}/") not in text.splitlines():
        write_text(file, f"{text}{entry}\n")


def _says(root: Path, settings: LineSettings) -> list[str]:
    """What follows from the pictures; nothing of a bucket, which would have to be fetched."""
    tiled = settings.train.resolution.smallest_defect is not None
    if settings.ingest.source == "s3":
        said = ["pictures in a bucket are counted by the first run"]
        return [*said, "how many tiles the smallest defect takes is said by the first training"] if tiled else said
    images = find_images(settings.ingest.model_copy(update={"path": str(root / settings.ingest.path)}))
    good = [image for image in images if image.label == "good"]
    said = [_rates(len(good), len(images) - len(good), settings.split.calibration)]
    return [*said, _sight(good or images, settings)] if tiled else said


def _rates(good: int, defects: int, share: float) -> str:
    """How many pictures there are, and which rates they allow."""
    calibration = calibration_images(good, share)
    counts = f"{counted(good, 'good picture')} and {counted(defects, 'defect picture')}"
    if calibration == 0:
        return f"{counts}: too few good ones for any threshold; add some"
    tightest = tightest_rate(calibration)
    rate = next((rate for rate in _NEXT_RATES if rate < tightest), None)
    further = f"; {exact_percent(rate)} needs about {good_for(rate, share):,} good ones" if rate else ""
    return f"{counts}: at most {exact_percent(tightest)} of good parts rejected now{further}"


def _sight(images: list[SourceImage], settings: LineSettings) -> str:
    """What the smallest defect means for pictures of these sizes."""
    sizes = []
    for image in images[:: -(-len(images) // _HEADERS)]:
        try:
            sizes.append(read_size(image.file, settings.ingest.decoding))
        except UnreadableImageError:  # which the first run names
            continue
    if not sizes:
        return "no picture can be read: the first run says what is wrong with them"
    return Sight.of(settings.train, sizes).says_for_the_defect()


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
