"""Where the files of a line lie: in a project's folder, or in the pods of a cluster."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from morphad.base.errors import BadInputError
from morphad.base.files import read_json
from morphad.data.pictures import InPlace, Pictures, Snapshot, Store
from morphad.settings import LINE_NAME

# Where nothing can be: a step that reads or writes what its component does not give it fails, and says this.
_NOT_GIVEN = Path("/dev/null/not-given-by-the-component")

# What `split` makes for later steps, by attribute.
ROLES = {"split": "split.parquet", "holdout": "holdout.json", "rejects": "rejects.json"}


@dataclass(frozen=True)
class LinePaths:
    """The files of one line.

    Attributes:
        line: The line's name.
        settings: Folder of what each step reads of the settings, JSON.
        snapshot: Folder of the images as they came; in a project's folder only.
        store: Folder of each picture by the hash of its bytes; in pods only.
        used: Folder of the manifests of runs whose pictures are in the store.
        place: Where the pictures of a run are if they are not in the store, and how many days they stay there, JSON.
        manifest: One row an image, parquet.
        rejects: Files that were left out, JSON.
        memory: Folder of what ingest remembers between runs; may be lost.
        feedback: What became of operators' verdicts, JSON.
        version: Which version of the data registry the snapshot is, JSON; need not exist.
        validation: Findings of the data contract, JSON.
        contract_page: The page of the data contract, HTML.
        reference: The champion's data: the manifest, with roles, that it was made from, parquet; without rows before
            the first champion.
        roles: Folder of what `split` made, a folder a hash; in pods alone.
        split: The manifest with roles, parquet.
        holdout: The frozen holdout, JSON.
        fitted: Folder of the detector without a threshold.
        checkpoint: State of a training under way; gone when the fitted detector is there.
        calibration: Folder of what makes the fitted detector one with a threshold; in pods only.
        detector: Folder of the detector with its threshold.
        report: Folder of page and figures.
        registration: Where the detector is in the registry, JSON.
        decision: What the gate decided, JSON.
        judged: What the last decision rests on, JSON; in pods alone.
    """

    line: str
    settings: Path = _NOT_GIVEN
    snapshot: Path = _NOT_GIVEN
    store: Path = _NOT_GIVEN
    used: Path = _NOT_GIVEN
    place: Path = _NOT_GIVEN
    manifest: Path = _NOT_GIVEN
    rejects: Path = _NOT_GIVEN
    memory: Path = _NOT_GIVEN
    feedback: Path = _NOT_GIVEN
    version: Path = _NOT_GIVEN
    validation: Path = _NOT_GIVEN
    contract_page: Path = _NOT_GIVEN
    reference: Path = _NOT_GIVEN
    roles: Path = _NOT_GIVEN
    split: Path = _NOT_GIVEN
    holdout: Path = _NOT_GIVEN
    fitted: Path = _NOT_GIVEN
    checkpoint: Path = _NOT_GIVEN
    calibration: Path = _NOT_GIVEN
    detector: Path = _NOT_GIVEN
    report: Path = _NOT_GIVEN
    registration: Path = _NOT_GIVEN
    decision: Path = _NOT_GIVEN
    judged: Path = _NOT_GIVEN

    @classmethod
    def checkout(cls, root: Path, line: str) -> Self:
        """The files of a line in a project's folder."""
        data, models, report = root / "data" / line, root / "models" / line, root / "reports" / line
        return cls(
            line,
            settings=data / "settings",
            snapshot=data / "images",
            manifest=data / "manifest.parquet",
            rejects=data / "rejects.json",
            memory=data / "memory",
            feedback=data / "feedback.json",
            version=data / "version.json",
            validation=data / "validation.json",
            contract_page=report / "contract.html",
            reference=data / "reference.parquet",
            split=data / "split.parquet",
            holdout=data / "holdout.json",
            fitted=models / "fitted",
            checkpoint=models / "checkpoint.safetensors",
            detector=models / "detector",
            report=report,
            registration=models / "registration.json",
            decision=models / "decision.json",
        )

    @classmethod
    def pod(cls, line: str, state_root: str, *, data: str = "", roles: str = "", **given: str) -> Self:
        """The files of a line in a pod: artifacts of the run, and the line's state, which outlives runs.

        Args:
            line: The line's name.
            state_root: Where the lines' state is mounted; one folder a line.
            data: Folder of the artifact that `ingest` makes; it names pictures by their hashes and holds none.
            roles: Hash of what `split` made, which lies in the state; it holds the holdout that the run uses.
            given: Paths of other artifacts, by attribute. What is not given cannot be read or written.

        Raises:
            BadInputError: The line's name is none that can be a folder, or its roles are others by now.
        """
        if not LINE_NAME.fullmatch(line):
            raise BadInputError(f"line {line!r}: a line's name holds a-z, 0-9 and inner hyphens, at most 63 characters")
        state = Path(state_root) / line
        paths = {
            "memory": state / "memory",
            "roles": state / "roles",
            "judged": state / "judged.json",
            "store": state / "pictures",
            "used": state / "used",
            "place": state / "place.json",
            "reference": state / "reference.parquet",
            "holdout": state / "holdout.json",
            "checkpoint": state / "checkpoint.safetensors",
            "version": state / "version.json",
        }
        if data:
            paths |= {
                "manifest": Path(data) / "manifest.parquet",
                "rejects": Path(data) / "rejects.json",
                "feedback": Path(data) / "feedback.json",
            }
        if roles:
            folder = paths["roles"] / roles
            if not folder.is_dir():
                raise BadInputError(
                    f"{folder}: not found; another run has split the images of {line} since: start a new run"
                )
            paths |= {name: folder / file for name, file in ROLES.items()}
        known = {field.name for field in fields(cls)}
        assert given.keys() <= known, given.keys() - known  # noqa: S101 -- a component that misspells one
        return cls(line, **paths, **{name: Path(path) for name, path in given.items()})

    @property
    def in_pod(self) -> bool:
        """Whether pictures are in a store on storage that outlives this run."""
        return self.store != _NOT_GIVEN

    @property
    def pictures(self) -> Pictures:
        """Where the pictures of the manifest are.

        Raises:
            BadInputError: `place` cannot be read.
        """
        if not self.in_pod:
            return Snapshot(self.snapshot, self.line)
        root = str(read_json(self.place)["in_place"])
        return InPlace(Path(root), Store(self.store)) if root else Store(self.store)
