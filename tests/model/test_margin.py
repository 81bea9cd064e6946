"""The margin family: the formula over all angles, the reference library, finite values and gradients everywhere."""

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses as reference
from torch.nn import functional

from morphad.model.margin import (
    AdditiveAngularMargin,
    AdditiveCosineMargin,
    MultiplicativeMargin,
    SoftmaxLoss,
    make_margin_loss,
    with_margin,
)
from morphad.settings import MarginSettings

MEMBERS = [(AdditiveAngularMargin, 0.3), (AdditiveCosineMargin, 0.35), (MultiplicativeMargin, 2.5), (SoftmaxLoss, 0.0)]
DEGREES = torch.arange(181, dtype=torch.float64)


def at_angles(member, margin, degrees=DEGREES, dtype=torch.float64):
    """A loss of two classes along the axes of a plane, and one embedding per angle to the first; length 3, not 1."""
    loss = member(2, 2, 8.0, margin, 0.0).to(dtype)
    with torch.no_grad():
        loss.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
    theta = torch.deg2rad(degrees)
    embedding = 3 * torch.stack([theta.cos(), theta.sin()], 1)
    return loss, embedding.to(dtype).requires_grad_()


def psi(phi):
    """SphereFace's continuation of the cosine beyond pi, by hand."""
    k = math.floor(phi / math.pi)
    return (-1) ** k * math.cos(phi) - 2 * k


@pytest.mark.parametrize(
    ("member", "margin", "formula"),
    [
        (AdditiveAngularMargin, 0.3, lambda theta: psi(theta + 0.3)),
        (AdditiveAngularMargin, 2.0, lambda theta: psi(theta + 2.0)),
        (AdditiveCosineMargin, 0.35, lambda theta: math.cos(theta) - 0.35),
        (MultiplicativeMargin, 2.5, lambda theta: psi(2.5 * theta)),
        (MultiplicativeMargin, 4.0, lambda theta: psi(4 * theta)),
        (SoftmaxLoss, 0.9, math.cos),
    ],
)
def test_formula_by_hand_over_all_angles(member, margin, formula):
    loss, embedding = at_angles(member, margin)
    logits = loss.logits(embedding, torch.zeros(181, dtype=torch.long)).detach()
    # At 0 and 180 degrees the clamp holds the angle 1.4e-3 rad away.
    expected = np.array([8 * formula(math.radians(degree)) for degree in range(181)])
    np.testing.assert_allclose(logits[1:180, 0], expected[1:180], rtol=0, atol=1e-9)
    np.testing.assert_allclose(logits[[0, 180], 0], expected[[0, 180]], rtol=0, atol=8 * 4 * 1.5e-3)
    np.testing.assert_allclose(logits[:, 1], 8 * np.sin(np.radians(np.arange(181))), rtol=0, atol=1e-9)
    expected_loss = functional.cross_entropy(logits, torch.zeros(181, dtype=torch.long))
    assert loss(embedding, torch.zeros(181, dtype=torch.long)).item() == pytest.approx(expected_loss.item())


@pytest.mark.parametrize(
    "terms", [(1, 0.2, 0), (1, 3.1, 0), (1, 0, 0.5), (1.35, 0, 0), (2, 0, 0), (4, 0, 0), (3, 0.5, 0.2)]
)
def test_true_logit_falls_with_the_angle_and_has_no_jump(terms):
    theta = torch.linspace(0, math.pi, 20_001, dtype=torch.float64)
    values = with_margin(theta.cos(), *terms)
    steps = values.diff()
    assert (steps <= 1e-12).all()
    assert steps.abs().max() < 1e-2
    assert (values <= theta.cos() + 1e-5).all()  # a margin never helps


@pytest.mark.parametrize(("member", "margin"), MEMBERS)
def test_cosines_have_no_margin_and_ignore_length(member, margin):
    loss, embedding = at_angles(member, margin)
    np.testing.assert_allclose(loss.cosines(embedding).detach()[:, 0], np.cos(np.radians(np.arange(181))), atol=1e-12)
    torch.testing.assert_close(loss.cosines(embedding), loss.cosines(100 * embedding))


def compared(member, margin, other, seed=0, unit=False):
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(64, 5, generator=generator, dtype=torch.float64)
    embedding = functional.normalize(embedding) if unit else embedding
    target = torch.randint(0, 7, (64,), generator=generator)
    loss = member(5, 7, 16.0, margin, 0.0).double()
    other.W.data = loss.weight.data.T.clone()
    return loss, other, embedding, target


def test_equals_cosface_of_the_reference_library():
    loss, other, embedding, target = compared(
        AdditiveCosineMargin, 0.35, reference.CosFaceLoss(7, 5, margin=0.35, scale=16)
    )
    torch.testing.assert_close(loss(embedding, target), other(embedding, target))


def test_equals_sphereface_of_the_reference_library_on_unit_embeddings():
    # The reference multiplies by the embedding's length; here all members are normalised alike.
    loss, other, embedding, target = compared(
        MultiplicativeMargin, 3.0, reference.SphereFaceLoss(7, 5, margin=3.0, scale=16), unit=True
    )
    torch.testing.assert_close(loss(embedding, target), other(embedding, target))


