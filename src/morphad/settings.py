"""The sections of params.yaml as frozen, checked settings, one a step; `morphad.params` reads them."""

import re
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from morphad.base.errors import BadInputError
from morphad.checks import CHECKS, Statistic, Weight

Fraction = Annotated[float, Field(gt=0, lt=1)]
Pixels = Annotated[int, Field(ge=1, le=64)]
Share = Annotated[float, Field(ge=0, lt=1)]
Megapixels = Annotated[float, Field(gt=0, le=1000, description="a larger image is refused as a bomb")]
WhiteLevel = Annotated[int, Field(ge=255, le=65535, description="the 16-bit value shown as white (255)")]


def _in_order(limits: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    low, high = limits
    if low is None and high is None:
        raise ValueError("give a number for the lowest, the highest or both")
    if low is not None and high is not None and low > high:
        raise ValueError(f"the lowest, {low:g}, is above the highest, {high:g}")
    return limits


Range = Annotated[tuple[float | None, float | None], Field(strict=False), AfterValidator(_in_order)]

LINE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Settings(BaseModel):
    """Base of every section: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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
        description="folder or s3 (MVTec AD layout, flat, or by metadata), listing (CSV or parquet), demo (packaged)",
    )
    path: str = Field(
        min_length=1, description="the folder, s3://bucket/prefix, the listing, or the demo line (mono, poly)"
    )
    metadata: MetadataSettings = MetadataSettings()
    licence: str = Field(default="", description="what is told of the images' licence on ingest and on the page")
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
        if self.metadata.tags and self.source != "s3":
            raise ValueError("`metadata.tags` are of objects in a bucket (source s3)")
        if self.metadata.fields and self.source not in {"s3", "folder"}:
            raise ValueError(f"`metadata` is for the sources folder and s3, not {self.source}")
        return self


class RoleMinimums(Settings):
    """Good images that each role needs at least."""

    train: int = Field(default=10, ge=1)
    calibration: int = Field(default=5, ge=1)
    holdout: int = Field(default=5, ge=1)


class ValidateSettings(Settings):
    """Limits of the data contract over a manifest."""

    min_good: int = Field(default=20, ge=1, description="good images below which no model is trained")
    min_role: RoleMinimums = RoleMinimums()
    defect_kinds: tuple[str, ...] = Field(
        default=(), strict=False, description="kinds of defect that there may be; empty: any, or those of the reference"
    )
    limits: dict[Statistic, Range] = Field(
        default={}, description="[lowest, highest] of a statistic, null for none; in place of those from the reference"
    )
    fence: float = Field(
        default=3.0, ge=1, le=100, description="interquartile ranges beyond the quartiles at which limits lie"
    )
    max_outliers: Share = Field(default=0.05, description="share of good images that may lie outside a limit")
    max_duplicates: Fraction = Field(default=0.2, description="share of good images that may be copies of others")
    max_near_duplicates: Share = Field(default=0.05, description="share of good images that may be near copies")
    near_duplicate_bits: int = Field(default=6, ge=0, le=64, description="as in split.near_duplicate_bits")
    drift_false_alarm: Fraction = Field(
        default=0.01, description="chance that images like the reference count as drifted, all statistics together"
    )
    drift_effect: Fraction = Field(default=0.1, description="share of the images by which a distribution must differ")
    camera_effect: Fraction = Field(
        default=0.2, description="as drift_effect, for what the pictures show and where: the camera check"
    )
    severity: dict[str, Weight] = Field(default={}, description="error, warning or off, by name of the check")

    @model_validator(mode="after")
    def _checks_are_known(self) -> Self:
        for name in self.severity:
            if name not in CHECKS:
                near = get_close_matches(name, CHECKS, n=3, cutoff=0.4)
                meant = f"did you mean {' or '.join(near)}?" if near else f"they are {', '.join(CHECKS)}"
                raise ValueError(f"`severity` has no check {name!r}; {meant}")
        return self


class SplitSettings(Settings):
    """Shares of the good images by role; defect images all belong to the holdout."""

    calibration: Fraction = Field(default=0.25, description="share of the good images that calibrate the threshold")
    holdout: Fraction = Field(default=0.2, description="share of the good images that are frozen for evaluation")
    by: Literal["auto", "group", "lot", "shift", "camera", "day"] = Field(
        default="auto",
        description="images of one such session keep together; auto: of one lot, else shift, where known",
    )
    near_duplicate_bits: int = Field(
        default=6, ge=0, le=64, description="differing bits of 256 in a perceptual hash; 0: only equal bytes are copies"
    )
    renew_holdout: bool = Field(default=False, description="draw a new holdout; figures are not comparable after it")

    @model_validator(mode="after")
    def _some_remain_for_training(self) -> Self:
        if self.calibration + self.holdout >= 0.9:
            raise ValueError(
                f"`calibration` {self.calibration} + `holdout` {self.holdout} must be below 0.9: more than 0.1 of the "
                "good images is for training"
            )
        return self


class CaseSettings(Settings):
    """The table of morphological cases that the network learns to tell apart."""

    operators: tuple[
        Literal["erosion", "dilation", "gradient", "opening", "closing", "white_tophat", "black_tophat"], ...
    ] = Field(default=("erosion", "dilation", "gradient"), min_length=1, strict=False)
    heights: tuple[Pixels, ...] = Field(default=(1, 2, 3, 4, 5, 6, 7), min_length=1, strict=False)
    widths: tuple[Pixels, ...] = Field(default=(1, 2, 3, 4, 5, 6, 7), min_length=1, strict=False)
    square: bool = Field(default=False, description="only h = w instead of every h x w")


class MarginSettings(Settings):
    """The angular-margin loss: logit = scale * (cos(m1 * theta + m2) - m3) for the true class."""

    kind: Literal["additive_angular", "additive_cosine", "multiplicative", "softmax"] = "additive_angular"
    scale: float = Field(default=16.0, gt=0, le=256)
    margin: float = Field(default=0.2, ge=0, le=4, description="rad (angular), cosine units, or a factor >= 1")
    warmup: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.2, description="share of the steps over which the margin grows to its full value"
    )

    @model_validator(mode="after")
    def _margin_fits_kind(self) -> Self:
        if self.kind == "multiplicative" and self.margin < 1:
            raise ValueError(f"`margin` {self.margin} of a multiplicative margin is a factor and must be >= 1")
        if self.kind == "additive_angular" and self.margin >= 3.1:
            raise ValueError(f"`margin` {self.margin} of an additive angular margin is in rad and must be below 3.1")
        if self.kind == "additive_cosine" and self.margin >= 2:
            raise ValueError(f"`margin` {self.margin} of an additive cosine margin must be below 2")
        return self


class OptimiserSettings(Settings):
    """How the network is trained."""

    steps: int = Field(default=150, ge=0, le=1_000_000)
    batch_size: int = Field(default=32, ge=2, le=4096)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    warmup_steps: int = Field(default=20, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto: bfloat16 where the device is fast with it, else float32"
    )
    checkpoint_every: int = Field(default=50, ge=1, description="steps between checkpoints")


class ScoreSettings(Settings):
    """How the trained network scores an image."""

    kind: Literal["transformation", "density"] = Field(
        default="density", description="transformation: how well cases are recognised; density: of patch features"
    )
    cases: int = Field(default=48, ge=1, description="transformation: how many cases of the table are used")
    layers: tuple[str, ...] = Field(default=("blocks.1", "blocks.2", "blocks.4"), min_length=1, strict=False)
    looks: tuple[str, ...] = Field(
        default=("identity",),
        min_length=1,
        strict=False,
        description="density: cases that images are looked at through",
    )
    densities: tuple[Literal["gaussian", "subspace", "memory"], ...] = Field(
        default=("gaussian", "subspace", "memory"),
        min_length=1,
        strict=False,
        description="density: a Gaussian a position, principal components of whole images, a memory of patches",
    )
    channels: int = Field(default=176, ge=1, description="gaussian: random channels kept per position")
    memory: int = Field(default=2000, ge=1, description="memory: patches kept by each of its two, chosen by coverage")
    neighbours: int = Field(default=1, ge=1, description="memory: neighbours averaged in a distance")

    @model_validator(mode="after")
    def _memory_holds_the_neighbours(self) -> Self:
        if self.neighbours > self.memory:
            raise ValueError(f"`neighbours` {self.neighbours} must be at most `memory` {self.memory}")
        return self


def _processes(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 64):
        return value
    raise ValueError("expected a whole number of 1 to 64, or auto")


class TrainSettings(Settings):
    """Network, self-supervised task and score of one line."""

    preset: Literal["default", "fast", "paper"] = Field(
        default="default",
        description="values that the other keys override; fast: as default, in one forward pass an image",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: CUDA where it works, else the CPU, with a warning where a GPU was expected"
    )
    processes: Annotated[int | Literal["auto"], BeforeValidator(_processes)] = Field(
        default=1,
        description="that share each batch, a GPU each or all on the CPU; auto: one for each visible GPU",
    )
    image_size: tuple[Annotated[int, Field(ge=32, le=1024)], Annotated[int, Field(ge=32, le=1024)]] = Field(
        default=(224, 224), strict=False, description="height, width in px that every image is resized to"
    )
    colour: Literal["rgb", "grey"] = "rgb"
    backbone: str = Field(
        default="efficientnet_lite0", description="efficientnet_lite0, resnet18, small, or timm:NAME / torchvision:NAME"
    )
    weights: str = Field(default="packaged", description="packaged (EfficientNet-Lite0), none, or a local file")
    frozen: tuple[str, ...] = Field(default=(), strict=False, description="backbone modules that are not trained")
    backbone_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="learning rate of the backbone as a share of the heads'"
    )
    embedding_layer: str = Field(default="", description="backbone layer pooled into the embedding; empty: the last")
    kernel_size_weight: float = Field(default=0.5, ge=0, description="weight of the kernel-size prediction loss")
    cases: CaseSettings = CaseSettings()
    margin: MarginSettings = MarginSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    score: ScoreSettings = ScoreSettings()


class CostSettings(Settings):
    """Prices for the operating point by cost; all three or none."""

    overkill: float = Field(gt=0, description="price of one rejected good part")
    escape: float = Field(gt=0, description="price of one accepted defect part")
    defect_rate: Fraction = Field(description="expected share of defect parts on the line")


class CalibrateSettings(Settings):
    """The threshold's guarantee."""

    false_reject_rate: Fraction = Field(default=0.05, description="good parts rejected at most, guaranteed on average")
    confidence: Fraction = Field(default=0.95, description="of the upper bound on the false-reject rate")


class EvaluateSettings(Settings):
    """What is measured on the holdout."""

    bootstrap: int = Field(default=1000, ge=100, le=100_000, description="resamples behind every interval")
    confidence: Fraction = 0.95
    parts_per_shift: int = Field(default=5000, ge=1)
    defect_rate: Fraction = Field(default=0.01, description="expected share of defect parts, for parts per shift")
    cost: CostSettings | None = Field(default=None, description="prices for the operating point by cost")


class RegisterSettings(Settings):
    """Where runs and versions are recorded; MLFLOW_TRACKING_URI in the environment wins."""

    tracking_uri: str = "sqlite:///mlflow.db"
    experiment: str = Field(default="morphad", min_length=1)
    timeout_seconds: int = Field(default=30, ge=1, le=600)
    retries: int = Field(default=2, ge=0, le=10)


class PromoteSettings(Settings):
    """The gate: limits for every challenger, and by how much it may seem worse than the champion."""

    mode: Literal["automatic", "four-eyes"] = Field(
        default="automatic",
        description="automatic: what passes the gate serves; four-eyes: it waits for `morphad approve`",
    )
    auroc_margin: Annotated[float, Field(ge=0, le=0.5)] = Field(default=0.02, description="non-inferiority margin")
    overkill_margin: Annotated[float, Field(ge=0, le=0.5)] = Field(default=0.05, description="non-inferiority margin")
    escape_margin: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="non-inferiority margin; by kind of defect, by how much more may seem to be missed"
    )
    min_auroc: Annotated[float, Field(ge=0, le=1)] = Field(default=0.7, description="floor")
    max_overkill: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="ceiling of the share of good holdout images that are rejected"
    )
    max_escape: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.8, description="ceiling of the share of defects that are missed; each line sets its own"
    )
    confidence: Fraction = Field(default=0.95, description="one-sided, of each bound")
    bootstrap: int = Field(default=2000, ge=100, le=100_000)


