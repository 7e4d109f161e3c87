"""The per-pixel losses against hand-computed cases, their written gradients, and fp64 gradcheck."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adu_kernels import (
    ObjectiveWeights,
    depth_objective,
    focal_response_loss,
    laplace_nll,
    silog_loss,
    teacher_gate,
    uncertainty_guide,
)


def _map(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype).view(1, 1, 1, -1)


def _scene(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """depth, log_scale, teacher_depth, target: B×1×H×W, targets sparse, teachers nearly dense."""
    generator = torch.Generator().manual_seed(seed)
    depth, teacher, target, keep = 1 + 60 * torch.rand(4, 3, 1, 4, 5, generator=generator, dtype=torch.float64)
    log_scale = torch.randn(3, 1, 4, 5, generator=generator, dtype=torch.float64)
    target = torch.where(keep < 30, target, 0)
    teacher = torch.where(keep > 10, teacher, 0)
    depth, log_scale = (t.to(dtype).requires_grad_() for t in (depth, log_scale))
    return depth, log_scale, teacher.to(dtype), target.to(dtype)


# --- values by hand


def test_silog_by_hand() -> None:
    depth, target = _map(1.0, math.e, 5.0), _map(1.0, 1.0, 0.0)  # q = 0, 1, none
    torch.testing.assert_close(silog_loss(depth, target).item(), 10 * math.sqrt(0.5 - 0.85 * 0.25 + 1e-6))
    torch.testing.assert_close(silog_loss(depth, target, 0.5).item(), 10 * math.sqrt(0.5 - 0.5 * 0.25 + 1e-6))


def test_silog_of_a_perfect_depth_is_its_floor() -> None:
    depth = _map(3.0, 7.0).requires_grad_()
    loss = silog_loss(depth, depth.detach())
    torch.testing.assert_close(loss.item(), 10 * math.sqrt(1e-6))
    assert torch.autograd.grad(loss, depth)[0].tolist() == [[[[0.0, 0.0]]]]


def test_silog_with_full_variance_focus_ignores_the_scale() -> None:
    depth, _, _, target = _scene()
    scaled = silog_loss(depth / 7, target, variance_focus=1.0)
    torch.testing.assert_close(scaled, silog_loss(depth, target, variance_focus=1.0))


def test_silog_of_a_constant_ratio_is_stable_in_fp32() -> None:
    """mean q² − (mean q)² by subtraction is noise here, and often a negative number under the root."""
    target = torch.linspace(1, 9, 4096).view(1, 1, 64, 64)
    loss = silog_loss(8 * target, target, variance_focus=1.0)
    torch.testing.assert_close(loss.item(), 10 * math.sqrt(1e-6), rtol=1e-3, atol=0)


def test_laplace_by_hand() -> None:
    depth, log_scale, target = _map(math.e, 2.0, 9.0), _map(math.log(2.0), 1.0, 0.5), _map(1.0, 2.0, torch.nan)
    expected = ((0.5 * 1 + math.log(2.0)) + (0 + 1.0)) / 2
    torch.testing.assert_close(laplace_nll(depth, log_scale, target).item(), expected)


def test_laplace_clamps_the_log_scale() -> None:
    depth, target = _map(math.e, math.e), _map(1.0, 1.0)
    log_scale = _map(-9.0, 5.0).requires_grad_()
    loss = laplace_nll(depth, log_scale, target)
    torch.testing.assert_close(loss.item(), (math.exp(6) - 6 + math.exp(-3) + 3) / 2)
    assert torch.autograd.grad(loss, log_scale)[0].tolist() == [[[[0.0, 0.0]]]]


def test_beta_nll_by_hand() -> None:
    depth, target = _map(math.e**2), _map(1.0)  # r = 2
    log_scale = _map(math.log(4.0)).requires_grad_()
    loss = laplace_nll(depth, log_scale, target, beta_nll=0.5)
    torch.testing.assert_close(loss.item(), 4 * (2 / 4 + math.log(4.0)))
    # sg(e^s)·(1 − e^{−s}·r) = 4 − 2
    torch.testing.assert_close(torch.autograd.grad(loss, log_scale)[0].item(), 2.0)


def test_focal_by_hand() -> None:
    depth, teacher = _map(2.0, 8.0, 3.0), _map(1.0, 8.0, torch.inf)
    e = math.log(2.0)
    t = math.tanh(5 * e)
    torch.testing.assert_close(focal_response_loss(depth, teacher).item(), e * t / 2)
    torch.testing.assert_close(focal_response_loss(depth, teacher, gamma=2.0).item(), e * t**2 / 2)
    weight = _map(3.0, 1.0, torch.nan)
    torch.testing.assert_close(focal_response_loss(depth, teacher, weight).item(), 3 * e * t / 2)


def test_guide_by_hand() -> None:
    log_scale, valid = _map(0.0, math.log(3.0), 2.0), torch.tensor([[[[True, True, False]]]])
    torch.testing.assert_close(uncertainty_guide(log_scale, valid), _map(0.75, 1.25, 1.0))
    torch.testing.assert_close(uncertainty_guide(log_scale, valid, "attenuate"), _map(1.25, 0.75, 1.0))
    torch.testing.assert_close(uncertainty_guide(log_scale, valid, "none"), _map(1.0, 1.0, 1.0))
    torch.testing.assert_close(uncertainty_guide(log_scale, valid, strength=0.0), _map(1.0, 1.0, 1.0))
    torch.testing.assert_close(uncertainty_guide(log_scale, valid, strength=1.0), _map(0.5, 1.5, 1.0))


def test_guide_is_clipped_and_clamped() -> None:
    log_scale = _map(*[-20.0] * 99, 20.0)  # clamped to −6 and 3: relative scale ~0.0123 and ~98.8
    guide = uncertainty_guide(log_scale, torch.ones_like(log_scale, dtype=torch.bool), strength=1.0)
    assert guide[..., 0].item() == 0.25
    assert guide[..., -1].item() == 4.0
    other = uncertainty_guide(log_scale.clamp(-6, 3), torch.ones_like(log_scale, dtype=torch.bool), strength=1.0)
    assert torch.equal(guide, other)
    beyond = uncertainty_guide(_map(3.0, 5.0), torch.ones(1, 1, 1, 2, dtype=torch.bool), strength=1.0)
    assert beyond.tolist() == [[[[1.0, 1.0]]]]


def test_gate_by_hand() -> None:
    teacher, target = _map(3.0, 3.0, torch.nan, 7.0, 120.0), _map(1.0, 0.0, 4.0, 7.0, 40.0)
    expected = _map(math.exp(-2.5), 1.0, 1.0, 1.0, math.exp(-2.5))  # the teacher is not clamped
    torch.testing.assert_close(teacher_gate(teacher, target), expected)


def test_objective_is_its_parts() -> None:
    depth, log_scale, teacher, target = _scene()
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
    depth, log_scale, teacher, target = _scene()
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
    depth, log_scale, _, target = _scene()
    terms = depth_objective(depth, log_scale, None, target)
    assert terms.response.item() == 0.0
    torch.testing.assert_close(terms.total, silog_loss(depth, target) + laplace_nll(depth, log_scale, target))


def test_weights_in_every_form() -> None:
    scene = _scene()
    totals = [
        depth_objective(*scene, weights=weights).total
        for weights in (
            (2.0, 3.0, 5.0),
            [2, 3, 5],
            {"response": 5.0, "silog": 2.0, "uncertainty": 3.0},
            ObjectiveWeights(2.0, 3.0, 5.0),
        )
    ]
    assert len({t.item() for t in totals}) == 1
    assert depth_objective(*scene).total == depth_objective(*scene, weights=(1.0, 1.0, 10.0)).total


def test_a_ramp_may_be_a_tensor() -> None:
    scene = _scene()
    ramp = torch.tensor(0.25, requires_grad=True)
    terms = depth_objective(*scene, guide_strength=ramp)
    torch.testing.assert_close(terms.total, depth_objective(*scene, guide_strength=0.25).total)
    terms.total.backward()
    assert ramp.grad is None
    assert not uncertainty_guide(scene[1], scene[2] > 0, strength=ramp).requires_grad


# --- gradients


@pytest.mark.parametrize("variance_focus", [0.85, 1.0])
def test_gradcheck_silog(variance_focus: float) -> None:
    depth, _, _, target = _scene()
    assert torch.autograd.gradcheck(lambda d: silog_loss(d, target, variance_focus), (depth,))


@pytest.mark.parametrize("beta_nll", [0.0, 0.5])
def test_gradcheck_laplace(beta_nll: float) -> None:
    depth, log_scale, _, target = _scene()
    if beta_nll == 0:
        assert torch.autograd.gradcheck(lambda d, s: laplace_nll(d, s, target, joint=True), (depth, log_scale))
    else:  # its factor is detached: numbers are checked for depth alone
        assert torch.autograd.gradcheck(
            lambda d: laplace_nll(d, log_scale.detach(), target, True, beta_nll=beta_nll), (depth,)
        )


@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0])
def test_gradcheck_focal(gamma: float) -> None:
    depth, _, teacher, target = _scene()
    weight = torch.rand_like(target)
    assert torch.autograd.gradcheck(lambda d: focal_response_loss(d, teacher, weight, gamma=gamma), (depth,))


def test_gradcheck_objective() -> None:
    depth, log_scale, teacher, target = _scene()
    assert torch.autograd.gradcheck(
        lambda d, s: depth_objective(d, s, teacher, target, guide="none", joint=True).total, (depth, log_scale)
    )
    assert torch.autograd.gradcheck(
        lambda d: depth_objective(d, log_scale.detach(), teacher, target, joint=True).total, (depth,)
    )


@pytest.mark.parametrize("detach_focal", [False, True])
@pytest.mark.parametrize("gamma", [1.0, 2.5])
def test_written_gradient_of_the_focal_loss(gamma: float, detach_focal: bool) -> None:
    """SPEC §5: Ω·w·sign(x)·φ'/(n·d), φ' = t^γ + (γβ/2)·e·t^{γ−1}(1 − t²), or t^γ when the focus is detached."""
    beta = 6.0
    depth, _, teacher, target = _scene()
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
    depth, log_scale, _, target = _scene()
    valid = target > 0
    r = (depth.detach().log() - torch.where(valid, target, 1).log()) * valid
    loss = laplace_nll(depth, log_scale, target)
    for_depth, for_scale = torch.autograd.grad(loss, (depth, log_scale), allow_unused=True)
    assert for_depth is None
    torch.testing.assert_close(for_scale, valid * (1 - (-log_scale.detach()).exp() * r.abs()) / valid.sum())
    (for_depth,) = torch.autograd.grad(laplace_nll(depth, log_scale, target, joint=True), depth)
    torch.testing.assert_close(for_depth, r.sign() * (-log_scale.detach()).exp() / (valid.sum() * depth.detach()))


def test_no_gradient_to_teacher_target_and_weight() -> None:
    depth, log_scale, teacher, target = _scene()
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
    depth, log_scale, teacher, target = _scene()
    weights = (1.0, 0.0, 10.0)
    (grad,) = torch.autograd.grad(depth_objective(depth, log_scale, teacher, target, weights=weights).total, log_scale)
    assert torch.count_nonzero(grad) == 0


def test_clamped_depths_get_no_gradient() -> None:
    depth = _map(100.0, 1e-6, 0.0, -3.0, torch.inf, 5.0).requires_grad_()
    reference = _map(10.0, 10.0, 10.0, 10.0, 10.0, 10.0)
    low, high = math.log(1e-3 / 10), math.log(80 / 10)
    q = torch.tensor([high, low, low, low, high, math.log(0.5)], dtype=torch.float64)
    loss = silog_loss(depth, reference)
    torch.testing.assert_close(loss, 10 * (q.square().mean() - 0.85 * q.mean() ** 2 + 1e-6).sqrt())
    for value in (loss, focal_response_loss(depth, reference)):
        (grad,) = torch.autograd.grad(value, depth)
        assert torch.count_nonzero(grad[..., :5]) == 0
        assert grad[..., 5] != 0


# --- masks and bad values (SPEC §8)

GARBAGE = [torch.nan, torch.inf, -torch.inf, 0.0, -7.0, 1e30]
NO_DEPTH = [torch.nan, torch.inf, -torch.inf, 0.0, -7.0]


def _result(scene: tuple[Tensor, ...], **options) -> list[Tensor]:
    """Every term of the objective, its two single losses with options, and their gradients."""
    depth, log_scale, teacher, target = (t.detach().clone() for t in scene)
    depth.requires_grad_()
    log_scale.requires_grad_()
    terms = depth_objective(depth, log_scale, teacher, target, joint=True, beta_nll=0.5, gamma=1.5, **options)
    return [*terms, *torch.autograd.grad(terms.total, (depth, log_scale))]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("guide", ["emphasise", "attenuate", "none"])
def test_garbage_where_nothing_is_valid_changes_no_bit(garbage: float, guide: str) -> None:
    depth, log_scale, teacher, target = _scene(dtype=torch.float32)
    off = torch.zeros_like(target, dtype=torch.bool)
    off[:, :, 1:3, ::2] = True
    target, teacher = torch.where(off, 0, target), torch.where(off, 0, teacher)
    clean = _result((depth, log_scale, teacher, target), guide=guide)
    dirty = _result(
        (torch.where(off, garbage, depth), torch.where(off, garbage, log_scale), teacher, target), guide=guide
    )
    for ours, theirs in zip(clean, dirty, strict=True):
        assert torch.equal(ours, theirs)
    for grad in dirty[-2:]:
        assert torch.count_nonzero(grad[off]) == 0


@pytest.mark.parametrize("garbage", NO_DEPTH)
@pytest.mark.parametrize("which", ["teacher", "target"])
def test_every_way_to_say_none_is_the_same(garbage: float, which: str) -> None:
    depth, log_scale, teacher, target = _scene(dtype=torch.float32)
    clean = _result((depth, log_scale, teacher, target))
    if which == "teacher":
        teacher = torch.where(teacher == 0, garbage, teacher)
    else:
        target = torch.where(target == 0, garbage, target)
    for ours, theirs in zip(clean, _result((depth, log_scale, teacher, target)), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("beyond", [1e-4, 80.5])
def test_target_beyond_the_range_is_none(beyond: float) -> None:
    depth, log_scale, teacher, target = _scene(dtype=torch.float32)
    clean = _result((depth, log_scale, teacher, target))
    dirty = _result((depth, log_scale, teacher, torch.where(target == 0, beyond, target)))
    for ours, theirs in zip(clean, dirty, strict=True):
        assert torch.equal(ours, theirs)


def test_the_ends_of_the_range_are_valid() -> None:
    for end in (1e-3, 80.0):
        assert silog_loss(_map(5.0, dtype=torch.float32), _map(end, dtype=torch.float32)).item() > 1


def test_garbage_weight_off_the_mask_reaches_nothing() -> None:
    depth, _, teacher, _ = _scene(dtype=torch.float32)
    weight = torch.where(teacher > 0, 2.0, torch.nan)
    loss = focal_response_loss(depth, teacher, weight)
    torch.testing.assert_close(loss, 2 * focal_response_loss(depth, teacher))
    assert torch.autograd.grad(loss, depth)[0].isfinite().all()


def test_guide_off_the_mask_is_one_and_reads_nothing() -> None:
    valid = torch.tensor([[[[True, True, False]]]])
    assert torch.equal(
        uncertainty_guide(_map(0.0, 1.0, torch.nan), valid), uncertainty_guide(_map(0.0, 1.0, 5.0), valid)
    )
    assert uncertainty_guide(_map(torch.nan, 1.0), torch.zeros(1, 1, 1, 2, dtype=torch.bool)).tolist() == [
        [[[1.0, 1.0]]]
    ]


def test_an_image_with_nothing_valid_contributes_nothing() -> None:
    scene = _scene()
    alone = _result(tuple(t[:1] for t in scene))
    empty = torch.full_like(scene[0][:1], torch.nan)
    joined = _result(tuple(torch.cat((t[:1], empty)) for t in scene))
    for ours, theirs in zip(joined[:4], alone[:4], strict=True):
        torch.testing.assert_close(ours, theirs)
    for ours, theirs in zip(joined[4:], alone[4:], strict=True):
        torch.testing.assert_close(ours[:1], theirs)
        assert torch.count_nonzero(ours[1]) == 0


@pytest.mark.parametrize("garbage", [*NO_DEPTH, 3.0])
def test_a_batch_with_nothing_valid_is_exactly_zero(garbage: float) -> None:
    none = torch.full((2, 1, 3, 4), torch.nan)
    anything = torch.full((2, 1, 3, 4), garbage)
    for value in _result((anything, anything, none, none)):
        assert torch.count_nonzero(value) == 0


def test_a_nan_prediction_at_a_valid_pixel_is_told() -> None:
    depth, log_scale, teacher, target = (t.detach() for t in _scene())
    for at, told in (((target > 0) & (teacher == 0), (True, True, False)), (teacher > 0, (True, True, True))):
        broken = depth.masked_fill(at, torch.nan)
        terms = depth_objective(broken, log_scale, teacher, target)
        assert tuple(bool(t.isnan()) for t in terms[1:]) == told
        assert terms.total.isnan()


# --- precision, order, determinism


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_fp32_whatever_autocast_says(dtype: torch.dtype) -> None:
    scene = tuple(t.detach() for t in _scene(dtype=dtype))
    expected = depth_objective(*(t.float() for t in scene))
    with torch.autocast("cpu", torch.bfloat16):
        got = depth_objective(*scene)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


def test_fp64_stays_fp64() -> None:
    assert {t.dtype for t in depth_objective(*_scene())} == {torch.float64}


def test_permuting_the_batch_permutes_the_gradients() -> None:
    scene, order = _scene(), [2, 0, 1]
    one, other = _result(scene), _result(tuple(t[order] for t in scene))
    torch.testing.assert_close(one[:4], other[:4])
    for ours, theirs in zip(one[4:], other[4:], strict=True):
        torch.testing.assert_close(ours[order], theirs)


def test_same_bits_twice() -> None:
    scene = _scene(dtype=torch.float32)
    for ours, theirs in zip(_result(scene), _result(scene), strict=True):
        assert torch.equal(ours, theirs)


# --- bad input

X = torch.ones(2, 1, 3, 5)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "depth: expected B×1×H×W, got 2×3×5", lambda: silog_loss(X[:, 0], X[:, 0])),
        (ValueError, "depth: expected B×1×H×W, got 2×3×3×5", lambda: silog_loss(X.expand(2, 3, 3, 5), X)),
        (ValueError, "target: .* depth, 2×1×3×5, got 2×1×3×4", lambda: silog_loss(X, X[..., 1:])),
        (ValueError, "target: .*device of depth, cpu, got meta", lambda: silog_loss(X, X.to("meta"))),
        (TypeError, "target: expected a tensor .*got NoneType", lambda: silog_loss(X, None)),
        (TypeError, "depth: .*floating-point tensor, got torch.int64", lambda: silog_loss(X.long(), X)),
        (ValueError, r"variance_focus: .*\[0.0, 1.0\], got 1.1", lambda: silog_loss(X, X, 1.1)),
        (ValueError, "0 < min_depth < max_depth, got 5.0 and 2.0", lambda: silog_loss(X, X, 0.85, 5.0, 2.0)),
        (ValueError, "max_depth: .*finite.*got inf", lambda: silog_loss(X, X, max_depth=math.inf)),
        (ValueError, "log_scale: .*got 1×1×3×5", lambda: laplace_nll(X, X[:1], X)),
        (TypeError, "joint: .*got 1", lambda: laplace_nll(X, X, X, joint=1)),
        (ValueError, "beta_nll: .*got -0.5", lambda: laplace_nll(X, X, X, beta_nll=-0.5)),
        (ValueError, "weight: .*got 2×1×3×4", lambda: focal_response_loss(X, X, X[..., 1:])),
        (ValueError, r"gamma: .*\[1.0, inf\], got 0.5", lambda: focal_response_loss(X, X, gamma=0.5)),
        (ValueError, "beta: .*> 0, got 0", lambda: focal_response_loss(X, X, beta=0)),
        (TypeError, "valid: .*bool tensor, got torch.float32", lambda: uncertainty_guide(X, X)),
        (ValueError, "valid: .*log_scale", lambda: uncertainty_guide(X, X[..., 1:] > 0)),
        (ValueError, "guide: .*'emphasise', 'attenuate', 'none', got 'up'", lambda: uncertainty_guide(X, X > 0, "up")),
        (ValueError, "strength: .*got 2.0", lambda: uncertainty_guide(X, X > 0, strength=2.0)),
        (ValueError, "strength: .*0-dim tensor, got .*1", lambda: uncertainty_guide(X, X > 0, strength=torch.ones(1))),
        (ValueError, "sharpness: .*got -1", lambda: teacher_gate(X, X, -1)),
        (ValueError, "teacher_depth: .*got 2×1×3×4", lambda: depth_objective(X, X, X[..., 1:], X)),
        (ValueError, "guide_strength: .*got -0.1", lambda: depth_objective(X, X, X, X, guide_strength=-0.1)),
        (TypeError, "gate: .*got None", lambda: depth_objective(X, X, X, X, gate=None)),
        (ValueError, "weights: .*got 2 values", lambda: depth_objective(X, X, X, X, weights=(1.0, 2.0))),
        (ValueError, "weights: .*keys silog.*got a", lambda: depth_objective(X, X, X, X, weights={"a": 1.0})),
        (ValueError, "weights.response: .*got -1", lambda: depth_objective(X, X, X, X, weights=(1, 1, -1))),
        (TypeError, "weights.silog: .*got '1'", lambda: depth_objective(X, X, X, X, weights=("1", 1, 1))),
        (TypeError, "weights: .*got float", lambda: depth_objective(X, X, X, X, weights=1.0)),
    ],
)
def test_bad_input_is_named(error: type[Exception], message: str, call) -> None:
    with pytest.raises(error, match=message):
        call()
