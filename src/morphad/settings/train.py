"""Section `train`: network, task and score."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from morphad.settings.base import Settings
from morphad.settings.region import RegionSettings

Pixels = Annotated[int, Field(ge=1, le=64)]
_TiledSide = Annotated[int, Field(ge=64, le=32_768, multiple_of=32)]


class CaseSettings(Settings):
    """The table of morphological cases that the network learns to distinguish."""

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


class ScoreSettings(Settings):
    """How the trained network scores an image."""

    kind: Literal["transformation", "density"] = Field(
        default="density", description="transformation: how well cases are recognised; density: of patch features"
    )
    cases: int = Field(default=48, ge=1, description="transformation: how many cases of the table are used")
    layers: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="density: backbone layers; empty: the deepest of each stride from 4 to 20 px, or of a plain vision "
        "transformer those at half and three quarters of its depth",
    )
    views: tuple[str, ...] = Field(
        default=("identity",),
        min_length=1,
        strict=False,
        description="density: cases that images are seen through, a view each",
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


class ResolutionSettings(Settings):
    """How closely pictures are looked at: what is to be found, and how long that may take."""

    smallest_defect: float | None = Field(
        default=None,
        gt=0,
        description="side of the smallest defect that is to be found, in px of the pictures, or in mm with "
        "mm_per_pixel; pictures are also seen in tiles, so large that it covers a place of 8 px; null: without tiles",
    )
    mm_per_pixel: float | None = Field(
        default=None, gt=0, description="what a pixel of the pictures measures; then smallest_defect is in mm"
    )
    tiled_size: tuple[_TiledSide, _TiledSide] | None = Field(
        default=None,
        strict=False,
        description="height, width in px, multiples of 32, that pictures are resized to before they are cut into "
        "tiles; null: follows from smallest_defect",
    )
    budget_ms: float | None = Field(
        default=None,
        gt=0,
        description="longest time for a picture, measured before the training on the machine that trains; more is an "
        "error; null: any",
    )

    @model_validator(mode="after")
    def _a_scale_is_for_a_defect(self) -> Self:
        if self.mm_per_pixel is not None and self.smallest_defect is None:
            raise ValueError("`mm_per_pixel` without `smallest_defect` says nothing; give both, or leave it out")
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
    align: Literal["none", "shift", "similarity"] = Field(
        default="none",
        description="how the part is put in its place before all else: shift, by whole pixels, or similarity, turns "
        "and scales, too; a picture whose part is not found is rejected; pictures must be of one size",
    )
    region: RegionSettings | None = Field(default=None, description="what of a picture is inspected; null: all of it")
    image_size: tuple[Annotated[int, Field(ge=32, le=1024)], Annotated[int, Field(ge=32, le=1024)]] | None = Field(
        default=None,
        strict=False,
        description="height, width in px that every image, or the box around its region, is resized to; null: in the "
        "images' own shape, the shorter side 224 px, the longer one 1024 px at most",
    )
    resolution: ResolutionSettings = ResolutionSettings()
    colour: Literal["rgb", "grey"] = "rgb"
    backbone: str = Field(
        default="efficientnet_lite0", description="efficientnet_lite0, resnet18, small, or timm:NAME / torchvision:NAME"
    )
    weights: str = Field(
        default="packaged",
        min_length=1,
        description="packaged (EfficientNet-Lite0), none, or a local file; a network of another kind with weights from "
        "a file is not trained unless optimiser.steps says so",
    )
    weights_licence: str = Field(
        default="", max_length=300, description="of the file in weights, as its provider states it; for the model card"
    )
    frozen: tuple[str, ...] = Field(default=(), strict=False, description="backbone modules that are not trained")
    backbone_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="learning rate of the backbone as a share of the heads'"
    )
    embedding_layer: str = Field(default="", description="backbone layer pooled into the embedding; empty: the last")
    kernel_size_weight: float = Field(default=0.5, ge=0, description="weight of the kernel-size prediction loss")
    checkpoint_seconds: float = Field(
        default=60.0, ge=0, le=86_400, description="between two checkpoints of a training under way; 0: after each step"
    )
    cases: CaseSettings = CaseSettings()
    margin: MarginSettings = MarginSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    score: ScoreSettings = ScoreSettings()

    @model_validator(mode="after")
    def _tiles_have_densities(self) -> Self:
        asked = self.resolution.smallest_defect, self.resolution.tiled_size
        if self.score.kind != "density" and asked != (None, None):
            raise ValueError("`resolution` with tiles needs `score.kind` density; leave it out, or change that")
        return self

    @model_validator(mode="after")
    def _licence_is_of_a_file(self) -> Self:
        if self.weights_licence and self.weights in {"packaged", "none"}:
            raise ValueError(
                f"`weights_licence` is of a file, but `weights` is {self.weights}; name the file, or drop it"
            )
        return self
