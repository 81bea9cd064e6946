"""Section `ingest`: where a line's images come from, and how they become pixels."""

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from morphad.settings.base import Settings

Megapixels = Annotated[float, Field(gt=0, le=1000, description="a larger image is refused as a bomb")]


WhiteLevel = Annotated[int, Field(ge=255, le=65535, description="the 16-bit value shown as white (255)")]


class Decoding(Settings):
    """How image files become pixels: the rules that a detector is trained with and keeps for life."""

    max_megapixels: Megapixels = 100.0
    white_level: WhiteLevel = 65535


MetadataField = Literal["label", "defect", "group", "lot", "shift", "camera", "acquired"]


METADATA_FIELDS: tuple[str, ...] = get_args(MetadataField)


class MetadataSettings(Settings):
    """What is known of an image beside its pixels, and where it is written; a field is read from one place only."""

    pattern: str = Field(
        default="",
        description="regular expression over the path below ingest.path; its named groups give fields, such as "
        r"(?P<lot>L\d+)/(?P<shift>[ABC])/",
    )
    sidecar: dict[MetadataField, str] = Field(
        default={}, description="fields in NAME.json beside NAME.png: field to key, dots for nested keys"
    )
    tags: dict[MetadataField, str] = Field(
        default={}, description="fields in an object's tags (source s3): field to tag; one request an image, every time"
    )
    labels: dict[str, Literal["good", "defect"]] = Field(
        default={}, description="the words that label may hold beside good and defect, such as {OK: good, NOK: defect}"
    )

    @model_validator(mode="after")
    def _fields_are_known_and_read_once(self) -> Self:
        try:
            groups = set(re.compile(self.pattern).groupindex)
        except re.error as error:
            raise ValueError(f"`pattern` is no regular expression: {error}") from error
        if unknown := groups - set(METADATA_FIELDS):
            raise ValueError(f"`pattern` has the group {min(unknown)}; allowed: {', '.join(METADATA_FIELDS)}")
        if self.pattern and not groups:
            raise ValueError(f"`pattern` has no named group, such as (?P<lot>...); named: {', '.join(METADATA_FIELDS)}")
        places = [*groups, *self.sidecar, *self.tags]
        if twice := sorted({field for field in places if places.count(field) > 1}):
            raise ValueError(f"{twice[0]} is read from two of `pattern`, `sidecar` and `tags`; keep one")
        return self

    @property
    def fields(self) -> frozenset[str]:
        """The fields that are read."""
        return frozenset([*re.compile(self.pattern).groupindex, *self.sidecar, *self.tags])


class IngestSettings(Settings):
    """Where a line's images come from and which of them can be refused."""

    source: Literal["folder", "s3", "listing", "demo"] = Field(
        default="folder",
        description="folder or s3 (MVTec AD layout, good/ and defect/, flat, or by metadata), listing (CSV or "
        "parquet), demo (packaged)",
    )
    path: str = Field(
        min_length=1, description="the folder, s3://bucket/prefix, the listing, or the demo line (mono, poly)"
    )
    metadata: MetadataSettings = MetadataSettings()
    licence: str = Field(default="", description="the images' licence, shown on ingest and on the page")
    limit: int | None = Field(
        default=None, ge=1, description="at most this many images of each defect kind and of good"
    )
    max_rejects: int = Field(default=0, ge=0, description="unreadable files that are left out before the step fails")
    max_megapixels: Megapixels = 100.0
    max_megabytes: float = Field(default=256.0, gt=0, le=4096, description="a larger file is refused before it is read")
    white_level: WhiteLevel = 65535
    transfers: int = Field(default=16, ge=1, le=256, description="s3: objects fetched at a time")
    verdicts: str = Field(
        default="", description="operators' verdicts on images of the line: a CSV or JSON file, or s3://bucket/key"
    )
    patience_seconds: int = Field(
        default=60, ge=0, le=3600, description="s3: how long a server may be silent or throttle before the step fails"
    )

    in_place: bool = Field(
        default=False,
        description="Kubeflow, source folder or listing: steps read the images where they lie, such as on a read-only "
        "claim; nothing is copied. `dvc repro` copies always",
    )
    keep_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="Kubeflow: days after the last run that used them until images are removed from the state's "
        "volume; what the champion, a version to go back to, or the holdout needs stays",
    )

    @property
    def decoding(self) -> Decoding:
        """How a detector that is trained now decodes, for life."""
        return Decoding(max_megapixels=self.max_megapixels, white_level=self.white_level)

    @model_validator(mode="after")
    def _fits_the_source(self) -> Self:
        if self.source == "s3" and not re.fullmatch(r"s3://[^/\s]+(/.*)?", self.path):
            raise ValueError(f"`path` {self.path!r} of source s3 must be s3://bucket/prefix")
        if self.source != "s3" and self.path.startswith("s3://"):
            raise ValueError(f"`path` {self.path!r} is in a bucket: set `source: s3`")
        if self.in_place and self.source not in {"folder", "listing"}:
            raise ValueError(f"`in_place` is for the sources folder and listing, not {self.source}")
        if self.metadata.tags and self.source != "s3":
            raise ValueError("`metadata.tags` are of objects in a bucket (source s3)")
        if self.metadata.fields and self.source not in {"s3", "folder"}:
            raise ValueError(f"`metadata` is for the sources folder and s3, not {self.source}")
        return self
