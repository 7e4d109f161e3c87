"""Operations take numpy's scalars, and arrays and tensors without dimensions, as the numbers they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import adu_kernels
from adu_kernels import ConcatFreeConv3d
from adu_kernels.checks import check_count, check_number

KINDS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda value: np.int64(value) if isinstance(value, int) else np.float64(value),
    "narrow": lambda value: np.uint8(value) if isinstance(value, int) else np.float32(value),
    "array": np.array,
    "tensor": torch.tensor,
}
TRUE, ONES = torch.tensor(True, device="cpu"), torch.ones(1, device="cpu")
# v, m: a volume and a map, made in each test, for where its tensors lie is not known when this file is read.
CALLS: dict[str, Callable[[Tensor, Tensor, Callable[[Any], Any], dict[str, str]], Any]] = {
    "groupwise_correlation_volume": lambda v, m, n, o: _call(v, v, n(3), n(2), normalize="all", eps=n(0.5), **o),
    "correlation_volume": lambda v, m, n, o: _call(v, v, n(3), **o),
    "concatenation_volume": lambda v, m, n, o: _call(v, v, n(3), **o),
    "combined_volume": lambda v, m, n, o: _call(v, v, v, v, n(3), n(2), eps=n(0.5), **o),
    "correlation_disparity": lambda v, m, n, o: _call(v, v, n(3), softmax_scale=n(0.5), **o),
    "disparity_regression": lambda v, m, n, o: _call(v, n(2), start=n(1.0), interval=n(0.5), temperature=n(0.5), **o),
    "attention_adaptation": lambda v, m, n, o: _call(v, v, v, softmax_scale=n(0.5), **o),
    "pooled_guide": lambda v, m, n, o: _call(m, [(n(1), n(2))], **o),
    "silog_loss": lambda v, m, n, o: _call(m, m + 1, n(0.5), n(0.25), n(64.0), **o),
    "laplace_nll": lambda v, m, n, o: _call(m, m, m + 1, False, n(0.25), n(64.0), n(0.5), **o),
    "focal_response_loss": lambda v, m, n, o: _call(m, m + 1, None, n(8.0), n(2.0), False, n(0.25), n(64.0), **o),
    "uncertainty_guide": lambda v, m, n, o: _call(m, m > 1.5, strength=n(0.5), **o),
    "teacher_gate": lambda v, m, n, o: _call(m, m + 1, n(4.0), n(0.25), n(64.0), **o),
    "depth_objective": lambda v, m, n, o: _call(
        m, m, m + 1, m + 2, weights=(n(1.0), n(2.0), n(4.0)), guide_strength=n(0.5), beta=n(8.0),
        gamma=n(2.0), beta_nll=n(0.5), variance_focus=n(0.5), min_depth=n(0.25), max_depth=n(64.0), **o,
    ),
    "depth_gradient_normal_loss": lambda v, m, n, o: _call(
        m, m + 1, weights=(n(1.0), n(2.0), n(4.0), n(0.5)), offset=n(0.5), min_depth=n(0.25), max_depth=n(64.0), **o
    ),
    "cosine_features": lambda v, m, n, o: _call(v, n(0.5), **o),
    "group_norm": lambda v, m, n, o: _call(v, n(2), eps=n(0.5), **o),
}  # fmt: skip


def _inputs() -> tuple[Tensor, Tensor]:
    return torch.rand(1, 4, 3, 5), torch.rand(1, 1, 3, 5) + 1


def _call(*arguments: Any, operation: str, backend: str, **options: Any) -> list[Tensor]:
    found = getattr(adu_kernels, operation)(*arguments, **options, backend=backend)
    return [found] if isinstance(found, Tensor) else list(found)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("operation", CALLS)
def test_they_are_the_numbers_they_say(operation: str, backend: str) -> None:
    options = {"operation": operation, "backend": backend}
    inputs = _inputs()
    want = CALLS[operation](*inputs, lambda value: value, options)
    for kind, number in KINDS.items():
        for got, expected in zip(CALLS[operation](*inputs, number, options), want, strict=True):
            assert torch.equal(got, expected), kind


FLAGS: dict[str, Callable[[Tensor, Tensor, Any, str], Any]] = {
    "zero_fill": lambda v, m, flag, b: adu_kernels.correlation_disparity(v, v, 3, zero_fill=flag, backend=b),
    "mask_left": lambda v, m, flag, b: [adu_kernels.concatenation_volume(v, v, 3, mask_left=flag, backend=b)],
    "joint": lambda v, m, flag, b: [adu_kernels.laplace_nll(m, m, m + 1, joint=flag, backend=b)],
    "detach_focal": lambda v, m, flag, b: [adu_kernels.focal_response_loss(m, m + 1, detach_focal=flag, backend=b)],
    "gate": lambda v, m, flag, b: adu_kernels.depth_objective(m, m, m + 1, m + 2, gate=flag, backend=b),
}


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("name", FLAGS)
def test_flags_may_be_numpy_s_and_nothing_but_flags(name: str, backend: str) -> None:
    inputs = _inputs()
    for flag in (True, False):
        want = FLAGS[name](*inputs, flag, backend)
        for kind in (np.bool_, np.array, torch.tensor):
            assert all(map(torch.equal, FLAGS[name](*inputs, kind(flag), backend), want)), kind
    for wrong in (1, np.int64(1), "yes", None):
        with pytest.raises(TypeError, match=f"{name}: expected True or False, got"):
            FLAGS[name](*inputs, wrong, backend)


@pytest.mark.cpu
def test_a_module_holds_python_s_numbers() -> None:
    module = ConcatFreeConv3d(np.int64(2), np.int64(3), np.int64(4))  # type: ignore[arg-type]
    assert type(module.num_disparities) is int


@pytest.mark.cpu
@pytest.mark.parametrize("value", [True, np.True_, TRUE, np.ones(1), ONES, "3", None])
def test_bool_and_what_is_no_number_stays_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="count: expected a whole number"):
        check_count("count", value)
    with pytest.raises(TypeError, match="number: expected a finite number"):
        check_number("number", value)


@pytest.mark.cpu
def test_their_limits_are_the_same() -> None:
    with pytest.raises(TypeError, match=r"expected a whole number ≥ 1, got 2\.5"):
        check_count("count", np.float32(2.5))
    with pytest.raises(ValueError, match="got 0"):
        check_count("count", np.int8(0))
    for value in (np.float32("nan"), np.float64("inf"), torch.tensor(-1.0)):
        with pytest.raises(ValueError, match="expected a finite number in"):
            check_number("number", value, 0.0)
