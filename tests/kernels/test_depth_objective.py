"""The per-pixel losses against hand-computed cases, their written gradients, and fp64 gradcheck."""

from __future__ import annotations

import math

import pytest
import torch

from adu_kernels import (
    ObjectiveWeights,
    depth_objective,
    focal_response_loss,
    laplace_nll,
    silog_loss,
    teacher_gate,
    uncertainty_guide,
)
from tests.kernels.depth_scenes import as_map, scene

pytestmark = pytest.mark.cpu

# --- values by hand


def test_silog_by_hand() -> None:
    depth, target = as_map(1.0, math.e, 5.0), as_map(1.0, 1.0, 0.0)  # q = 0, 1, none
    torch.testing.assert_close(silog_loss(depth, target).item(), 10 * math.sqrt(0.5 - 0.85 * 0.25 + 1e-6))
    torch.testing.assert_close(silog_loss(depth, target, 0.5).item(), 10 * math.sqrt(0.5 - 0.5 * 0.25 + 1e-6))


def test_silog_of_a_perfect_depth_is_its_floor() -> None:
    depth = as_map(3.0, 7.0).requires_grad_()
    loss = silog_loss(depth, depth.detach())
    torch.testing.assert_close(loss.item(), 10 * math.sqrt(1e-6))
    assert torch.autograd.grad(loss, depth)[0].tolist() == [[[[0.0, 0.0]]]]


def test_silog_with_full_variance_focus_ignores_the_scale() -> None:
    depth, _, _, target = scene()
    scaled = silog_loss(depth / 7, target, variance_focus=1.0)
    torch.testing.assert_close(scaled, silog_loss(depth, target, variance_focus=1.0))


def test_silog_of_a_constant_ratio_is_stable_in_fp32() -> None:
    """mean q² − (mean q)² by subtraction is noise here, and often a negative number under the root."""
    target = torch.linspace(1, 9, 4096).view(1, 1, 64, 64)
    loss = silog_loss(8 * target, target, variance_focus=1.0)
    torch.testing.assert_close(loss.item(), 10 * math.sqrt(1e-6), rtol=1e-3, atol=0)


def test_laplace_by_hand() -> None:
    depth, log_scale, target = as_map(math.e, 2.0, 9.0), as_map(math.log(2.0), 1.0, 0.5), as_map(1.0, 2.0, torch.nan)
    expected = ((0.5 * 1 + math.log(2.0)) + (0 + 1.0)) / 2
    torch.testing.assert_close(laplace_nll(depth, log_scale, target).item(), expected)


def test_laplace_clamps_the_log_scale() -> None:
    depth, target = as_map(math.e, math.e), as_map(1.0, 1.0)
    log_scale = as_map(-9.0, 5.0).requires_grad_()
    loss = laplace_nll(depth, log_scale, target)
    torch.testing.assert_close(loss.item(), (math.exp(6) - 6 + math.exp(-3) + 3) / 2)
    assert torch.autograd.grad(loss, log_scale)[0].tolist() == [[[[0.0, 0.0]]]]


def test_beta_nll_by_hand() -> None:
    depth, target = as_map(math.e**2), as_map(1.0)  # r = 2
    log_scale = as_map(math.log(4.0)).requires_grad_()
    loss = laplace_nll(depth, log_scale, target, beta_nll=0.5)
    torch.testing.assert_close(loss.item(), 4 * (2 / 4 + math.log(4.0)))
    # sg(e^s)·(1 − e^{−s}·r) = 4 − 2
    torch.testing.assert_close(torch.autograd.grad(loss, log_scale)[0].item(), 2.0)


def test_focal_by_hand() -> None:
    depth, teacher = as_map(2.0, 8.0, 3.0), as_map(1.0, 8.0, torch.inf)
    e = math.log(2.0)
    t = math.tanh(5 * e)
    torch.testing.assert_close(focal_response_loss(depth, teacher).item(), e * t / 2)
    torch.testing.assert_close(focal_response_loss(depth, teacher, gamma=2.0).item(), e * t**2 / 2)
    weight = as_map(3.0, 1.0, torch.nan)
    torch.testing.assert_close(focal_response_loss(depth, teacher, weight).item(), 3 * e * t / 2)


def test_guide_by_hand() -> None:
    log_scale, valid = as_map(0.0, math.log(3.0), 2.0), torch.tensor([[[[True, True, False]]]])
    torch.testing.assert_close(uncertainty_guide(log_scale, valid), as_map(0.75, 1.25, 1.0))
    torch.testing.assert_close(uncertainty_guide(log_scale, valid, "attenuate"), as_map(1.25, 0.75, 1.0))
    torch.testing.assert_close(uncertainty_guide(log_scale, valid, "none"), as_map(1.0, 1.0, 1.0))
    torch.testing.assert_close(uncertainty_guide(log_scale, valid, strength=0.0), as_map(1.0, 1.0, 1.0))
    torch.testing.assert_close(uncertainty_guide(log_scale, valid, strength=1.0), as_map(0.5, 1.5, 1.0))


