"""Correlation disparity: the reference against its definition, the kernels against the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import adu_kernels
from adu_kernels import correlation_disparity, reference
from adu_kernels._triton import runtime
from adu_kernels.testing.parity import (
    Operation,
    check_layouts,
    check_parity,
    check_whole_graph,
    leaves,
    same_bits_in_any_order,
    same_but_for_rounding,
    saved_bytes,
)
from tests.kernels import plans


def _maps(*shape: int, dtype: torch.dtype = torch.float32, last: bool = False) -> list[Tensor]:
    layout = torch.channels_last if last else torch.contiguous_format
    return [torch.randn(shape).to(dtype).contiguous(memory_format=layout) for _ in range(2)]


def _operation(num_disparities: int, **options: Any) -> Operation:
    def bound(function: Any) -> Any:
        return lambda left, right, **more: function(left, right, num_disparities, **more)

    return Operation(bound(correlation_disparity), bound(reference.correlation_disparity), options)


@pytest.mark.cpu
@pytest.mark.parametrize("view", ["left", "right"])
@pytest.mark.parametrize("zero_fill", [False, True])
def test_the_definition_pixel_by_pixel(view: str, zero_fill: bool) -> None:
    left, right = _maps(1, 3, 1, 5, dtype=torch.float64)
    disparity, variance = correlation_disparity(
        left, right, 4, reduction="sum", softmax_scale=0.5, zero_fill=zero_fill, view=view
    )
    for x in range(5):
        scores = {}
        for d in range(4):
            a, b = (x, x - d) if view == "left" else (x + d, x)
            if b >= 0 and a < 5:
                scores[d] = 0.5 * (left[0, :, 0, a] * right[0, :, 0, b]).sum()
            elif zero_fill:
                scores[d] = torch.zeros((), dtype=torch.float64)
        weights = torch.softmax(torch.stack(list(scores.values())), 0)
        found = torch.tensor(list(scores), dtype=torch.float64)
        mean = (weights * found).sum()
        torch.testing.assert_close(disparity[0, 0, x], mean)
        torch.testing.assert_close(variance[0, 0, x], (weights * (found - mean) ** 2).sum())


@pytest.mark.cpu
def test_zero_fill_is_the_softmax_of_the_zero_filled_volume() -> None:
    left, right = _maps(2, 4, 2, 6)
    volume = adu_kernels.correlation_volume(left, right, 8)
    want = adu_kernels.disparity_regression(volume)
    torch.testing.assert_close(correlation_disparity(left, right, 8, zero_fill=True), want)


OPTIONS = {
    "plain": {},
    "right": {"view": "right"},
    "zero fill": {"zero_fill": True, "reduction": "sum", "softmax_scale": 0.25},
    "zero fill right": {"zero_fill": True, "view": "right", "reduction": "sqrt", "softmax_scale": 2.0},
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIONS)
def test_parity(name: str, dtype: torch.dtype) -> None:
    check_parity(_operation(5, **OPTIONS[name]), _maps(1, 6, 2, 9, dtype=dtype, last=True))


@pytest.mark.parametrize(
    ("shape", "disparities"),
    [((1, 3, 1, 1), 4), ((2, 1, 1, 5), 9), ((1, 35, 1, 75), 40), ((1, 130, 1, 3), 2), ((1, 35, 1, 90), 80)],
    ids=["a pixel", "D > W", "several blocks", "several chunks of channels", "several windows"],
)
@pytest.mark.parametrize("options", [{}, {"zero_fill": True, "view": "right"}], ids=["left", "right"])
def test_odd_sizes(shape: tuple[int, ...], disparities: int, options: dict) -> None:
    check_parity(_operation(disparities, **options), _maps(*shape))


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_drawn_shapes(data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, most)) for most in (2, 20, 2, 70)]
    options = {"zero_fill": data.draw(st.booleans()), "view": data.draw(st.sampled_from(["left", "right"]))}
    maps = _maps(*shape, dtype=torch.float64, last=data.draw(st.booleans()))
    check_parity(_operation(data.draw(st.integers(1, 80)), **options), maps, epsilon=1e-12)


def test_far_disparities_keep_a_small_variance() -> None:
    """One pixel matches at d = 900 alone: Σ d²·p − (Σ d·p)² would leave nothing of its variance in fp32."""
    left, right = torch.zeros(1, 1, 1, 1000), torch.ones(1, 1, 1, 1000)
    left[..., 999] = 1.0
    right[..., :99], right[..., 100:] = -30.0, -30.0
    right[..., 98] = 0.0
    (exact,) = (reference.correlation_disparity(left.double(), right.double(), 1000)[1][0, 0, 999],)
    got = correlation_disparity(left, right, 1000, backend="triton")[1][0, 0, 999]
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=0)


def test_gradcheck_of_the_kernels() -> None:
    for options in OPTIONS.values():
        assert torch.autograd.gradcheck(
            _operation(3, **options).triton, leaves(_maps(1, 2, 1, 4, dtype=torch.float64)), fast_mode=True
        )


def test_layouts_bits_and_tracing() -> None:
    operation, maps = _operation(5), _maps(1, 6, 2, 9)
    check_layouts(operation, maps)
    same_bits_in_any_order(operation, maps)
    check_whole_graph(operation, maps)


def test_a_compiler_that_takes_every_graph_for_an_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Dynamo of torch 2.11 does (test_cost_volume_triton.py)."""
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", torch.compiler.is_dynamo_compiling)
    check_whole_graph(_operation(3), _maps(1, 4, 1, 6))


