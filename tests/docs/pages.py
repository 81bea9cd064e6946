"""The pages of words, and what tests read in them."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [REPO / "README.md", REPO / "CONTRIBUTING.md", REPO / "CHANGELOG.md"]
    + [page for folder in ("docs", "benchmarks/notes") for page in (REPO / folder).rglob("*.md")]
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    """For the names of tests."""
    return page.relative_to(REPO).as_posix()


def is_for_everybody(page: Path) -> bool:
    """Whether a page leads or explains; decisions, results and notes are for those who want it exact."""
    return page.parent == REPO or page.parent.name in {"docs", "tutorial", "guide", "explanation", "reference"}


@cache
def text(page: Path) -> str:
    """A page as it is."""
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", text(page))


def links(page: Path) -> Iterator[str]:
    """Where links and pictures of a page lead, those to other hosts left out."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(next(a for n in range(1000) if (a := f"{anchor}-{n}" if n else anchor) not in found))
    return found


def commands(page: Path) -> Iterator[str]:
    """The lines of a page's blocks that call morphad."""
    for language, block in _FENCE.findall(text(page)):
        if language in {"", "sh"}:
            yield from (line.strip() for line in block.splitlines() if line.startswith("morphad "))


def verbs(page: Path) -> Iterator[str]:
    """The words after `morphad` in the running text of a page, as far as they are words of the command line."""
    for code in re.findall(r"`morphad ([^`]+)`", prose(page)):
        if words := re.match(r"[a-z][a-z-]*( [a-z][a-z-]*)?", code):
            yield words[0]


def sentences(page: Path) -> Iterator[str]:
    """The sentences of a page, outside code and tables, links by their words."""
    plain = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", prose(page))
    lines = [line for line in plain.splitlines() if not line.startswith(("|", "#", "<"))]
    for paragraph in re.split(r"\n\s*\n|\n(?=- |\d+\. )", "\n".join(lines)):
        yield from (sentence for sentence in re.split(r"(?<=[.!?])\s+", paragraph.strip()) if sentence)