def test_guide_is_clipped_and_clamped() -> None:
    log_scale = as_map(*[-20.0] * 99, 20.0)  # clamped to −6 and 3: relative scale ~0.0123 and ~98.8
    guide = uncertainty_guide(log_scale, torch.ones_like(log_scale, dtype=torch.bool), strength=1.0)
    assert guide[..., 0].item() == 0.25
    assert guide[..., -1].item() == 4.0
    other = uncertainty_guide(log_scale.clamp(-6, 3), torch.ones_like(log_scale, dtype=torch.bool), strength=1.0)
    assert torch.equal(guide, other)
    beyond = uncertainty_guide(as_map(3.0, 5.0), torch.ones(1, 1, 1, 2, dtype=torch.bool), strength=1.0)
    assert beyond.tolist() == [[[[1.0, 1.0]]]]


def test_gate_by_hand() -> None:
    teacher, target = as_map(3.0, 3.0, torch.nan, 7.0, 120.0), as_map(1.0, 0.0, 4.0, 7.0, 40.0)
    expected = as_map(math.exp(-2.5), 1.0, 1.0, 1.0, math.exp(-2.5))  # the teacher is not clamped
    torch.testing.assert_close(teacher_gate(teacher, target), expected)


def test_objective_is_its_parts() -> None:
    depth, log_scale, teacher, target = scene()
    terms = depth_objective(depth, log_scale, teacher, target, weights=(2.0, 3.0, 5.0), guide_strength=0.8)
    weight = uncertainty_guide(log_scale, teacher > 0, strength=0.8) * teacher_gate(teacher, target)
    parts = (
        silog_loss(depth, target),
        laplace_nll(depth, log_scale, target),
        focal_response_loss(depth, teacher, weight),
    )
    assert [terms.silog, terms.uncertainty, terms.response] == list(parts)
    torch.testing.assert_close(terms.total, 2 * parts[0] + 3 * parts[1] + 5 * parts[2])
    assert terms.total.requires_grad
    assert not any(term.requires_grad for term in terms[1:])
    assert not weight.requires_grad


def test_every_option_reaches_its_term() -> None:
    depth, log_scale, teacher, target = scene()
    plain = depth_objective(depth, log_scale, teacher, target)
    changes: list[tuple[str, dict]] = [
        ("silog", {"variance_focus": 0.5}),
        ("silog", {"max_depth": 30.0}),
        ("uncertainty", {"beta_nll": 0.5}),
        ("uncertainty", {"min_depth": 20.0}),
        ("response", {"guide": "attenuate"}),
        ("response", {"guide": "none"}),
        ("response", {"guide_strength": 0.1}),
        ("response", {"gate": False}),
        ("response", {"beta": 3.0}),
        ("response", {"gamma": 2.0}),
        ("response", {"max_depth": 30.0}),
    ]
    for term, option in changes:
        changed = depth_objective(depth, log_scale, teacher, target, **option)
        assert getattr(changed, term) != getattr(plain, term), option
    for option in ({"detach_focal": True}, {"joint": True}):
        changed = depth_objective(depth, log_scale, teacher, target, **option)
        assert changed == plain
        grads = [torch.autograd.grad(t.total, depth, retain_graph=True)[0] for t in (changed, plain)]
        assert not torch.allclose(*grads), option


def test_no_teacher_means_no_response() -> None:
    depth, log_scale, _, target = scene()
    terms = depth_objective(depth, log_scale, None, target)
    assert terms.response.item() == 0.0
    torch.testing.assert_close(terms.total, silog_loss(depth, target) + laplace_nll(depth, log_scale, target))


def test_weights_in_every_form() -> None:
    maps = scene()
    totals = [
        depth_objective(*maps, weights=weights).total
        for weights in (
            (2.0, 3.0, 5.0),
            [2, 3, 5],
            {"response": 5.0, "silog": 2.0, "uncertainty": 3.0},
            ObjectiveWeights(2.0, 3.0, 5.0),
        )
    ]
    assert len({t.item() for t in totals}) == 1
    assert depth_objective(*maps).total == depth_objective(*maps, weights=(1.0, 1.0, 10.0)).total


def test_a_ramp_may_be_a_tensor() -> None:
    maps = scene()
    ramp = torch.tensor(0.25, requires_grad=True)
    terms = depth_objective(*maps, guide_strength=ramp)
    torch.testing.assert_close(terms.total, depth_objective(*maps, guide_strength=0.25).total)
    terms.total.backward()
    assert ramp.grad is None
    assert not uncertainty_guide(maps[1], maps[2] > 0, strength=ramp).requires_grad


# --- gradients


@pytest.mark.parametrize("variance_focus", [0.85, 1.0])
def test_gradcheck_silog(variance_focus: float) -> None:
    depth, _, _, target = scene()
    assert torch.autograd.gradcheck(lambda d: silog_loss(d, target, variance_focus), (depth,))


