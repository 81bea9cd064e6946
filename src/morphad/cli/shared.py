"""What verbs share: where a verb is added, the line that it works on, who acts."""

import argparse
import getpass
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from morphad.base.text import masked

if TYPE_CHECKING:
    from morphad.settings import LineSettings, ProjectSettings
    from morphad.steps.paths import LinePaths

Verb = Callable[[argparse.Namespace], int | None]


class Verbs:
    """The verbs of a parser.

    Args:
        parser: The parser that gets them.
        prefix: The words before the verb, for messages, such as "data ".
    """

    def __init__(self, parser: argparse.ArgumentParser, prefix: str = "") -> None:
        self._parsers = parser.add_subparsers(metavar="VERB", required=True)
        self._prefix = prefix

    def add(self, name: str, verb: Verb, about: str) -> argparse.ArgumentParser:
        """Add a verb; its function gives the exit code, or None for 0."""
        parser = self._parsers.add_parser(name, help=about, description=about)
        parser.set_defaults(verb=verb, name=self._prefix + name)
        return parser

    def add_for_project(self, name: str, verb: Verb, about: str) -> argparse.ArgumentParser:
        """Add a verb that reads the settings."""
        parser = self.add(name, verb, about)
        parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="the settings")
        return parser

    def add_for_line(self, name: str, verb: Verb, about: str) -> argparse.ArgumentParser:
        """Add a verb that works on a line of the settings."""
        parser = self.add_for_project(name, verb, about)
        parser.add_argument("line", metavar="LINE", help="a product line of the settings")
        return parser

    def list_only(self, name: str, about: str) -> None:
        """List a word that is handled before this parser sees it."""
        self._parsers.add_parser(name, help=about, description=about)

    def group(self, name: str, about: str) -> "Verbs":
        """Add a word that has verbs of its own."""
        parser = self._parsers.add_parser(name, help=about, description=about)
        return Verbs(parser, f"{self._prefix}{name} ")


def open_line(options: argparse.Namespace) -> "tuple[ProjectSettings, LineSettings, LinePaths]":
    """Settings and files of the line that a verb works on."""
    from morphad.settings.reading import load_settings
    from morphad.steps.paths import LinePaths

    project = load_settings(options.params)
    return project, project.line(options.line), LinePaths.checkout(Path(), options.line)


def add_actor(parser: argparse.ArgumentParser) -> None:
    """Let a verb be told who acts."""
    parser.add_argument("--actor", default=None, help="who does it, for the record; default: the user")


def add_data_docs(parser: argparse.ArgumentParser) -> None:
    """Let a verb write the pages of Great Expectations."""
    parser.add_argument(
        "--data-docs", type=Path, metavar="FOLDER", help="write the Data Docs of Great Expectations here, too"
    )


def actor(options: argparse.Namespace) -> str:
    """Who acts, for the record."""
    if options.actor:
        return masked(str(options.actor))
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
