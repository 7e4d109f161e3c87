"""Starts the loss kernels. Levels as op.py has checked them; `plan` decides, nothing is measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import accumulator
from .._triton.layout import INT32_LIMIT, ceil_div, needs_int64
from ..precision import accumulation_dtype
from . import kernels, plan, pooling
from .reference import POWER_FLOOR

UNFUSED = {"enable_fp_fusion": False}
"""Fused with a sum across lanes, a product would be rounded in one of them alone, and both would be stored."""


def forward(adapted: Sequence[Tensor], teacher: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Losses and slopes of all levels, in two launches."""
    levels = _levels(weights, adapted, teacher)
    constants = plan.constants(levels, [*adapted, *teacher, *weights], bool(weights))
    shapes, *strides = plan.passed(levels)
    acc = accumulator(*adapted, *teacher)
    programs = sum(one.programs for one in levels)
    partials, losses, slopes = (
        adapted[0].new_empty(size, dtype=accumulation_dtype(*adapted, *teacher))
        for size in (2 * programs, len(levels), len(levels))
    )
    runtime.run(
        kernels.sums, programs, partials, tuple(adapted), tuple(teacher), tuple(weights or adapted), shapes, *strides,
        **constants, ACC=acc, num_warps=plan.LOSS.warps, **UNFUSED,
    )  # fmt: skip
    runtime.run(
        kernels.finish, len(levels), partials, losses, slopes, plan.spans(levels), programs,
        LEVELS=len(levels), TILE=plan.FINISH.values, FLOOR=POWER_FLOOR, ACC=acc,
        num_warps=plan.FINISH.warps, **UNFUSED,
    )  # fmt: skip
    return losses, slopes


def backward(
    upstream: Tensor, slopes: Tensor, adapted: Sequence[Tensor], teacher: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[Tensor]:
    """The gradients of the adapted maps, in one launch."""
    gradients = [torch.empty_like(one) for one in adapted]
    levels = _levels(weights, adapted, teacher, gradients)
    constants = plan.constants(levels, [*adapted, *teacher, *gradients, *weights], bool(weights))
    shapes, adapted_strides, teacher_strides, gradient_strides, weight_strides = plan.passed(levels)
    runtime.run(
        kernels.gradients, sum(one.programs for one in levels),
        upstream, slopes, tuple(adapted), tuple(teacher), tuple(weights or adapted), tuple(gradients),
        upstream.stride(0), shapes, adapted_strides, teacher_strides, weight_strides, gradient_strides,
        **constants, ACC=accumulator(*adapted, *teacher), num_warps=plan.LOSS.warps, **UNFUSED,
    )  # fmt: skip
    return gradients


def pool(weight: Tensor, pooled: list[Tensor]) -> list[Tensor]:
    """Writes the averages of a B×1×H×W map into `pooled`, B×1×h×w each, in one launch."""
    batch, _, height, width = weight.shape
    strides = (weight.stride(0), weight.stride(2), weight.stride(3))
    order = plan.nested_cells((height, width), [(one.shape[2], one.shape[3]) for one in pooled])
    acc = accumulator(weight)
    if order:
        cells = tuple(height // pooled[number].shape[2] for number in order)
        columns = max(plan.POOL.columns, cells[-1])
        tiles = ceil_div(width, columns)
        vector = plan.row_vector(weight)
        config = pooling.NestedConfig(len(cells), cells, columns, vector > 1, vector, needs_int64([weight]), str(acc))
        runtime.run(
            pooling.nested, batch * (height // cells[-1]) * tiles,
            weight, tuple(pooled[number] for number in order), height, width, *strides, tiles,
            config=config, num_warps=plan.POOL.warps, **UNFUSED,
        )  # fmt: skip
        return pooled
    spans, first = [], 0
    for one in pooled:
        spans.append((first, one.shape[2], one.shape[3]))
        first += ceil_div(one.numel(), plan.POOL.cells)
    int64 = needs_int64([weight, *pooled]) or any(
        max(height * one.shape[2], width * one.shape[3]) >= INT32_LIMIT // 2 for one in pooled
    )
    runtime.run(
        pooling.windows, first, weight, tuple(pooled), plan.encoded(spans), height, width, *strides, batch,
        LEVELS=len(pooled), CELLS=plan.POOL.cells, SPAN=plan.POOL.span, INT64=int64, ACC=acc,
        num_warps=plan.POOL.warps, **UNFUSED,
    )  # fmt: skip
    return pooled


def _levels(weights: Sequence[Tensor], *maps: Sequence[Tensor]) -> list[plan.Level]:
    per_level: Sequence[Tensor | None] = weights or [None] * len(maps[0])
    return [plan.level(level, weight) for level, weight in zip(zip(*maps, strict=True), per_level, strict=True)]
