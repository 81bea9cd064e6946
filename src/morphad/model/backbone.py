"""Backbones: the convolutional network below the heads and its named feature maps."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from morphad.base.errors import BadInputError
from morphad.model.weights import HEADS, load_weights, packaged_lite0, read_weights

_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mean and deviation of R, G, B in grey levels
_PROBE_SIDE = 224  # px; what most pretrained networks expect


class _EnoughError(Exception):
    """The last wanted feature map is there; the rest of the network need not run."""


class _Capture:
    """Feature maps wanted from, and found in, one forward pass; wanting None means every module's output."""

    def __init__(self, wanted: frozenset[str] | None) -> None:
        self.wanted = wanted
        self.outputs: dict[str, Any] = {}
        self.versions: dict[str, int] = {}
        self.calls: Counter[str] = Counter()


# A context variable, so that threads that share a network do not see each other's feature maps.
_capture: ContextVar[_Capture | None] = ContextVar("_capture", default=None)


def _record(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    """Forward hook of every module below the root."""
    capture = _capture.get()
    if capture is None:
        return
    if capture.wanted is None:
        capture.calls[name] += 1
        if isinstance(output, Tensor) and output.ndim == 4:
            capture.outputs[name], capture.versions[name] = output, output._version
    elif name in capture.wanted:
        capture.outputs[name] = output
        # torch.export cannot be left halfway; it drops what is not used by itself.
        if len(capture.outputs) == len(capture.wanted) and not torch.compiler.is_exporting():
            raise _EnoughError


class Backbone(nn.Module):
    """A convolutional network with named feature maps and its own normalisation.

    Args:
        name: For messages.
        net: The network; its input is a normalised float batch [B, 3, H, W].
        mean: Per channel, in grey levels 0..255.
        deviation: Per channel, in grey levels.

    Attributes:
        layers: Channels and stride of every usable feature map, in the order of computation. Left out are modules
            that run more than once and outputs that a later module overwrites.
        last_layer: The deepest one that still has an extent.

    Raises:
        BadInputError: The network gives no feature maps [B, C, H, W].
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, net: nn.Module, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.name = name
        self.net = net.eval()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).reshape(1, -1, 1, 1), persistent=False)
        for path, module in net.named_modules():
            if path:
                module.register_forward_hook(partial(_record, path))
        self.layers = self._probe()
        if not self.layers:
            raise BadInputError(
                f"train.backbone = {name!r}: gives no feature maps [B, C, H, W]; choose a convolutional one"
            )
        self.last_layer = next(reversed(self.layers))
        self.train()

    @torch.no_grad()
    def _probe(self) -> dict[str, tuple[int, int]]:
        """Channels and stride of each usable feature map, seen in one forward pass of a black image."""
        capture = _Capture(None)
        token = _capture.set(capture)
        try:
            self.net(torch.zeros(1, 3, _PROBE_SIDE, _PROBE_SIDE))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            raise BadInputError(
                f"train.backbone = {self.name!r}: does not run on a {_PROBE_SIDE} x {_PROBE_SIDE} px image ({error}); "
                "choose another"
            ) from error
        finally:
            _capture.reset(token)
        return {
            name: (output.shape[1], round(_PROBE_SIDE / output.shape[-1]))
            for name, output in capture.outputs.items()
            if name.split(".")[0] not in HEADS
            and output.shape[-1] == output.shape[-2] > 1  # square as the input: not tokens, not pooled to a point
            and capture.calls[name] == 1
            and output._version == capture.versions[name]
        }

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
        """The network's input: (x - mean) / deviation, grey repeated to three channels.

        Args:
            x: [B, 1 or 3, H, W], uint8 or floating point, in grey levels 0..255 either way.

        Raises:
            ValueError: `x` has another shape.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"expected a batch [B, 1 or 3, H, W], got shape {tuple(x.shape)}")
        x = (x.to(self.mean.dtype) - self.mean) / self.deviation  # broadcasting repeats the grey channel
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
        capture = _Capture(frozenset(layers))
        token = _capture.set(capture)
        try:
            self.net(self.normalise(x))
        except _EnoughError:
            pass
        finally:
            _capture.reset(token)
        return {layer: capture.outputs[layer] for layer in layers}

    def forward(self, x: Tensor) -> Tensor:
        """Mean over the places of the last feature map: [B, C']."""
        return self.features(x, [self.last_layer])[self.last_layer].mean(dim=(2, 3))


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


def build_backbone(name: str, weights: str, initialise: bool = True) -> Backbone:
    """Build a backbone and load its weights.

    Args:
        name: "efficientnet_lite0", "resnet18", "small", "timm:NAME" or "torchvision:NAME".
        weights: "packaged" (EfficientNet-Lite0 only), "none" (random, from torch's global random state), or the path
            of a .safetensors, .pth or .pt file of tensors by the backbone's own names.
        initialise: False leaves the weights random, where the caller loads saved ones next.

    Raises:
        BadInputError: The name is unknown, or the weights are missing or do not fit.
    """
    net, (mean, deviation) = _build(name)
    if initialise and weights == "packaged":
        if name != "efficientnet_lite0":
            raise BadInputError(
                f"train.weights = 'packaged': there are none for {name!r}; set train.weights to none or a local file, "
                "or train.backbone to efficientnet_lite0"
            )
        file = packaged_lite0()
        load_weights(net, read_weights(file), file, in_order=True)
    elif initialise and weights != "none":
        load_weights(net, read_weights(Path(weights)), Path(weights))
    for head in HEADS:
        if isinstance(getattr(net, head, None), nn.Module):
            setattr(net, head, nn.Identity())
    return Backbone(name, net, mean, deviation)


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
            net = timm.create_model(model, pretrained=False)
            config: Any = net.pretrained_cfg
            return net, ([255 * m for m in config["mean"]], [255 * d for d in config["std"]])
        if library == "torchvision" and model:
            return _torchvision(model), _IMAGENET
    except (ValueError, RuntimeError) as error:
        raise BadInputError(f"train.backbone = {name!r}: {library} has no such model ({error})") from error
    raise BadInputError(
        f"train.backbone = {name!r}: expected efficientnet_lite0, resnet18, small, timm:NAME or torchvision:NAME"
    )


def _torchvision(model: str) -> nn.Module:
    create: Callable[..., nn.Module] = torchvision.models.get_model
    try:
        return create(model, weights=None, weights_backbone=None)
    except TypeError:  # classifiers have no backbone of their own
        return create(model, weights=None)
