"""Text as Markdown: what people wrote stays text, whatever reads the page."""

import re
import unicodedata

_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SPECIAL = re.compile(r"([\\`*_\[\]#|~])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def prose(text: str) -> str:
    """A sentence of ours: reads the same with Markdown as without.

    Not for text from elsewhere: addresses and names with an @ in it become links on some pages. See `code`.
    """
    marked = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    return re.sub("[&<>]", lambda found: _ENTITIES[found.group()], marked)


def code(text: str, longest: int = 60) -> str:
    """Text from elsewhere, such as a kind of defect, as inline code: no link, no HTML, no end of a list or line.

    Args:
        text: Anything. White space becomes one blank; what cannot be printed, or turns the direction of the text,
            becomes U+FFFD.
        longest: Characters that are shown.
    """
    shown = "".join(_printable(character) for character in " ".join(text.split()))
    shown = shown if len(shown) <= longest else shown[: longest - 1].rstrip() + "…"
    if not shown:
        return "(empty)"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _printable(character: str) -> str:
    hidden = character in _DIRECTIONS or unicodedata.category(character) in {"Cc", "Cs"}
    return "\N{REPLACEMENT CHARACTER}" if hidden else character
