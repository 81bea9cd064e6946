"""Where the files of a line lie in a project folder; the local pipeline and the command line agree on it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The files of one line.

    Args:
        root: The project's folder.
        line: The line's name.
    """

    root: Path
    line: str

    @property
    def snapshot(self) -> Path:
        """Folder of the images as they came."""
        return self.root / "data" / self.line / "images"

    @property
    def manifest(self) -> Path:
        """One row an image, parquet."""
        return self.root / "data" / self.line / "manifest.parquet"

    @property
    def rejects(self) -> Path:
        """Files that were left out, JSON."""
        return self.root / "data" / self.line / "rejects.json"

    @property
    def memory(self) -> Path:
        """Folder of what ingest remembers between runs; may be lost."""
        return self.root / "data" / self.line / "memory"

    @property
    def feedback(self) -> Path:
        """What became of operators' verdicts, JSON."""
        return self.root / "data" / self.line / "feedback.json"

    @property
    def version(self) -> Path:
        """Which version of the data registry the snapshot is, JSON; to be committed."""
        return self.root / "data" / self.line / "version.json"

    @property
    def validation(self) -> Path:
        """Findings of the data contract, JSON."""
        return self.root / "data" / self.line / "validation.json"

    @property
    def reference(self) -> Path:
        """The champion's data: the manifest, with roles, that it was made from, parquet; no rows before the first."""
        return self.root / "data" / self.line / "reference.parquet"

    @property
    def split(self) -> Path:
        """The manifest with roles, parquet."""
        return self.root / "data" / self.line / "split.parquet"

    @property
    def holdout(self) -> Path:
        """The frozen holdout, JSON."""
        return self.root / "data" / self.line / "holdout.json"

    @property
    def fitted(self) -> Path:
        """Folder of the detector without a threshold."""
        return self.root / "models" / self.line / "fitted"

    @property
    def checkpoint(self) -> Path:
        """State of a training under way; gone when the fitted detector is there."""
        return self.root / "models" / self.line / "checkpoint.safetensors"

    @property
    def detector(self) -> Path:
        """Folder of the detector with its threshold."""
        return self.root / "models" / self.line / "detector"

    @property
    def registration(self) -> Path:
        """Where the detector is in the registry, JSON."""
        return self.root / "models" / self.line / "registration.json"

    @property
    def decision(self) -> Path:
        """What the gate decided, JSON."""
        return self.root / "models" / self.line / "decision.json"

    @property
    def report(self) -> Path:
        """Folder of page and figures."""
        return self.root / "reports" / self.line

    @property
    def contract_page(self) -> Path:
        """The page of the data contract, HTML."""
        return self.report / "contract.html"
