"""The network of backbone, embedding and heads: what is trained, what stays, what is float32."""

import copy

import pytest
import torch

from morphad.base.errors import BadInputError
from morphad.model.margin import AdditiveCosineMargin
from morphad.model.morphology import case_table
from morphad.model.network import EMBEDDING_DIM, MorphologyNetwork
from morphad.settings import CaseSettings
from morphad.settings.presets import train_settings

CASES = CaseSettings(operators=("erosion", "gradient"), heights=(1, 3, 5), widths=(1, 4))
TABLE = case_table(CASES)


def small(**values):
    return train_settings({"backbone": "small", "weights": "none", **values})


def images(count=4, side=32):
    return torch.randint(0, 256, (count, 1, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_shapes_and_classes():
    network = MorphologyNetwork(small(), TABLE).eval()
    embedding = network.embed(images())
    assert embedding.shape == (4, EMBEDDING_DIM)
    assert (network.heights, network.widths) == ((1, 3, 5), (1, 4))
    assert network.case_cosines(embedding).shape == (4, len(TABLE))
    assert [logits.shape for logits in network.size_logits(embedding)] == [(4, 3), (4, 2)]
    for index, case in enumerate(TABLE):
        assert network.heights[network.height_of_case[index]] == case.height
        assert network.widths[network.width_of_case[index]] == case.width


def test_embedding_is_the_mean_of_the_places():
    network = MorphologyNetwork(small(), TABLE).eval()
    places = network.embed_places(images())
    assert places.shape == (4, EMBEDDING_DIM, 4, 4)
    torch.testing.assert_close(places.mean((2, 3)), network.embed(images()))


def test_seed_decides_the_random_weights_and_leaves_the_global_state():
    state = torch.get_rng_state()
    one, same, other = (MorphologyNetwork(small(), TABLE, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["backbone.net.stage1.reduce.weight"], other["backbone.net.stage1.reduce.weight"])


def test_total_loss_weighs_the_kernel_size():
    for weight in (0.0, 2.0):
        network = MorphologyNetwork(small(kernel_size_weight=weight), TABLE).eval()
        losses = network.losses(images(), torch.tensor([0, 1, 2, 3]))
        torch.testing.assert_close(losses.total, losses.case + weight * (losses.height + losses.width) / 2)


def test_margin_kind_and_embedding_layer_follow_the_settings():
    network = MorphologyNetwork(
        small(margin={"kind": "additive_cosine", "margin": 0.3}, embedding_layer="stage2"), TABLE
    )
    assert isinstance(network.case_head, AdditiveCosineMargin)
    assert network.projection.in_features == 64
    with pytest.raises(BadInputError, match=r"train.embedding_layer = \['stage9'\].*stage3"):
        MorphologyNetwork(small(embedding_layer="stage9"), TABLE)


def test_frozen_modules_get_no_gradient_and_keep_their_statistics():
    network = MorphologyNetwork(small(frozen=("stage1", "stage2.norm1")), TABLE)
    before = copy.deepcopy(network.state_dict())
    network.train()
    network.losses(images(), torch.tensor([0, 1, 2, 3])).total.backward()
    trained = {name for name, parameter in network.backbone.net.named_parameters() if parameter.grad is not None}
    assert "stage2.reduce.weight" in trained
    assert not any(name.startswith(("stage1.", "stage2.norm1.")) for name in trained)
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "backbone.net.stage2.norm2.running_mean" in changed
    assert not any(name.startswith(("backbone.net.stage1.", "backbone.net.stage2.norm1.")) for name in changed)


def test_unknown_frozen_module_lists_those_there_are():
    for wrong in ("stage", "stage9", ""):
        with pytest.raises(BadInputError, match=r"train\.frozen.*stage1, "):
            MorphologyNetwork(small(frozen=(wrong,)), TABLE)


def test_given_weights_keep_their_statistics_but_are_trained():
    network = MorphologyNetwork(train_settings({"embedding_layer": "blocks.2", "frozen": []}), TABLE).train()
    before = copy.deepcopy(network.state_dict())
    network.losses(images(), torch.tensor([0, 1, 2, 3])).total.backward()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.backbone.net.bn1.weight.grad is not None
    assert network.backbone.net.blocks[3][0].conv_pw.weight.grad is None  # beyond the embedding layer


def test_saved_state_needs_no_weights_again(monkeypatch):
    settings = train_settings({})
    network = MorphologyNetwork(settings, TABLE).eval()
    monkeypatch.setattr("morphad.model.weights._LITE0_PACKAGE", "no_such_package_here")
    again = MorphologyNetwork(settings, TABLE, seed=5, initialise=False).eval()
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again.embed(images()), network.embed(images()))
    monkeypatch.undo()


def test_embedding_and_losses_are_float32_under_autocast():
    network = MorphologyNetwork(small(), TABLE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.features(images(), ["stage1"])["stage1"].dtype != torch.float64
        embedding = network.embed(images())
        losses = network.losses(images(), torch.tensor([0, 1, 2, 3]))
    assert {embedding.dtype, *(loss.dtype for loss in losses)} == {torch.float32}
    losses.total.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
