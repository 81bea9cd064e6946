"""Backbones: the network below the heads, convolutional or a transformer, and its named feature maps."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from morphad.base.errors import BadInputError
from morphad.base.files import sha256_file
from morphad.model.feature_maps import CANNOT, ModuleMaps, OwnMaps, feature_maps
from morphad.model.weights import HEADS, WeightsOrigin, load_weights, packaged_lite0, read_weights

_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mean and deviation of R, G, B in grey levels


class Backbone(nn.Module):
    """A network with named feature maps and its own normalisation.

    A transformer sees whole patches only: where height or width is not a multiple of its coarsest stride, the batch is
    resized to the nearest one first. Its maps still cover the whole image.

    Args:
        name: For messages.
        net: The network; its input is a normalised float batch [B, 3, H, W].
        mean: Per channel, in grey levels 0..255.
        deviation: Per channel, in grey levels.

    Attributes:
        layers: Channels and stride of every usable feature map, in the order of computation.
        last_layer: The deepest one that still has an extent.
        scored_layers: Those that are scored where the settings name none. Of each stride from 4 to 20 px the deepest
            one; where all have one stride, as in a plain vision transformer, those at half and three quarters of its
            depth; else the last.
        origin: Of the weights that it started with; None: random.

    Raises:
        BadInputError: The network gives no feature maps.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, net: nn.Module, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.name = name
        self.net = net.eval()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).reshape(1, -1, 1, 1), persistent=False)
        self._maps = self._probed(name)
        self.layers = self._maps.layers
        self.last_layer = next(reversed(self.layers))
        self.scored_layers = _scored_layers(self.layers)
        self.origin: WeightsOrigin | None = None
        self.train()

    def _probed(self, name: str) -> ModuleMaps | OwnMaps:
        try:
            maps = feature_maps(self.net)
        except CANNOT as error:
            raise BadInputError(
                f"train.backbone = {name!r}: does not run on a 224 x 224 px image ({error}); choose another"
            ) from error
        if not maps.layers:
            raise BadInputError(
                f"train.backbone = {name!r}: gives no feature maps, only tokens or whole vectors; choose one of timm "
                "that lays out its tokens (forward_intermediates), such as timm:vit_small_patch14_dinov2 or "
                "timm:swin_tiny_patch4_window7_224, or a convolutional one"
            )
        return maps

    @torch.no_grad()
    def check_size(self, height: int, width: int, remedy: str = "") -> None:
        """See that the network runs on images of this size, px, before much is done with it.

        Args:
            height: Of the images.
            width: Of the images.
            remedy: What to do where it does not; "": give images another size.

        Raises:
            BadInputError: It does not; some transformers see one size only.
        """
        training = self.training
        self.eval()
        try:
            self.features(self.mean.new_zeros(1, 3, height, width), [self.last_layer])
        except torch.OutOfMemoryError:
            raise
        except CANNOT as error:
            remedy = remedy or f"set train.image_size to [{self._maps.side}, {self._maps.side}], which it does run on"
            raise BadInputError(
                f"train.backbone = {self.name!r}: does not run on images of {height} x {width} px ({error}); {remedy}, "
                "or choose another"
            ) from error
        finally:
            self.train(training)

    def check_layers(self, layers: Sequence[str], key: str = "train.score.layers") -> None:
        """Check names of feature maps.

        Raises:
            BadInputError: A name is unknown or none is given; the message lists those there are.
        """
        unknown = [layer for layer in layers if layer not in self.layers]
        if unknown or not layers:
            what = f"{self.name} has no layer {unknown[0]!r}" if unknown else "at least one layer is needed"
            shallow = [name for name in self.layers if name.count(".") <= 1]
            raise BadInputError(
                f"{key} = {list(layers)!r}: {what}; {self.name} has {', '.join(shallow)} and layers inside"
            )

    def normalise(self, x: Tensor) -> Tensor:
        """The network's input: (x - mean) / deviation, grey repeated to three channels, in a size of whole patches.

        Args:
            x: [B, 1 or 3, H, W], uint8 or floating point, in grey levels 0..255 either way.

        Raises:
            ValueError: `x` has another shape.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"expected a batch [B, 1 or 3, H, W], got shape {tuple(x.shape)}")
        x = (x.to(self.mean.dtype) - self.mean) / self.deviation  # broadcasting repeats the grey channel
        size = [max(1, round(side / self._maps.multiple)) * self._maps.multiple for side in x.shape[-2:]]
        if size != list(x.shape[-2:]):
            x = functional.interpolate(x, size, mode="bilinear", align_corners=False)
        return x.contiguous(memory_format=torch.channels_last)

    def features(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Feature maps by name; what lies beyond the last wanted one is not computed.

        Args:
            x: As in `normalise`.
            layers: Names among `self.layers`.

        Returns:
            For each name, in the order asked for, [B, C', H', W'].

        Raises:
            BadInputError: A name is unknown.
        """
        self.check_layers(layers)
        return self._maps(self.normalise(x), layers)

    def forward(self, x: Tensor) -> Tensor:
        """Mean over the places of the last feature map: [B, C']."""
        return self.features(x, [self.last_layer])[self.last_layer].mean(dim=(2, 3))