@pytest.mark.parametrize("beta_nll", [0.0, 0.5])
def test_gradcheck_laplace(beta_nll: float) -> None:
    depth, log_scale, _, target = scene()
    if beta_nll == 0:
        assert torch.autograd.gradcheck(lambda d, s: laplace_nll(d, s, target, joint=True), (depth, log_scale))
    else:  # its factor is detached: numbers are checked for depth alone
        assert torch.autograd.gradcheck(
            lambda d: laplace_nll(d, log_scale.detach(), target, True, beta_nll=beta_nll), (depth,)
        )


@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0])
def test_gradcheck_focal(gamma: float) -> None:
    depth, _, teacher, target = scene()
    weight = torch.rand_like(target)
    assert torch.autograd.gradcheck(lambda d: focal_response_loss(d, teacher, weight, gamma=gamma), (depth,))


def test_gradcheck_objective() -> None:
    depth, log_scale, teacher, target = scene()
    assert torch.autograd.gradcheck(
        lambda d, s: depth_objective(d, s, teacher, target, guide="none", joint=True).total, (depth, log_scale)
    )
    assert torch.autograd.gradcheck(
        lambda d: depth_objective(d, log_scale.detach(), teacher, target, joint=True).total, (depth,)
    )


@pytest.mark.parametrize("detach_focal", [False, True])
@pytest.mark.parametrize("gamma", [1.0, 2.5])
def test_written_gradient_of_the_focal_loss(gamma: float, detach_focal: bool) -> None:
    """METHOD §5: Ω·w·sign(x)·φ'/(n·d), φ' = t^γ + (γβ/2)·e·t^{γ−1}(1 − t²), or t^γ when the focus is detached."""
    beta = 6.0
    depth, _, teacher, target = scene()
    teacher[0, 0, 0, 0] = depth[0, 0, 0, 0].detach()  # x = 0: sign(0) = 0
    weight = torch.rand_like(target)
    loss = focal_response_loss(depth, teacher, weight, beta, gamma, detach_focal)
    (grad,) = torch.autograd.grad(loss, depth)

    d, omega = depth.detach(), teacher > 0
    x = torch.where(omega, d.log() - torch.where(omega, teacher, 1).log(), 0)
    t = torch.tanh(beta * x.abs() / 2)
    slope = t**gamma
    if not detach_focal:
        slope = slope + gamma * beta / 2 * x.abs() * t ** (gamma - 1) * (1 - t**2)
    torch.testing.assert_close(grad, omega * weight * x.sign() * slope / (omega.sum() * d))
    assert grad[0, 0, 0, 0] == 0


def test_laplace_trains_the_scale_alone_unless_joint() -> None:
    depth, log_scale, _, target = scene()
    valid = target > 0
    r = (depth.detach().log() - torch.where(valid, target, 1).log()) * valid
    loss = laplace_nll(depth, log_scale, target)
    for_depth, for_scale = torch.autograd.grad(loss, (depth, log_scale), allow_unused=True)
    assert for_depth is None
    torch.testing.assert_close(for_scale, valid * (1 - (-log_scale.detach()).exp() * r.abs()) / valid.sum())
    (for_depth,) = torch.autograd.grad(laplace_nll(depth, log_scale, target, joint=True), depth)
    torch.testing.assert_close(for_depth, r.sign() * (-log_scale.detach()).exp() / (valid.sum() * depth.detach()))


def test_no_gradient_to_teacher_target_and_weight() -> None:
    depth, log_scale, teacher, target = scene()
    weight = torch.rand_like(target).requires_grad_()
    teacher.requires_grad_()
    target.requires_grad_()
    loss = depth_objective(depth, log_scale, teacher, target, joint=True).total
    (loss + focal_response_loss(depth, teacher, weight)).backward()
    assert depth.grad is not None
    assert log_scale.grad is not None
    assert teacher.grad is None
    assert target.grad is None
    assert weight.grad is None


def test_guide_does_not_train_the_scale() -> None:
    depth, log_scale, teacher, target = scene()
    weights = (1.0, 0.0, 10.0)
    (grad,) = torch.autograd.grad(depth_objective(depth, log_scale, teacher, target, weights=weights).total, log_scale)
    assert torch.count_nonzero(grad) == 0


def test_clamped_depths_get_no_gradient() -> None:
    depth = as_map(100.0, 1e-6, 0.0, -3.0, torch.inf, 5.0).requires_grad_()
    reference = as_map(10.0, 10.0, 10.0, 10.0, 10.0, 10.0)
    low, high = math.log(1e-3 / 10), math.log(80 / 10)
    q = torch.tensor([high, low, low, low, high, math.log(0.5)], dtype=torch.float64)
    loss = silog_loss(depth, reference)
    torch.testing.assert_close(loss, 10 * (q.square().mean() - 0.85 * q.mean() ** 2 + 1e-6).sqrt())
    for value in (loss, focal_response_loss(depth, reference)):
        (grad,) = torch.autograd.grad(value, depth)
        assert torch.count_nonzero(grad[..., :5]) == 0
        assert grad[..., 5] != 0
