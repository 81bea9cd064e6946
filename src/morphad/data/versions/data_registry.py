"""The data registry: a git repository of small text files that say which bytes, kept by DVC, a version is made of.

    .dvc/config                                 where DVC keeps the bytes; no credentials
    LINE/shards/NAME.tar.dvc                    one shard; never changed
    LINE/versions/DATE-HASH/version.json        what `Version` holds
    LINE/versions/DATE-HASH/rejects.json        files that ingest left out
    LINE/versions/DATE-HASH/manifest.parquet.dvc, files.parquet.dvc

A version only adds files, so versions that are recorded at the same time never contradict each other.
"""

import configparser
import json
import random
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.files import read_json
from morphad.data.versions.commands import Commands, reason
from morphad.data.versions.identity import Address, DataVersion, choose

_ATTEMPTS = 12
_ARGUMENTS = 2000  # files named in one command
_IGNORED = "*.tar\n*.parquet\n"
_DVC_LOCAL = "[core]\n    analytics = false\n    check_update = false\n[cache]\n    type = hardlink,copy\n"


class DataRegistry:
    """A working copy of a data registry, in a folder that is thrown away afterwards.

    Args:
        address: Where the registry is.
        work: The folder for the working copy; replaced.

    Raises:
        BadInputError: git is missing, or there is no repository at the address.
        ServiceError: The repository does not answer or refuses.
    """

    def __init__(self, address: Address, work: Path) -> None:
        self._address = address
        self.folder = work = work.absolute()
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        self._run = Commands(address, work)
        self._run.git("init", "--quiet")
        self._branch = self._find_branch()
        self._run.git("symbolic-ref", "HEAD", f"refs/heads/{self._branch}")
        self._fetch()
        if self._head():
            self._run.git("reset", "--quiet", "--hard", self._head())
        # Else DVC would write a .gitignore beside every file that it manages, over which versioners would quarrel.
        (self.folder / ".git" / "info" / "exclude").write_text(_IGNORED, encoding="utf-8")
        self._write_local_config()

    def ensure_remote(self) -> None:
        """Make the registry ready for bytes: in a new one, write down where DVC keeps them.

        Raises:
            BadInputError: The registry is new and no remote was named, or it has another one.
        """
        given = self._address.remote
        there = self._remote()
        if there is None:
            if given is None:
                raise BadInputError(
                    f"data registry {self._address.shown}: does not say yet where the bytes are kept; set data.remote "
                    "in params.yaml, or give --remote: s3://BUCKET/PREFIX or a folder"
                )
            config_file = self.folder / ".dvc" / "config"
            if config_file.exists() and config_file.read_text(encoding="utf-8").strip():
                raise BadInputError(
                    f"data registry {self._address.shown}: its .dvc/config names no default remote; add one there "
                    "(dvc remote add --default NAME URL), commit and push"
                )
            # What `dvc init` and `dvc remote add --default storage URL` write.
            config_file.parent.mkdir(exist_ok=True)
            config = f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {given}\n"
            config_file.write_text(config, encoding="utf-8")
            (self.folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
            (self.folder / ".gitignore").write_text(_IGNORED, encoding="utf-8")
            self._write_local_config()
            self._run.git("add", ".dvc", ".gitignore")
            self._commit("Data registry: where the bytes are kept")
        elif given is not None and given.rstrip("/") != there.rstrip("/"):
            raise BadInputError(
                f"data registry {self._address.shown}: keeps its bytes at {there}, but data.remote says {given}; leave "
                "data.remote out, or move the bytes and change .dvc/config in the registry"
            )

    def versions(self, line: str) -> list[DataVersion]:
        """All versions of a line, oldest first."""
        records = (self.folder / line / "versions").glob("*/version.json")
        found = [DataVersion.from_json(read_json(path), f"{self._address.shown}: {line}") for path in records]
        return sorted(found, key=lambda version: (version.created, version.name))

    def choose(self, line: str, name: str) -> DataVersion:
        """The version that is meant by LINE@NAME.

        Raises:
            BadInputError: None, or several.
        """
        return choose(self.versions(line), line, name)

    def with_id(self, line: str, identity: str) -> DataVersion | None:
        """The version of a line that has a snapshot's id."""
        return next((version for version in self.versions(line) if version.id == identity), None)

    def shard_path(self, line: str, shard: str) -> Path:
        """Where a shard lies in the working copy, once it was made or fetched."""
        return self.folder / line / "shards" / f"{shard}.tar"

    def version_path(self, version: DataVersion, name: str) -> Path:
        """Where a file of a version lies in the working copy, once it was made or fetched."""
        return self.folder / version.line / "versions" / version.name / name

    def shard_sizes(self, line: str) -> dict[str, int]:
        """All shards of a line and their sizes in bytes."""
        sizes = {}
        for path in (self.folder / line / "shards").glob("*.tar.dvc"):
            size = re.search(r"^ +size: (\d+)$|^- size: (\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            if size:
                sizes[path.name.removesuffix(".tar.dvc")] = int(size.group(1) or size.group(2))
        return sizes

    def send(self, files: Sequence[Path]) -> None:
        """Let DVC manage files of the working copy and send their bytes; they are gone from here afterwards."""
        if not files:
            return
        self._run.dvc("add", *(str(path.relative_to(self.folder)) for path in files))
        self._run.dvc("push", *self._tracked(files))
        self.drop(files)

    def bring(self, files: Sequence[Path]) -> None:
        """Fetch files of the working copy."""
        if files:
            self._run.dvc("pull", *self._tracked(files))

    def drop(self, files: Sequence[Path]) -> None:
        """Remove files of the working copy, and DVC's cache."""
        for path in files:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / ".dvc" / "cache", ignore_errors=True)

    def missing(self, files: Sequence[Path]) -> list[Path]:
        """Those of the files whose bytes are no longer where the registry keeps them."""
        gone: list[Path] = []
        for first in range(0, len(files), _ARGUMENTS):
            some = self._tracked(files[first : first + _ARGUMENTS])
            states = json.loads(self._run.dvc("status", "--cloud", "--json", *some))
            gone += [self.folder / name for name, state in states.items() if state in {"new", "missing"}]
        return gone

    def check_out(self, version: DataVersion) -> None:
        """Bring the working copy to the state that a version was recorded in.

        Raises:
            ServiceError: The registry has no such tag.
        """
        self._run.git("fetch", "--quiet", "--no-tags", "origin", f"refs/tags/{version.tag}")
        self._run.git("reset", "--quiet", "--hard", "FETCH_HEAD")

    def publish(self, version: DataVersion) -> DataVersion:
        """Record a version, whose files lie in the working copy, under its tag; others may do the same meanwhile.

        Returns:
            The version on record: this one, or one of the same content that another process recorded first.

        Raises:
            ServiceError: The repository refuses, or others were faster again and again.
        """
        self._run.git("add", "--", version.line)
        self._commit(f"{version.line}: {version.name}, {version.good} good and {version.defect} defect images")
        refusal = ""
        for attempt in range(_ATTEMPTS):
            self._run.git("tag", "--force", version.tag)
            pushed = self._run.try_git(
                "push", "--quiet", "--atomic", "origin", f"HEAD:{self._branch}", f"refs/tags/{version.tag}"
            )
            before = self._head()
            if pushed.returncode == 0:
                return version
            refusal = reason(pushed.stderr)
            self._run.git("tag", "--delete", version.tag)
            self._fetch()
            there = self._recorded(version)
            if there is not None:
                return there
            if self._head() == before and attempt >= 2:
                break  # nobody was faster: it is refused for another reason
            rebased = self._run.try_git("rebase", "--quiet", f"origin/{self._branch}") if self._head() else None
            if rebased is not None and rebased.returncode:
                self._run.try_git("rebase", "--abort")
                raise ServiceError(
                    f"data registry {self._address.shown}: another version was recorded meanwhile and contradicts this "
                    f"one ({reason(rebased.stdout + rebased.stderr)}); nothing was recorded, run it again"
                )
            time.sleep(random.uniform(0.05, 0.3) * (attempt + 1))  # noqa: S311
        raise ServiceError(
            f"data registry {self._address.shown}: does not accept {version.tag} ({refusal}); the bytes are sent, run "
            "`morphad data version` again when it does"
        )

    def _recorded(self, version: DataVersion) -> DataVersion | None:
        """The version of the same content that the fetched branch has."""
        if not self._head():
            return None
        listed = self._run.git(
            "ls-tree", "-r", "--name-only", f"origin/{self._branch}", "--", f"{version.line}/versions"
        )
        for path in listed.splitlines():
            if path.endswith(f"-{version.id[:12]}/version.json"):
                text = self._run.git("show", f"origin/{self._branch}:{path}")
                there = DataVersion.from_json(json.loads(text), f"{self._address.shown}: {path}")
                if there.id == version.id:
                    return there
        return None

    def _find_branch(self) -> str:
        answer = self._run.try_git("ls-remote", "--symref", "origin", "HEAD")
        if answer.returncode:
            error = BadInputError if "not appear to be a git repo" in answer.stderr else ServiceError
            raise error(
                f"data registry {self._address.shown}: cannot be read ({reason(answer.stderr)}); name a git repository "
                "with --registry, data.registry or MORPHAD_DATA_REGISTRY that you may read and write (an empty one: "
                "git init --bare FOLDER)"
            )
        found = re.search(r"^ref: refs/heads/(\S+)\s+HEAD$", answer.stdout, re.MULTILINE)
        return found.group(1) if found else "main"

    def _fetch(self) -> None:
        branch = f"+refs/heads/{self._branch}:refs/remotes/origin/{self._branch}"
        fetched = self._run.try_git("fetch", "--quiet", "--no-tags", "origin", branch)
        if fetched.returncode and "couldn't find remote ref" not in fetched.stderr:
            raise ServiceError(
                f"data registry {self._address.shown}: cannot be fetched ({reason(fetched.stderr)}); run it again"
            )

    def _head(self) -> str:
        """The commit of the fetched branch; "" if there is none yet."""
        return self._run.try_git(
            "rev-parse", "--quiet", "--verify", f"refs/remotes/origin/{self._branch}"
        ).stdout.strip()

    def _commit(self, message: str) -> None:
        self._run.ensure_identity()
        self._run.git("commit", "--quiet", "--message", message)

    def _tracked(self, files: Sequence[Path]) -> list[str]:
        return [f"{path.relative_to(self.folder)}.dvc" for path in files]

    def _remote(self) -> str | None:
        """Where DVC keeps the bytes."""
        config = configparser.ConfigParser(interpolation=None)
        try:
            config.read(self.folder / ".dvc" / "config", encoding="utf-8")
        except configparser.Error as error:
            raise BadInputError(f"data registry {self._address.shown}: .dvc/config: {error}") from error
        default = config.get("core", "remote", fallback=None)
        return config.get(f"'remote \"{default}\"'", "url", fallback=None) if default else None

    def _write_local_config(self) -> None:
        if (self.folder / ".dvc").is_dir():
            (self.folder / ".dvc" / "config.local").write_text(_DVC_LOCAL, encoding="utf-8")


def list_versions(address: Address, line: str, work: Path) -> list[DataVersion]:
    """All versions of a line, oldest first; `work` is a folder to work in."""
    return DataRegistry(address, work / "registry").versions(line)