def _scored_layers(layers: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """See `Backbone.scored_layers`; modules deep inside of others do not count."""
    strides = {name: stride for name, (_, stride) in layers.items() if name.count(".") <= 1}
    deepest = {stride: name for name, stride in strides.items()}
    if len(deepest) == 1 and len(strides) >= 4:
        names = list(strides)
        return names[len(names) // 2 - 1], names[3 * len(names) // 4 - 1]
    return tuple(deepest[stride] for stride in sorted(deepest) if 4 <= stride <= 20) or (list(layers)[-1],)


class SmallNet(nn.Module):
    """Three residual stages of stride 2, 4 and 8, 0.29 million parameters, for training from scratch."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = _Stage(3, 32)
        self.stage2 = _Stage(32, 64)
        self.stage3 = _Stage(64, 128)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 128, H / 8, W / 8]."""
        features: Tensor = self.stage3(self.stage2(self.stage1(x)))
        return features


class _Stage(nn.Module):
    """Halves the side, then refines."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.refine = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / 2, W / 2]."""
        x = torch.relu(self.norm1(self.reduce(x)))
        return torch.relu(x + self.norm2(self.refine(x)))


def build_backbone(name: str, weights: str, initialise: bool = True, licence: str = "") -> Backbone:
    """Build a backbone and load its weights.

    Args:
        name: "efficientnet_lite0", "resnet18", "small", "timm:NAME" or "torchvision:NAME".
        weights: "packaged" (EfficientNet-Lite0 only), "none" (random, from torch's global random state), or the path
            of a .safetensors, .pth or .pt file of tensors by the backbone's own names.
        initialise: False leaves the weights random, where the caller loads saved ones next.
        licence: Of the file, as its provider states it; "": not stated.

    Raises:
        BadInputError: The name is unknown, or the weights are missing or do not fit.
    """
    net, (mean, deviation) = _build(name)
    origin = None
    if initialise and weights == "packaged":
        if name != "efficientnet_lite0":
            raise BadInputError(
                f"train.weights = 'packaged': there are none for {name!r}; set train.weights to none or a local file, "
                "or train.backbone to efficientnet_lite0"
            )
        file, origin = packaged_lite0()
        load_weights(net, read_weights(file), file, in_order=True)
    elif initialise and weights != "none":
        file = Path(weights)
        load_weights(net, read_weights(file), file)
        origin = WeightsOrigin(file.name, sha256_file(file), licence)
    _remove_head(net)
    backbone = Backbone(name, net, mean, deviation)
    backbone.origin = origin
    return backbone


def _build(name: str) -> tuple[nn.Module, tuple[Sequence[float], Sequence[float]]]:
    """The network with random weights, and mean and deviation in grey levels."""
    library, _, model = name.partition(":")
    try:
        if name == "efficientnet_lite0":
            return timm.create_model("tf_efficientnet_lite0", pretrained=False), ([127.0] * 3, [128.0] * 3)
        if name == "resnet18":
            return torchvision.models.resnet18(weights=None), _IMAGENET
        if name == "small":
            return SmallNet(), _IMAGENET
        if library == "timm" and model:
            if not timm.is_model(model):  # a hub's name, too, which timm would download
                raise ValueError(f"unknown: {model}; see timm.list_models()")
            net = _timm(model)
            config: Any = net.pretrained_cfg
            return net, ([255 * m for m in config["mean"]], [255 * d for d in config["std"]])
        if library == "torchvision" and model:
            return _torchvision(model), _IMAGENET
    except (ValueError, RuntimeError) as error:
        raise BadInputError(f"train.backbone = {name!r}: {library} has no such model ({error})") from error
    raise BadInputError(
        f"train.backbone = {name!r}: expected efficientnet_lite0, resnet18, small, timm:NAME or torchvision:NAME"
    )


def _remove_head(net: Any) -> None:
    """Leave out the classifier, in timm's own way where the network is timm's."""
    if hasattr(net, "reset_classifier"):
        net.reset_classifier(0)
        return
    for head in HEADS:
        if isinstance(getattr(net, head, None), nn.Module):
            setattr(net, head, nn.Identity())


def _timm(model: str) -> Any:
    try:
        # Transformers otherwise see the size alone that they were trained on.
        return timm.create_model(model, pretrained=False, dynamic_img_size=True)
    except TypeError:  # others see any size by themselves, or one alone
        return timm.create_model(model, pretrained=False)


def _torchvision(model: str) -> nn.Module:
    create: Callable[..., nn.Module] = torchvision.models.get_model
    try:
        return create(model, weights=None, weights_backbone=None)
    except TypeError:  # classifiers have no backbone of their own
        return create(model, weights=None)
