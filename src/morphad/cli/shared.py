"""What verbs share: where a verb is added, the line that it works on, who acts."""

import argparse
import getpass
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from morphad.base.wording import counted

if TYPE_CHECKING:
    from morphad.registry import Registry
    from morphad.settings import LineSettings, ProjectSettings
    from morphad.steps.paths import LinePaths


def open_line(options: argparse.Namespace) -> "tuple[ProjectSettings, LineSettings, LinePaths]":
    """Settings and files of the line that a verb works on."""
    from morphad.settings.reading import load_settings
    from morphad.steps.paths import LinePaths

    project = load_settings(options.params)
    return project, project.line(options.line), LinePaths.checkout(Path(), options.line)


def open_registry(options: argparse.Namespace) -> "Registry":
    """The registry of the line that a verb works on."""
    from morphad.registry import Registry

    return Registry(open_line(options)[1].register_)


def add_actor(parser: argparse.ArgumentParser) -> None:
    """Add the option for who acts."""
    parser.add_argument("--actor", type=on_record, default=None, help="who does it, for the record; default: the user")


def add_why(parser: argparse.ArgumentParser, about: str = "", *, required: bool = False) -> None:
    """Add the option for the reason of a decision."""
    parser.add_argument("--why", type=on_record, required=required, help=f"the reason, for the record{about}")


def on_record(text: str) -> str:
    """Text of the command line that goes on record: one line, which cannot steer a terminal that shows it.

    Raises:
        ArgumentTypeError: It is empty, or holds what cannot be shown.
    """
    line = " ".join(text.split())
    if not line:
        raise argparse.ArgumentTypeError("is empty; say it in words, they go on record")
    if not line.isprintable():
        raise argparse.ArgumentTypeError(
            f"{ascii(line)[:80]} holds control characters, or is not UTF-8; write it in plain words"
        )
    return line


def add_data_docs(parser: argparse.ArgumentParser) -> None:
    """Let a verb write the pages of Great Expectations."""
    parser.add_argument(
        "--data-docs", type=Path, metavar="FOLDER", help="write the Data Docs of Great Expectations here, too"
    )


def actor(options: argparse.Namespace) -> str:
    """Who acts, for the record."""
    from morphad.base.text import masked

    if options.actor:
        return masked(str(options.actor))
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def left_aside(endings: Mapping[str, int]) -> str:
    """What was left aside in a folder of images, as a sentence: "3 files are no images: 2 .txt, 1 .db"."""
    kinds = ", ".join(f"{count:,} {ending}" for ending, count in endings.items())
    total = sum(endings.values())
    return f"{counted(total, 'file')} {'is no image' if total == 1 else 'are no images'}: {kinds}"
