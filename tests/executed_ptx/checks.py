"""What is asked of a case on executed PTX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adu_kernels.testing.parity import EPSILON, ROUNDING, check_error_budget, leaves, nan_filled_memory
from tests.executed_ptx.cases import Case


def check(gpu: Any, case: Case) -> None:
    """The error budget of the parity kit against fp64, everything watched; then the same bits when the programs start
    in another order, in step with others, and among other garbage."""
    inputs = case.inputs()
    upstream = [torch.randn_like(output, dtype=torch.float64).float() for output in case.pair.torch(*inputs)]
    given = leaves(inputs)
    with nan_filled_memory():
        first = _results(case.pair.triton, given, upstream)
    for number, (kept, value) in enumerate(zip(inputs, given, strict=True)):
        assert torch.equal(kept, value), f"input {number} was written to"
    assert set(gpu.record.launches) == case.kernels, sorted(gpu.record.launches)
    gpu.options = replace(gpu.options, order="shuffled", together=5, seed=gpu.options.seed + 1, checked=False)
    with nan_filled_memory():
        second = _results(case.pair.triton, leaves(inputs), upstream)
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        same = torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
        assert same, f"result {number} changes with the order of programs or with what memory held"
    plain = _results(case.pair.torch, leaves(inputs), upstream)
    exact = _results(case.pair.torch, leaves(inputs, torch.float64), upstream)
    for number, (got, want_like, want) in enumerate(zip(first, plain, exact, strict=True)):
        assert got.shape == want_like.shape, (number, got.shape, want_like.shape)
        assert got.dtype == want_like.dtype, (number, got.dtype, want_like.dtype)
        epsilon = EPSILON[inputs[0].dtype] + ROUNDING.get(got.dtype, 0.0)
        check_error_budget(got, want_like, want, epsilon, f"result {number}")


def _results(run: Any, inputs: Sequence[Tensor], upstream: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, and gradients of those inputs that have one."""
    outputs = run(*inputs)
    if not any(output.requires_grad for output in outputs):
        return list(outputs)
    weights = [weight.to(output.dtype) for weight, output in zip(upstream, outputs, strict=True)]
    gradients = torch.autograd.grad(outputs, inputs, weights, allow_unused=True)
    return [*outputs, *(gradient for gradient in gradients if gradient is not None)]