@pytest.mark.parametrize("needed", [0, 1])
def test_a_gradient_alone(needed: int) -> None:
    maps = _maps(1, 4, 1, 6)
    maps[needed].requires_grad_()
    got, want = (
        torch.autograd.grad(sum(m.sum() for m in run(*maps)), maps[needed])[0]
        for run in (_operation(3).triton, _operation(3).torch)
    )
    torch.testing.assert_close(got, want)


def test_registration() -> None:
    left, right = (m.requires_grad_() for m in _maps(1, 4, 1, 6, last=True))
    torch.library.opcheck(torch.ops.adu_kernels.correlation_disparity.default, (left, right, 3, 0.5, "mean", True, -1))
    maps = torch.randn(5, 1, 1, 6)
    arguments = (maps, left.detach(), right.detach(), [True, True], 3, 0.5, "mean", 1)
    torch.library.opcheck(torch.ops.adu_kernels.correlation_disparity_backward.default, arguments)


def test_one_launch_each_way_and_no_volume_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    started, launches = runtime.run, []

    def run(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
        launches.append(kernel.__name__)
        started(kernel, programs, *arguments, **options)

    monkeypatch.setattr(runtime, "run", run)
    maps = leaves(_maps(1, 4, 2, 9))
    kept = saved_bytes(lambda: _operation(5).triton(*maps), maps)
    assert kept == 3 * 2 * 9 * 4  # mean, variance and log of the softmax's sum; the volume would be 5 such maps
    mean, variance = _operation(5).triton(*maps)
    torch.autograd.grad((mean.sum() + variance.sum()), maps)
    assert launches == ["expectation", "expectation", "expectation_backward"]


def test_int64_gives_the_same_numbers() -> None:
    from adu_kernels._triton.layout import needs_int64
    from adu_kernels.correlation_disparity import launch

    assert needs_int64([torch.empty(2**15, 64, 32, 33, device="meta")])
    assert not needs_int64([torch.empty(2**15, 64, 32, 32, device="meta")])

    def run() -> list[torch.Tensor]:
        torch.manual_seed(0)
        maps = leaves(_maps(1, 4, 2, 9))
        mean, variance = _operation(5, zero_fill=True).triton(*maps)
        return [mean, variance, *torch.autograd.grad((mean.sum() + variance.sum()), maps)]

    narrow = run()
    with plans.offsets_of_64_bits(launch):
        wide = run()
    for one, two in zip(narrow, wide, strict=True):
        same_but_for_rounding(one, two)


X = torch.zeros(1, 4, 2, 3, device="cpu")


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "right: .*left, 1×4×2×3", lambda: correlation_disparity(X, X[..., 1:], 2)),
        (ValueError, "num_disparities: .*got 0", lambda: correlation_disparity(X, X, 0)),
        (ValueError, "reduction: .*got 'max'", lambda: correlation_disparity(X, X, 2, reduction="max")),
        (ValueError, "view: .*got 'top'", lambda: correlation_disparity(X, X, 2, view="top")),
        (TypeError, "zero_fill: .*got 1", lambda: correlation_disparity(X, X, 2, zero_fill=1)),
        (ValueError, "softmax_scale: .*got inf", lambda: correlation_disparity(X, X, 2, softmax_scale=float("inf"))),
    ],
)
def test_bad_input_is_named(error: type[Exception], message: str, call: Any) -> None:
    with pytest.raises(error, match=message):
        call()
