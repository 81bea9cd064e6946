"""The network that learns to distinguish morphological cases: backbone, embedding, and a head per question."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from morphad.base.errors import BadInputError
from morphad.model.backbone import Backbone, build_backbone
from morphad.model.margin import make_margin_loss
from morphad.model.morphology import Case
from morphad.settings import TrainSettings

__all__ = ["EMBEDDING_DIM", "Backbone", "Losses", "MorphologyNetwork", "build_backbone"]

EMBEDDING_DIM = 256


class Losses(NamedTuple):
    """Scalar losses of one batch."""

    total: Tensor
    case: Tensor
    height: Tensor
    width: Tensor


class MorphologyNetwork(nn.Module):
    """Backbone, pooled embedding, margin head for the case, and linear heads for the structuring element's sides.

    A backbone that starts from given weights keeps its batch-normalisation statistics: a few steps on transformed
    images would pull them away from the untransformed images that it later scores, and an image's features must not
    depend on the batch it is in. From scratch the statistics are learned.

    Args:
        settings: Backbone, weights, frozen modules, margin, weight of the kernel-size loss.
        table: The cases to distinguish.
        seed: Of the random weights.
        initialise: False leaves given weights unread, where the caller loads a saved state next.

    Attributes:
        embedding_layer: The feature map that is pooled into the embedding.
        heights: The structuring-element heights in the table, px, ascending: the classes of the height head.
        widths: The same for widths.

    Raises:
        BadInputError: Backbone, weights, embedding layer or frozen module do not exist or fit.
    """

    height_of_case: Tensor
    width_of_case: Tensor

    def __init__(self, settings: TrainSettings, table: Sequence[Case], seed: int = 0, initialise: bool = True) -> None:
        super().__init__()
        self.heights = tuple(sorted({case.height for case in table}))
        self.widths = tuple(sorted({case.width for case in table}))
        self.kernel_size_weight = settings.kernel_size_weight
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.backbone = build_backbone(settings.backbone, settings.weights, initialise, settings.weights_licence)
            self.embedding_layer = settings.embedding_layer or self.backbone.last_layer
            self.backbone.check_layers([self.embedding_layer], "train.embedding_layer")
            channels, _ = self.backbone.layers[self.embedding_layer]
            # A projection without activation: embeddings may then point anywhere on the sphere.
            self.projection = nn.Linear(channels, EMBEDDING_DIM)
            self.case_head = make_margin_loss(settings.margin, EMBEDDING_DIM, len(table))
            self.height_head = nn.Linear(EMBEDDING_DIM, len(self.heights))
            self.width_head = nn.Linear(EMBEDDING_DIM, len(self.widths))
        for name, sizes, sides in (
            ("height_of_case", self.heights, [case.height for case in table]),
            ("width_of_case", self.widths, [case.width for case in table]),
        ):
            self.register_buffer(name, torch.tensor([sizes.index(side) for side in sides]), persistent=False)
        self._still = self._freeze(settings)
        self.train()

    def _freeze(self, settings: TrainSettings) -> list[nn.Module]:
        """Stop gradients of the frozen modules; return the batch normalisations whose statistics stay."""
        modules = dict(self.backbone.net.named_modules())
        still: dict[str, nn.Module] = {}
        if settings.weights != "none":
            still |= {name: module for name, module in modules.items() if isinstance(module, _BatchNorm)}
        for prefix in settings.frozen:
            if prefix not in modules or not prefix:
                shallow = [name for name in modules if name and name.count(".") <= 1]
                raise BadInputError(
                    f"train.frozen: {settings.backbone} has no module {prefix!r}; it has {', '.join(shallow[:60])}"
                )
            modules[prefix].requires_grad_(False)
            for name, module in modules[prefix].named_modules(prefix=prefix):
                if isinstance(module, _BatchNorm):
                    still[name] = module
        return list(still.values())

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; statistics that stay, stay."""
        super().train(mode)
        for module in getattr(self, "_still", ()):
            module.eval()
        return self

    def features(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Feature maps by name, see `Backbone.features`; x is [B, 1 or 3, H, W] in grey levels 0..255."""
        return self.backbone.features(x, layers)

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings [B, EMBEDDING_DIM], float32 even under autocast, of x [B, 1 or 3, H, W] in grey levels 0..255."""
        pooled = self.backbone.features(x, [self.embedding_layer])[self.embedding_layer]
        with torch.autocast(x.device.type, enabled=False):
            pooled = pooled.to(self.projection.weight.dtype).mean(dim=(2, 3))
            embedding: Tensor = self.projection(pooled)
        return embedding

    def embed_places(self, x: Tensor) -> Tensor:
        """Embedding of each place of the embedding layer, [B, EMBEDDING_DIM, h, w] float32; their mean is `embed`."""
        places = self.backbone.features(x, [self.embedding_layer])[self.embedding_layer]
        with torch.autocast(x.device.type, enabled=False):
            embedded: Tensor = self.projection(places.to(self.projection.weight.dtype).movedim(1, -1))
        return embedded.movedim(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The same as `embed`."""
        return self.embed(x)

    def case_cosines(self, embedding: Tensor) -> Tensor:
        """Cosine of each embedding to each case, without margin: [B, EMBEDDING_DIM] -> [B, K] in -1..1."""
        return self.case_head.cosines(embedding)

    def size_logits(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Logits over `heights` and over `widths`: [B, EMBEDDING_DIM] -> [B, heights], [B, widths]."""
        with torch.autocast(embedding.device.type, enabled=False):
            return self.height_head(embedding), self.width_head(embedding)

    def losses(self, x: Tensor, case_indices: Tensor, progress: float = 1.0) -> Losses:
        """Case loss plus `kernel_size_weight` times the mean of the height and width losses.

        Args:
            x: [B, 1 or 3, H, W], already transformed, in grey levels 0..255.
            case_indices: [B], the case that was applied to each image.
            progress: Share of the training that is done, 0..1, for the margin's warm-up.
        """
        embedding = self.embed(x)
        case = self.case_head(embedding, case_indices, progress)
        height_logits, width_logits = self.size_logits(embedding)
        height = functional.cross_entropy(height_logits, self.height_of_case[case_indices])
        width = functional.cross_entropy(width_logits, self.width_of_case[case_indices])
        return Losses(case + self.kernel_size_weight * (height + width) / 2, case, height, width)