def test_equals_arcface_of_the_reference_library_up_to_pi():
    # Beyond theta + margin = pi the reference jumps to cos(theta) - margin * sin(margin); here psi goes on smoothly.
    loss, other, embedding, target = compared(
        AdditiveAngularMargin, 0.3, reference.ArcFaceLoss(7, 5, margin=math.degrees(0.3), scale=16)
    )
    embedding[:8] = 0.05 - loss.weight.detach()[target[:8]]  # nearly opposite the class
    angle = loss.cosines(embedding).gather(1, target[:, None])[:, 0].acos()
    agree = angle <= math.pi - 0.3
    assert 32 < agree.sum() < 64
    torch.testing.assert_close(loss(embedding[agree], target[agree]), other(embedding[agree], target[agree]))
    ours, theirs = loss(embedding[~agree], target[~agree]), other(embedding[~agree], target[~agree])
    assert ours != theirs
    assert abs(ours - theirs) < 16 * 0.07


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("member", "margin"), MEMBERS)
def test_finite_at_zero_and_pi_and_for_a_zero_embedding(member, margin, dtype):
    degrees = torch.tensor([0.0, 1e-6, 1e-3, 0.1, 179.9, 179.999, 180.0], dtype=torch.float64)
    loss, embedding = at_angles(member, margin, degrees, dtype)
    value = loss(embedding, torch.zeros(7, dtype=torch.long))
    value.backward()
    zero = torch.zeros(1, 2, dtype=dtype, requires_grad=True)
    at_zero = loss(zero, torch.zeros(1, dtype=torch.long))
    at_zero.backward()
    for tensor in (value, embedding.grad, loss.weight.grad, at_zero, zero.grad):
        assert tensor.isfinite().all()
    # Turning the embedding costs at most scale * m1 per rad, however close to 0 or pi (plus the other class).
    assert (embedding.grad.norm(dim=1) * 7 * 3 <= 8 * (max(margin, 1) + 1) * 1.1).all()


@pytest.mark.parametrize(("member", "margin"), MEMBERS)
def test_gradient_is_that_of_finite_differences(member, margin):
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    loss = member(4, 3, 8.0, margin, 0.0).double()
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.autograd.gradcheck(
        lambda e, w: torch.func.functional_call(loss, {"weight": w}, (e, target)), (embedding, loss.weight)
    )


@pytest.mark.parametrize(("member", "margin"), MEMBERS)
def test_head_stays_in_float32_under_autocast(member, margin):
    generator = torch.Generator().manual_seed(2)
    embedding = (1e3 * torch.randn(16, 32, generator=generator)).bfloat16()
    target = torch.randint(0, 5, (16,), generator=generator)
    loss = member(32, 5, 64.0, margin, 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(embedding, target)
        assert loss.cosines(embedding).dtype == value.dtype == torch.float32
    value.backward()
    assert value.isfinite()
    assert loss.weight.grad.isfinite().all()
    torch.testing.assert_close(value, loss(embedding.float(), target))


@pytest.mark.parametrize(("member", "margin"), MEMBERS)
def test_margin_grows_over_the_warm_up(member, margin):
    loss = member(2, 2, 8.0, margin, 0.5)
    embedding, target = torch.tensor([[1.0, 1.0]]), torch.tensor([0])
    values = [loss(embedding, target, progress).item() for progress in (0, 0.25, 0.5, 1)]
    plain = functional.cross_entropy(8 * loss.cosines(embedding), target).item()
    assert values[0] == pytest.approx(plain, abs=1e-5)
    assert values[2] == values[3]
    if member is not SoftmaxLoss:
        assert values[0] < values[1] < values[2]


@pytest.mark.parametrize(
    ("kind", "margin", "member"),
    [
        ("additive_angular", 0.2, AdditiveAngularMargin),
        ("additive_cosine", 0.2, AdditiveCosineMargin),
        ("multiplicative", 1.5, MultiplicativeMargin),
        ("softmax", 0.2, SoftmaxLoss),
    ],
)
def test_settings_choose_the_member(kind, margin, member):
    loss = make_margin_loss(MarginSettings(kind=kind, scale=4.0, margin=margin, warmup=0.1), 3, 6)
    assert type(loss) is member
    assert (loss.scale, loss.margin, loss.warmup, loss.weight.shape) == (4.0, margin, 0.1, (6, 3))


@pytest.mark.parametrize(
    ("member", "scale", "margin", "warmup"),
    [
        (AdditiveAngularMargin, 0.0, 0.2, 0.0),
        (AdditiveAngularMargin, 8.0, 3.2, 0.0),
        (MultiplicativeMargin, 8.0, 0.5, 0.0),
        (SoftmaxLoss, 8.0, 0.0, 1.5),
    ],
)
def test_values_out_of_range_are_refused(member, scale, margin, warmup):
    with pytest.raises(ValueError, match=f"got {scale}, {margin} and {warmup}"):
        member(3, 4, scale, margin, warmup)
