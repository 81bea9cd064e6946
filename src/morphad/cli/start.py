"""The verbs to begin with: a trial on a folder of pictures, a project, a line."""

import argparse
from pathlib import Path
from typing import Any

from morphad.base.errors import BadInputError
from morphad.base.verbs import Verbs


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    trying = verbs.add(
        "try",
        _try,
        "learn from a folder of good pictures and show what that finds; keeps nothing else",
        "caps/good --also caps/new",
    )
    trying.add_argument("folder", metavar="FOLDER", type=Path, help="good pictures, or an MVTec AD layout")
    trying.add_argument(
        "--also", metavar="PICTURE", nargs="+", type=Path, default=[], help="pictures or folders to give verdicts on"
    )
    trying.add_argument("--page", type=Path, default=Path("try.html"), metavar="FILE", help="default: try.html")
    _add_training(trying)
    trying.add_argument("--seed", type=int, default=0)
    init = verbs.add(
        "init",
        _init,
        "make a project in this folder, with a first line if you name its pictures",
        "/data/caps --line caps",
    )
    init.add_argument("pictures", metavar="PICTURES", nargs="?", help="a folder, s3://bucket/prefix or a table (.csv)")
    init.add_argument("--line", metavar="NAME", help="of the line; default: the folder's")
    _add_training(init)
    line = verbs.add("add-line", _add_line, "add a line to params.yaml", "lids s3://cameras/lids")
    line.add_argument("line", metavar="NAME", help="a-z, 0-9 and inner hyphens")
    line.add_argument("pictures", metavar="PICTURES", help="a folder, s3://bucket/prefix or a table (.csv, .parquet)")
    _add_training(line)


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Let a verb take how the pictures of a line are seen."""
    parser.add_argument("--preset", choices=("default", "fast"), default="default", help="fast: one view a picture")
    parser.add_argument(
        "--align",
        choices=("none", "shift", "similarity"),
        default="none",
        help="put parts in their place first; similarity: turns and sizes, too",
    )
    parser.add_argument(
        "--smallest-defect",
        type=_size,
        metavar="SIDE",
        help="of the smallest defect to be found, in px of the pictures, or in mm with --mm-per-pixel: adds tiles",
    )
    parser.add_argument(
        "--mm-per-pixel", type=_size, metavar="MM", help="what a pixel of the pictures measures on the part"
    )


def _training(options: argparse.Namespace) -> dict[str, Any]:
    """The same as settings of `train`, without those that are the defaults.

    Raises:
        BadInputError: A scale without a defect.
    """
    given = {"smallest_defect": options.smallest_defect, "mm_per_pixel": options.mm_per_pixel}
    resolution = {name: value for name, value in given.items() if value is not None}
    if "mm_per_pixel" in resolution and "smallest_defect" not in resolution:
        raise BadInputError("--mm-per-pixel is the scale of --smallest-defect: give that, too, or leave it out")
    chosen = {"preset": options.preset, "align": options.align, "resolution": resolution}
    return {name: value for name, value in chosen.items() if value not in ("default", "none", {})}


def _size(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 100_000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0 and below 100,000, such as 12 or 0.2")
    return int(value) if value.is_integer() else value


def _try(options: argparse.Namespace) -> int:
    from morphad.jobs.trial import try_folder
    from morphad.report.trial_page import headline, next_command

    train = _training(options)
    trial = try_folder(options.folder, options.also, options.page, seed=options.seed, train=train)
    for name, reason in trial.unreadable:
        print(f"{name}: {reason}")
    print(headline(trial.good, trial.calibration))
    if "resolution" in train:
        print(trial.sight.says_for_the_defect())
    for example in trial.verdicts:
        reason = f"\t{example.reason}" if example.reason else ""
        print(f"{'reject' if example.rejected else 'accept'}\t{example.p_value:.4f}\t{example.name}{reason}")
    print(f"page: {options.page}")
    print(f"next: in an empty folder, {next_command(options.folder.resolve(), train)}")
    return 2 if trial.unanswered else 0


def _init(options: argparse.Namespace) -> None:
    from morphad.jobs.project import make_project

    made = make_project(Path(), options.pictures, options.line, _training(options))
    print(f"made {', '.join(made.files)}")
    _say(made.line, made.says)
    if made.line is None:
        print("next: morphad add-line NAME PICTURES")


def _add_line(options: argparse.Namespace) -> None:
    from morphad.jobs.project import add_line

    _say(options.line, add_line(Path(), options.line, options.pictures, _training(options)))


def _say(line: str | None, says: list[str]) -> None:
    if line is None:
        return
    for sentence in says:
        print(f"{line}: {sentence}")
    print("next: dvc repro")
