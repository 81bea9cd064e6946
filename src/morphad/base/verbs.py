"""Verbs of a command line: how they are added, and what those that read the settings share."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from morphad.base.wording import did_you_mean

Verb = Callable[[argparse.Namespace], int | None]

_WRONG_CHOICE = re.compile(r"invalid choice: '(?P<given>[^']*)' \(choose from (?P<known>.*)\)$")


class Parser(argparse.ArgumentParser):
    """A parser that asks back where a word is mistyped: `trian` -> "did you mean train?"."""

    def error(self, message: str) -> NoReturn:
        """Show the usage and what is wrong with it, and end with exit code 2."""
        if wrong := _WRONG_CHOICE.search(message):
            meant = did_you_mean(wrong["given"], re.findall(r"[\w.-]+", wrong["known"]))
            message = f"{message[: wrong.start('known')].removesuffix(' (choose from ')}; {meant}" if meant else message
        super().error(message)


class Verbs:
    """The verbs of a parser.

    Args:
        parser: The parser that gets them.
        prefix: The words before the verb, for messages, such as "data ".
    """

    def __init__(self, parser: Parser, prefix: str = "") -> None:
        self._parsers = parser.add_subparsers(metavar="VERB", required=True)
        self._prefix = prefix

    def add(self, name: str, verb: Verb, about: str, example: str) -> argparse.ArgumentParser:
        """Add a verb.

        Args:
            name: The word.
            verb: Its function; gives the exit code, or None for 0.
            about: What it does, in a phrase.
            example: What follows the verb in an example of its use, such as "pv-mono --record".
        """
        parser = self._parsers.add_parser(
            name,
            help=about,
            description=about,
            epilog=f"example: morphad {self._prefix}{name} {example}".rstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(verb=verb, name=self._prefix + name)
        return parser

    def add_for_project(self, name: str, verb: Verb, about: str, example: str) -> argparse.ArgumentParser:
        """Add a verb that reads the settings."""
        parser = self.add(name, verb, about, example)
        parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="the settings")
        return parser

    def add_for_line(self, name: str, verb: Verb, about: str, example: str = "pv-mono") -> argparse.ArgumentParser:
        """Add a verb that works on a line of the settings."""
        parser = self.add_for_project(name, verb, about, example)
        parser.add_argument("line", metavar="LINE", help="a product line of the settings")
        return parser

    def list_only(self, name: str, about: str) -> None:
        """List a word that is handled before this parser sees it."""
        self._parsers.add_parser(name, help=about, description=about)

    def group(self, name: str, about: str, example: str) -> "Verbs":
        """Add a word that has verbs of its own; `example` follows it in an example of its use."""
        parser = self._parsers.add_parser(
            name, help=about, description=about, epilog=f"example: morphad {self._prefix}{name} {example}"
        )
        return Verbs(parser, f"{self._prefix}{name} ")
