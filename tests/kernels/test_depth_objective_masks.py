"""Masks, bad values, order and precision of the per-pixel losses (METHOD §8), of the references and of the kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adu_kernels import depth_objective, focal_response_loss, laplace_nll, silog_loss, teacher_gate, uncertainty_guide
from adu_kernels.testing.parity import same_but_for_rounding
from tests.kernels.depth_scenes import as_map, scene

pytest.importorskip("triton")
GARBAGE = [torch.nan, torch.inf, -torch.inf, 0.0, -7.0, 1e30]
NO_DEPTH = [torch.nan, torch.inf, -torch.inf, 0.0, -7.0]
NORMALIZE = ["batch", "image"]
on_both = pytest.mark.parametrize("backend", [pytest.param("torch", marks=pytest.mark.cpu), "triton"])
either_way = pytest.mark.parametrize("normalize", NORMALIZE)


def _result(maps: tuple[Tensor, ...], **options: Any) -> list[Tensor]:
    """Every term of the objective and the gradients of its total."""
    depth, log_scale, teacher, target = (t.detach().clone() for t in maps)
    depth.requires_grad_()
    log_scale.requires_grad_()
    terms = depth_objective(
        depth, log_scale, teacher, target, **{"joint": True, "beta_nll": 0.5, "gamma": 1.5, **options}
    )
    return [*terms, *torch.autograd.grad(terms.total, (depth, log_scale))]


def _same_bits(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(one, other), number


@on_both
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 99),
    garbage=st.lists(st.sampled_from([*GARBAGE, 3.0]), min_size=2, max_size=2),
    none=st.lists(st.sampled_from(NO_DEPTH), min_size=2, max_size=2),
    guide=st.sampled_from(["emphasise", "attenuate", "none"]),
    normalize=st.sampled_from(NORMALIZE),
    plain=st.booleans(),
)
def test_garbage_where_nothing_is_valid_changes_no_bit(
    backend: str, seed: int, garbage: list[float], none: list[float], guide: str, normalize: str, plain: bool
) -> None:
    depth, log_scale, teacher, target = scene(seed, torch.float32)
    off = torch.rand(depth.shape, generator=torch.Generator().manual_seed(seed), device="cpu").to(depth.device) < 0.5
    options = {"guide": guide, "normalize": normalize, "backend": backend}
    if plain:
        options |= {"joint": False, "beta_nll": 0.0, "gamma": 1.0}
    clean = _result((depth, log_scale, torch.where(off, 0, teacher), torch.where(off, 0, target)), **options)
    dirty = _result(
        (
            torch.where(off, garbage[0], depth),
            torch.where(off, garbage[1], log_scale),
            torch.where(off, none[0], teacher),
            torch.where(off, none[1], target),
        ),
        **options,
    )
    _same_bits(clean, dirty)
    for grad in dirty[-2:]:
        assert torch.count_nonzero(grad[off]) == 0


@on_both
@pytest.mark.parametrize("garbage", NO_DEPTH)
@pytest.mark.parametrize("which", ["teacher", "target"])
def test_every_way_to_say_none_is_the_same(garbage: float, which: str, backend: str) -> None:
    depth, log_scale, teacher, target = scene(dtype=torch.float32)
    clean = _result((depth, log_scale, teacher, target), backend=backend)
    if which == "teacher":
        teacher = torch.where(teacher == 0, garbage, teacher)
    else:
        target = torch.where(target == 0, garbage, target)
    _same_bits(clean, _result((depth, log_scale, teacher, target), backend=backend))


@on_both
@pytest.mark.parametrize("beyond", [1e-4, 80.5])
def test_target_beyond_the_range_is_none(beyond: float, backend: str) -> None:
    depth, log_scale, teacher, target = scene(dtype=torch.float32)
    clean = _result((depth, log_scale, teacher, target), backend=backend)
    dirty = _result((depth, log_scale, teacher, torch.where(target == 0, beyond, target)), backend=backend)
    _same_bits(clean, dirty)


@on_both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_the_range_are_valid(backend: str, dtype: torch.dtype) -> None:
    for end in (1e-3, 80.0):
        assert silog_loss(as_map(5.0, dtype=dtype), as_map(end, dtype=dtype), backend=backend).item() > 1


@on_both
def test_garbage_weight_off_the_mask_reaches_nothing(backend: str) -> None:
    depth, _, teacher, _ = scene(dtype=torch.float32)
    weight = torch.where(teacher > 0, 2.0, torch.nan)
    loss = focal_response_loss(depth, teacher, weight, backend=backend)
    torch.testing.assert_close(loss, 2 * focal_response_loss(depth, teacher, backend=backend))
    assert torch.autograd.grad(loss, depth)[0].isfinite().all()


@on_both
def test_guide_off_the_mask_is_one_and_reads_nothing(backend: str) -> None:
    valid = torch.tensor([[[[True, True, False]]]])
    one, other = (uncertainty_guide(as_map(0.0, 1.0, x), valid, backend=backend) for x in (torch.nan, 5.0))
    assert torch.equal(one, other)
    nothing = torch.zeros(1, 1, 1, 2, dtype=torch.bool)
    assert uncertainty_guide(as_map(torch.nan, 1.0), nothing, backend=backend).tolist() == [[[[1.0, 1.0]]]]


@on_both
def test_gate_without_a_pair_is_one(backend: str) -> None:
    teacher, target = as_map(*NO_DEPTH, 3.0, 3.0), as_map(*[2.0] * 5, torch.nan, 90.0)
    assert teacher_gate(teacher, target, backend=backend).tolist() == [[[[1.0] * 7]]]
    assert teacher_gate(as_map(-2.0, -2.0), as_map(2.0, 0.0), backend=backend).tolist() == [[[[1.0, 1.0]]]]


@on_both
@either_way
def test_an_image_with_nothing_valid_adds_exactly_nothing(backend: str, normalize: str) -> None:
    """Per image the sum is divided by the number of all images, so the loss halves and nothing else changes."""
    maps = scene(dtype=torch.float32)
    alone = _result(tuple(t[:1] for t in maps), backend=backend, normalize=normalize)
    empty = torch.full_like(maps[0][:1], torch.nan)
    joined = _result(tuple(torch.cat((t[:1], empty)) for t in maps), backend=backend, normalize=normalize)
    share = 2 if normalize == "image" else 1
    for ours, theirs in zip(joined[:4], alone[:4], strict=True):
        same_but_for_rounding(share * ours, theirs)
    for ours, theirs in zip(joined[4:], alone[4:], strict=True):
        torch.testing.assert_close(share * ours[:1], theirs, rtol=1e-6, atol=0)
        assert torch.count_nonzero(ours[1]) == 0


@on_both
def test_per_image_is_the_mean_of_the_images_losses(backend: str) -> None:
    maps = scene(dtype=torch.float32)
    whole = _result(maps, backend=backend, normalize="image")
    each = [_result(tuple(t[i : i + 1] for t in maps), backend=backend) for i in range(3)]
    for number in range(4):
        torch.testing.assert_close(whole[number], torch.stack([one[number] for one in each]).mean())
    for number in (4, 5):
        torch.testing.assert_close(whole[number], torch.cat([one[number] for one in each]) / 3)
    assert not torch.equal(whole[0], _result(maps, backend=backend)[0])


@on_both
def test_single_losses_per_image(backend: str) -> None:
    depth, log_scale, teacher, target = scene()
    for run in (
        lambda i, **o: silog_loss(depth[i], target[i], **o),
        lambda i, **o: laplace_nll(depth[i], log_scale[i], target[i], **o),
        lambda i, **o: focal_response_loss(depth[i], teacher[i], **o),
        lambda i, **o: uncertainty_guide(log_scale[i], teacher[i] > 0, **o).mean(),
    ):
        each = torch.stack([run(slice(i, i + 1), backend="torch") for i in range(3)])
        torch.testing.assert_close(run(slice(None), normalize="image", backend=backend), each.mean())


@on_both
@either_way
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -7.0, 3.0])
def test_a_batch_with_nothing_valid_is_exactly_zero(garbage: float, backend: str, normalize: str) -> None:
    none = torch.full((2, 1, 3, 4), torch.nan)
    anything = torch.full((2, 1, 3, 4), garbage)
    for value in _result((anything, anything, none, none), backend=backend, normalize=normalize):
        assert torch.count_nonzero(value) == 0


@on_both
def test_a_nan_prediction_at_a_valid_pixel_is_told(backend: str) -> None:
    depth, log_scale, teacher, target = (t.detach() for t in scene())
    for at, told in (((target > 0) & (teacher == 0), (True, True, False)), (teacher > 0, (True, True, True))):
        broken = depth.masked_fill(at, torch.nan)
        terms = depth_objective(broken, log_scale, teacher, target, backend=backend)
        assert tuple(bool(t.isnan()) for t in terms[1:]) == told
        assert terms.total.isnan()
    terms = depth_objective(depth, log_scale.masked_fill(teacher > 0, torch.nan), teacher, target, backend=backend)
    assert tuple(bool(t.isnan()) for t in terms) == (True, False, True, True)


@on_both
def test_clamped_values_get_no_gradient_and_their_ends_do(backend: str) -> None:
    at_ends = as_map(1e-3, 80.0, 1e-4, 81.0, 0.0, -3.0, torch.inf).requires_grad_()
    s = as_map(-6.0, 3.0, -6.1, 3.1, -torch.inf, torch.inf, 0.0).requires_grad_()
    ten = torch.full_like(at_ends, 10.0).detach()
    total = depth_objective(at_ends, s, ten, ten, joint=True, backend=backend).total
    for grad, clamped in zip(torch.autograd.grad(total, (at_ends, s)), (slice(2, 7), slice(2, 6)), strict=True):
        assert torch.count_nonzero(grad[..., clamped]) == 0
        assert torch.count_nonzero(grad[..., :2]) == 2


@on_both
def test_where_the_depth_is_right_its_sign_is_zero(backend: str) -> None:
    depth = (torch.rand(1, 1, 40, 50) * 60 + 1).requires_grad_()
    truth = depth.detach().clone()
    for loss in (
        laplace_nll(depth, torch.zeros_like(truth), truth, joint=True, backend=backend),
        focal_response_loss(depth, truth, backend=backend),
    ):
        assert torch.count_nonzero(torch.autograd.grad(loss, depth)[0]) == 0


# --- precision, order, determinism


@on_both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_fp32_whatever_autocast_says(dtype: torch.dtype, backend: str) -> None:
    maps = tuple(t.detach() for t in scene(dtype=dtype))
    expected = depth_objective(*(t.float() for t in maps), backend=backend)
    with torch.autocast(maps[0].device.type, torch.bfloat16):
        got = depth_objective(*maps, backend=backend)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == torch.float32
        same_but_for_rounding(ours, theirs)


@on_both
def test_one_fp64_map_makes_all_results_fp64(backend: str) -> None:
    depth, log_scale, teacher, target = (t.detach() for t in scene(dtype=torch.float32))
    for number in range(4):
        maps = [t.double() if i == number else t for i, t in enumerate((depth, log_scale, teacher, target))]
        assert {t.dtype for t in depth_objective(*maps, backend=backend)} == {torch.float64}


@on_both
@either_way
def test_permuting_the_batch_permutes_the_gradients(backend: str, normalize: str) -> None:
    maps, order = scene(), [2, 0, 1]
    one = _result(maps, backend=backend, normalize=normalize)
    other = _result(tuple(t[order] for t in maps), backend=backend, normalize=normalize)
    torch.testing.assert_close(one[:4], other[:4])
    for ours, theirs in zip(one[4:], other[4:], strict=True):
        torch.testing.assert_close(ours[order], theirs)


@on_both
@pytest.mark.parametrize("factor", [0.25, 1 / 7])
def test_scaling_depth_and_target_together_changes_no_silog(factor: float, backend: str) -> None:
    """The kernel's to the bit, where the factor is a power of two; for variance_focus 1 depth may be scaled alone."""
    depth, _, _, target = (t.detach().float() for t in scene())

    def loss(by: float, to: float, focus: float) -> Tensor:
        return silog_loss(depth * by, target * to, focus, backend=backend)

    exactly = {"rtol": 0, "atol": 0} if factor == 0.25 and backend == "triton" else {}
    for focus in (0.85, 1.0):
        torch.testing.assert_close(loss(factor, factor, focus), loss(1, 1, focus), **exactly)
    torch.testing.assert_close(loss(factor, 1, 1.0), loss(1, 1, 1.0))


@on_both
def test_same_bits_twice(backend: str) -> None:
    maps = scene(dtype=torch.float32)
    _same_bits(_result(maps, backend=backend), _result(maps, backend=backend))
