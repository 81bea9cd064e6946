"""Files that hold secrets."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from morphad.base.files import atomic_file


def write_private(path: Path, text: str) -> None:
    """Write a file for its owner only; it appears whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(text, encoding="ascii")


def write_exports(path: Path, environment: Mapping[str, str]) -> None:
    """Write a private file of export lines, to be sourced by a shell."""
    write_private(path, "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()))