class LineSettings(Settings):
    """All settings of one line, section by section."""

    ingest: IngestSettings
    validate_: ValidateSettings = Field(default=ValidateSettings(), alias="validate")
    split: SplitSettings = SplitSettings()
    train: TrainSettings = TrainSettings()
    calibrate: CalibrateSettings = CalibrateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    register_: RegisterSettings = Field(default=RegisterSettings(), alias="register")
    promote: PromoteSettings = PromoteSettings()


class DataSettings(Settings):
    """Where versions of the lines' data are kept; `morphad data` takes both as options and from the environment too."""

    registry: str | None = Field(
        default=None, min_length=1, description="git repository that records the versions: a URL or a path"
    )
    remote: str | None = Field(
        default=None, min_length=1, description="where a new registry keeps the bytes: s3://BUCKET/PREFIX or a folder"
    )


class ProjectSettings(Settings):
    """What params.yaml holds, resolved: the seed, where data versions are kept, and every line's settings."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    data: DataSettings = DataSettings()
    lines: dict[str, LineSettings]

    def line(self, name: str) -> LineSettings:
        """The settings of one line.

        Raises:
            BadInputError: params.yaml has no such line.
        """
        if name not in self.lines:
            raise BadInputError(f"no line {name!r} in the settings; the lines are: {', '.join(sorted(self.lines))}")
        return self.lines[name]
