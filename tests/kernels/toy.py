"""A small operation for the kit to be tried on: the weighted mean of every row. It can be built with a fault in it.

weighted_mean(values, weights): N×K, N×K → N, Σ_k w·v / Σ_k w. Made as those of adu_kernels are: one operator each way,
one launch each way, strides read, sums in fp32 (fp64 for fp64).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from adu_kernels._triton import runtime
from adu_kernels.backend import dispatch
from adu_kernels.derivatives import differentiable_once, keep, kept
from adu_kernels.precision import accumulation_dtype

BLOCK = 16
fault = "none"
"""Which fault the operation is built with; tests set it to one of those named below."""


@triton.jit
def mean_kernel(
    values, weights, means, totals, columns, value_n, value_k, weight_n, weight_k,
    BLOCK: tl.constexpr, ACC: tl.constexpr, FAULT: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    total, weighted = tl.zeros([BLOCK], ACC), tl.zeros([BLOCK], ACC)
    for start in range(0, columns, BLOCK):
        k = start + tl.arange(0, BLOCK)
        inside = k < columns
        if FAULT == "dropped mask":
            inside = k < columns + 1
        v = tl.load(values + row * value_n + k * value_k, mask=inside, other=0.0).to(ACC)
        w = tl.load(weights + row * weight_n + k * weight_k, mask=inside, other=0.0).to(ACC)
        total += w
        weighted += w * v
        if FAULT == "half sums":
            weighted = weighted.to(tl.float16).to(ACC)
    tl.store(totals + row, tl.sum(total))
    tl.store(means + row, tl.sum(weighted) / tl.sum(total))
    if FAULT == "race":  # one row's result is what the last program to run found
        tl.store(means, tl.sum(weighted) / tl.sum(total))


@triton.jit
def mean_gradient(
    values, weights, means, totals, upstream, grad_values, grad_weights, columns,
    value_n, value_k, weight_n, weight_k, grad_value_n, grad_value_k, grad_weight_n, grad_weight_k,
    BLOCK: tl.constexpr, ACC: tl.constexpr, FAULT: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    per_weight = tl.load(upstream + row).to(ACC) / tl.load(totals + row)
    mean = tl.load(means + row)
    for start in range(0, columns, BLOCK):
        k = start + tl.arange(0, BLOCK)
        inside = k < columns
        v = tl.load(values + row * value_n + k * value_k, mask=inside, other=0.0).to(ACC)
        w = tl.load(weights + row * weight_n + k * weight_k, mask=inside, other=0.0).to(ACC)
        if FAULT == "wrong gradient":
            mean = mean * 0
        if FAULT == "unwritten":
            inside = k < columns - 1
        tl.store(grad_values + row * grad_value_n + k * grad_value_k, per_weight * w, mask=inside)
        tl.store(grad_weights + row * grad_weight_n + k * grad_weight_k, per_weight * (v - mean), mask=inside)


def _constants(values: Tensor) -> dict[str, Any]:
    accumulator = tl.float64 if values.dtype == torch.float64 else tl.float32
    size = values.shape[1] if fault == "specialised size" else 0
    return {"BLOCK": BLOCK, "ACC": accumulator, "FAULT": fault, "SIZE": size, "num_warps": 1}


@torch.library.custom_op("adu_kernels_toy::weighted_mean", mutates_args=())
def _forward(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    means, totals = _new_results(values, weights)
    rows, columns = values.shape
    runtime.run(
        mean_kernel, rows, values, weights, means, totals, columns, *values.stride(), *weights.stride(),
        **_constants(values),
    )  # fmt: skip
    return means, totals


def _new_results(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    means, totals = (values.new_empty(values.shape[0], dtype=accumulation_dtype(values)) for _ in range(2))
    return means, totals


@_forward.register_fake
def _(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    means, totals = _new_results(values, weights)
    return (means.half(), totals) if fault == "wrong fake" else (means, totals)


@torch.library.custom_op("adu_kernels_toy::weighted_mean_backward", mutates_args=())
def _backward(
    values: Tensor, weights: Tensor, means: Tensor, totals: Tensor, upstream: Tensor
) -> tuple[Tensor, Tensor]:
    grad_values, grad_weights = _new_gradients(values, weights, means, totals, upstream)
    rows, columns = values.shape
    runtime.run(
        mean_gradient, rows, values, weights, means, totals, upstream.contiguous(), grad_values, grad_weights,
        columns, *values.stride(), *weights.stride(), *grad_values.stride(), *grad_weights.stride(),
        **_constants(values),
    )  # fmt: skip
    return grad_values, grad_weights


@_backward.register_fake
def _new_gradients(
    values: Tensor, weights: Tensor, means: Tensor, totals: Tensor, upstream: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(values), torch.empty_like(weights)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    means, totals = output
    keep(ctx, "weighted_mean", [*inputs, totals], [means])
    ctx.mark_non_differentiable(totals)


def _differentiate(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
    (values, weights, totals), (means,) = kept(ctx, lambda values, weights, _: _forward(values, weights)[:1])
    if fault == "unconnected gradient":
        values, weights = values.detach(), weights.detach()
    return _backward(values, weights, means, totals, upstream)


differentiable_once(
    _forward, _backward, setup_context=_keep, backward=_differentiate, operation=lambda *_: "weighted_mean"
)


def weighted_mean(values: Tensor, weights: Tensor, *, backend: str = "triton") -> Tensor:
    if fault == "host wait" and weights.sum().item() == 0:
        raise ValueError("weights: expected a positive sum in every row, got 0")
    run = dispatch("weighted_mean", backend, values, torch_twin=weighted_mean_reference, triton_twin=_triton)
    return run(values, weights)


def _triton(values: Tensor, weights: Tensor) -> Tensor:
    return _forward(values, weights)[0]


def weighted_mean_reference(values: Tensor, weights: Tensor) -> Tensor:
    values, weights = (t.to(accumulation_dtype(t)) for t in (values, weights))
    return (values * weights).sum(1) / weights.sum(1)
