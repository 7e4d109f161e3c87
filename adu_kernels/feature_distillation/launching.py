"""Starts the loss kernels. Levels as op.py has checked them; `plan` decides, nothing is measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from adu_kernels import launch
from adu_kernels.feature_distillation import kernels, plan, pooling
from adu_kernels.feature_distillation.reference import POWER_FLOOR
from adu_kernels.precision import accumulation_dtype

UNFUSED = {"enable_fp_fusion": False}
"""Fused with a sum across lanes, a product would be rounded in one of them alone, and both would be stored."""


def forward(adapted: Sequence[Tensor], teacher: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Losses and slopes of all levels, in two launches."""
    levels = _levels(weights, adapted, teacher)
    constants = plan.constants(levels, [*adapted, *teacher, *weights], bool(weights))
    shapes, *strides = plan.runtime(levels)
    accumulator = _accumulator(adapted, teacher)
    programs = sum(one.programs for one in levels)
    partials, losses, slopes = (
        adapted[0].new_empty(size, dtype=accumulation_dtype(*adapted, *teacher))
        for size in (2 * programs, len(levels), len(levels))
    )
    launch.run(
        kernels.sums, programs, partials, tuple(adapted), tuple(teacher), tuple(weights or adapted), shapes, *strides,
        **constants, ACC=accumulator, num_warps=plan.LOSS.warps, **UNFUSED,
    )  # fmt: skip
    launch.run(
        kernels.finish, len(levels), partials, losses, slopes, plan.spans(levels), programs,
        LEVELS=len(levels), TILE=plan.FINISH.values, FLOOR=POWER_FLOOR, ACC=accumulator,
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
    shapes, adapted_strides, teacher_strides, gradient_strides, weight_strides = plan.runtime(levels)
    launch.run(
        kernels.gradients, sum(one.programs for one in levels),
        upstream, slopes, tuple(adapted), tuple(teacher), tuple(weights or adapted), tuple(gradients),
        upstream.stride(0), shapes, adapted_strides, teacher_strides, weight_strides, gradient_strides,
        **constants, ACC=_accumulator(adapted, teacher), num_warps=plan.LOSS.warps, **UNFUSED,
    )  # fmt: skip
    return gradients


def pool(weight: Tensor, pooled: list[Tensor]) -> list[Tensor]:
    """Writes the averages of a B×1×H×W map into `pooled`, B×1×h×w each, in one launch."""
    batch, _, height, width = weight.shape
    strides = (weight.stride(0), weight.stride(2), weight.stride(3))
    order = plan.nested_cells((height, width), [(one.shape[2], one.shape[3]) for one in pooled])
    double = tl.float64 if weight.dtype == torch.float64 else tl.float32
    if order:
        cells = tuple(height // pooled[number].shape[2] for number in order)
        columns = max(plan.POOL.columns, cells[-1])
        tiles = plan.ceil_div(width, columns)
        vector = plan.row_vector(weight)
        launch.run(
            pooling.nested, batch * (height // cells[-1]) * tiles,
            weight, tuple(pooled[number] for number in order), height, width, *strides, tiles,
            LEVELS=len(order), CELLS=cells, COLUMNS=columns, UNIT=vector > 1, VEC=vector,
            INT64=plan.needs_int64([weight]), ACC=double, num_warps=plan.POOL.warps, **UNFUSED,
        )  # fmt: skip
        return pooled
    spans, first = [], 0
    for one in pooled:
        spans.append((first, one.shape[2], one.shape[3]))
        first += plan.ceil_div(one.numel(), plan.POOL.cells)
    int64 = plan.needs_int64([weight, *pooled]) or any(
        max(height * one.shape[2], width * one.shape[3]) >= plan.INT32_LIMIT // 2 for one in pooled
    )
    launch.run(
        pooling.windows, first, weight, tuple(pooled), plan.encoded(spans), height, width, *strides, batch,
        LEVELS=len(pooled), CELLS=plan.POOL.cells, SPAN=plan.POOL.span, INT64=int64, ACC=double,
        num_warps=plan.POOL.warps, **UNFUSED,
    )  # fmt: skip
    return pooled


def _levels(weights: Sequence[Tensor], *maps: Sequence[Tensor]) -> list[plan.Level]:
    per_level: Sequence[Tensor | None] = weights or [None] * len(maps[0])
    return [plan.level(level, weight) for level, weight in zip(zip(*maps, strict=True), per_level, strict=True)]


def _accumulator(adapted: Sequence[Tensor], teacher: Sequence[Tensor]) -> tl.dtype:
    return tl.float64 if accumulation_dtype(*adapted, *teacher) == torch.float64 else tl.float32
