"""git and DVC as commands: lists of words, no questions asked, no password on disk or in a message."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.text import masked
from morphad.data.versions.identity import Address

_TELLING = ("fatal:", "error:", "ERROR:", "remote:", "!")


class Commands:
    """Runs git and DVC in a working copy of a data registry.

    Args:
        address: The registry; git knows it as the remote `origin`.
        folder: The working copy, absolute.
    """

    def __init__(self, address: Address, folder: Path) -> None:
        self._shown = address.shown
        self._folder = folder
        # The URL, which may hold a password, is given in the environment: neither on disk nor in the list of processes.
        given = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
        self._environment = {
            **os.environ,
            "GIT_CONFIG_COUNT": str(given + 1),
            f"GIT_CONFIG_KEY_{given}": "remote.origin.url",
            f"GIT_CONFIG_VALUE_{given}": address.registry,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
            "GIT_HTTP_LOW_SPEED_TIME": "60",
            "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=20"),
            "LC_ALL": "C",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(folder.with_name(f"{folder.name}-dvc")),
        }
        # A hook or a rebase that runs morphad must not lead git to another repository.
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            self._environment.pop(name, None)

    def ensure_identity(self) -> None:
        """Let git commit where it does not know who does, such as in a container."""
        if self.try_git("var", "GIT_COMMITTER_IDENT").returncode:
            for role in ("AUTHOR", "COMMITTER"):
                self._environment |= {f"GIT_{role}_NAME": "morphad", f"GIT_{role}_EMAIL": "morphad@localhost"}

    def git(self, *words: str) -> str:
        """Run git; give what it prints.

        Raises:
            ServiceError: It fails.
        """
        done = self.try_git(*words)
        if done.returncode:
            raise ServiceError(f"data registry {self._shown}: git {words[0]} failed ({reason(done.stderr)})")
        return done.stdout

    def try_git(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run git, which may fail."""
        return self.run(["git", "-c", "core.quotepath=off", *words])

    def dvc(self, *words: str) -> str:
        """Run DVC; give what it prints.

        Raises:
            ServiceError: It fails.
        """
        done = self.run([sys.executable, "-m", "dvc", *words])
        if done.returncode:
            raise ServiceError(
                f"data registry {self._shown}: dvc {words[0]} failed ({reason(done.stderr)}); check that where it "
                "keeps the bytes answers and has space, and that its credentials are in the environment; then run it "
                "again"
            )
        return done.stdout

    def run(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command in the working copy; it cannot ask anything.

        Raises:
            BadInputError: There is no such program.
        """
        try:
            return subprocess.run(
                command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except FileNotFoundError as error:
            raise BadInputError(f"{command[0]} is not installed; a data registry needs it") from error


def reason(text: str) -> str:
    """The line that matters of what a command wrote, without credentials."""
    lines = [line.strip() for line in masked(text).splitlines() if line.strip()]
    at = next((n for n, line in enumerate(lines) if line.startswith(_TELLING)), 0)
    said = " ".join(lines[at : at + 2]) if lines and lines[at].endswith(":") else "".join(lines[at : at + 1])
    return said.removeprefix("ERROR: ") or "no reason given"
