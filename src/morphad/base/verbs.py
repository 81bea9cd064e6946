"""Verbs of a command line: how they are added, and what those that read the settings share."""

import argparse
from collections.abc import Callable
from pathlib import Path

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
