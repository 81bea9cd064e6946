"""Feature maps of a network by name: seen at its modules, or as the network itself gives them."""

from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from morphad.model.weights import HEADS

_SIDE = 224  # px; what most pretrained networks expect
# What networks raise that cannot see an image of some size, or have no maps of some kind.
CANNOT = (RuntimeError, AssertionError, ValueError, TypeError, LookupError, AttributeError)


class _EnoughError(Exception):
    """The last wanted feature map is there; the rest of the network need not run."""


class _Capture:
    """Outputs wanted from, and found in, one forward pass; wanting None means every module's output."""

    def __init__(self, wanted: frozenset[str] | None) -> None:
        self.wanted = wanted
        self.outputs: dict[str, Any] = {}
        self.versions: dict[str, int] = {}
        self.calls: Counter[str] = Counter()
        self.tokens = 0


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
        elif isinstance(output, Tensor) and output.ndim == 3 and len(output) == 1:
            capture.tokens += 1
    elif name in capture.wanted:
        capture.outputs[name] = output
        # torch.export cannot be left halfway; it drops what is not used by itself.
        if len(capture.outputs) == len(capture.wanted) and not torch.compiler.is_exporting():
            raise _EnoughError


class ModuleMaps:
    """Outputs of modules that are maps, channels first or last, caught as the network runs.

    Left out are modules that run more than once and outputs that a later module overwrites. A network most of whose
    modules give tokens [B, N, C] has none: all that is left are those before its first block.

    Args:
        net: The network; its modules get hooks that do nothing outside of a call.
        side: Of a square image that it runs on, px.

    Attributes:
        layers: Channels and stride of every usable map by the module's name, in the order of computation.
        channels_last: Names of those whose modules give [B, h, w, C].
        multiple: Of which the sides of its input have to be, px.
        side: As above.
    """

    multiple = 1

    def __init__(self, net: nn.Module, side: int) -> None:
        self._net, self.side = net, side
        for path, module in net.named_modules():
            if path:
                module.register_forward_hook(partial(_record, path))
        maps = self._probe()
        self.channels_last = {name for name, output in maps.items() if not _is_square(output)}
        self.layers = {name: _facts(self._channels_first(name, output), side) for name, output in maps.items()}

    @torch.no_grad()
    def _probe(self) -> dict[str, Tensor]:
        """Every usable map of a black image."""
        capture = self._run(torch.zeros(1, 3, self.side, self.side), None)
        maps = {
            name: output
            for name, output in capture.outputs.items()
            if name.split(".")[0] not in HEADS
            and len(output) == 1  # not windows
            and (_is_square(output) or _is_square(output.movedim(-1, 1)))  # not tokens, not pooled to a point
            and capture.calls[name] == 1
            and output._version == capture.versions[name]
        }
        return maps if len(maps) > capture.tokens else {}

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] of a normalised batch; what lies beyond the last wanted one is not computed."""
        outputs = self._run(x, frozenset(layers)).outputs
        return {layer: self._channels_first(layer, outputs[layer]) for layer in layers}

    def _run(self, x: Tensor, wanted: frozenset[str] | None) -> _Capture:
        capture = _Capture(wanted)
        token = _capture.set(capture)
        try:
            self._net(x)
        except _EnoughError:
            pass
        finally:
            _capture.reset(token)
        return capture

    def _channels_first(self, name: str, output: Tensor) -> Tensor:
        return output.movedim(-1, 1) if name in self.channels_last else output


class OwnMaps:
    """The maps that a network of timm gives itself, through its `forward_intermediates`: tokens laid out in places.

    They are normalised as the network's output is, where it can do so for all of them. Tokens that stand for no place
    (class, registers) are left out.

    Args:
        net: The network.
        side: Of a square image that it runs on, px.

    Attributes:
        layers: Channels and stride by the block's or stage's name, in the order of computation; none where it gives
            no such maps.
        multiple: Of which the sides of its input have to be, px: the stride of its coarsest map.
        side: As above.
    """

    def __init__(self, net: nn.Module, side: int) -> None:
        self._net, self.side = net, side
        self._norm = True
        names = _names(net)
        maps = self._probe()
        if len(maps) != len(names) or not all(output.ndim == 4 and _is_square(output) for output in maps):
            names, maps = [], []
        self._places = {name: i for i, name in enumerate(names)}
        self.layers = {name: _facts(output, side) for name, output in zip(names, maps, strict=True)}
        self.multiple = max((stride for _, stride in self.layers.values()), default=1)

    @torch.no_grad()
    def _probe(self) -> list[Tensor]:
        """The maps of a black image, normalised where that works."""
        x = torch.zeros(1, 3, self.side, self.side)
        try:
            return self._run(x, None)
        except CANNOT:  # some have no normalisation for all of them
            self._norm = False
            return self._run(x, None)

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] of a normalised batch; what lies beyond the last wanted one is not computed."""
        wanted = sorted({self._places[layer] for layer in layers})
        found = dict(zip(wanted, self._run(x, wanted), strict=True))
        return {layer: found[self._places[layer]] for layer in layers}

    def _run(self, x: Tensor, indices: list[int] | None) -> list[Tensor]:
        net: Any = self._net
        maps: list[Tensor] = net.forward_intermediates(
            x, indices=indices, norm=self._norm, stop_early=True, intermediates_only=True
        )
        return maps


def feature_maps(net: nn.Module) -> ModuleMaps | OwnMaps:
    """How to get the feature maps of a network: at its modules, or from timm where these give none [B, C, h, w].

    Raises:
        RuntimeError, AssertionError, ValueError, TypeError, LookupError, AttributeError: It runs neither on an image of
            224 x 224 px nor of the size that it was made for.
    """
    made_for: int = getattr(net, "pretrained_cfg", {}).get("input_size", (3, _SIDE, _SIDE))[1]
    try:
        return _feature_maps(net, _SIDE)
    except CANNOT:
        if made_for == _SIDE:
            raise
        return _feature_maps(net, made_for)


def _feature_maps(net: nn.Module, side: int) -> ModuleMaps | OwnMaps:
    by_module = ModuleMaps(net, side)
    last = _names(net)[-1:]
    at_modules = not last or (last[0] in by_module.layers and last[0] not in by_module.channels_last)
    if at_modules or not hasattr(net, "forward_intermediates"):
        return by_module
    own = OwnMaps(net, side)
    return own if own.layers else by_module


def _names(net: Any) -> list[str]:
    """What a network of timm calls its feature maps; none for others."""
    return [info["module"] for info in getattr(net, "feature_info", None) or []]


def _is_square(output: Tensor) -> bool:
    """Whether a map [B, C, h, w] is square, as its image is, and more than a point."""
    return output.shape[-1] == output.shape[-2] > 1


def _facts(output: Tensor, side: int) -> tuple[int, int]:
    """Channels and stride, px, of a map of an image of that side."""
    return output.shape[1], round(side / output.shape[-1])
