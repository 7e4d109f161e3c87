"""How the kernels of `cosine_features` are started, and PyTorch's operators and their backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.layout import power_of_two
from .._triton.operators import operator
from ..checks import shown
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype
from . import table
from .launch import join, new_partials, statistics, totals
from .reference import SHORTEST
from .table import LaunchShape, Layout, Plan, Tile, layout_of


def cosine_features(x: Tensor, eps: float = 1e-5) -> Tensor:
    if x.shape[1] > MOST_CHANNELS:
        raise ValueError(f"x: expected at most {MOST_CHANNELS} channels, got {shown(x.shape)}: use backend='torch'")
    y, _, _ = torch.ops.adu_kernels.cosine_features(x, eps)
    return y


# Chosen from the machine code, no row is measured yet.
UNIT = LaunchShape(elements=4096, programs=132 * 16)
UNIT_SUMS = LaunchShape(elements=2048, programs=132 * 4)
UNIT_GRADIENT = LaunchShape(elements=2048, programs=132 * 16)
MOST_CHANNELS = 8192
"""A tile has all channels of a position."""


def _tile(shape: LaunchShape, x: Tensor) -> Tile:
    lanes = power_of_two(x.shape[1])
    elements = shape.elements // 4 if x.dtype == torch.float64 else shape.elements
    return Tile(max(elements // lanes, 1), lanes, 1, 1)


def _plan(shape: LaunchShape, x: Tensor, layout: Layout) -> Plan:
    return table.plan(shape, x, x.shape[1], layout, tile=_tile(shape, x))


@operator("adu_kernels::cosine_features")
def unit(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """y; of each image and channel the mean and what its rounding leaves out (B×C×2), and 1/√(variance + eps), B×C."""
    from . import unit_length  # here and below: Triton is needed only where a kernel runs

    y, mean, rstd = outputs = _new_outputs(x, eps)
    layout = layout_of([x, y])
    of_map = table.plan(table.STATISTICS, x, x.shape[1], layout, eps=eps)
    partials = statistics(x, mean, layout, of_map)
    join(partials, mean, rstd, of_map.config)
    programs, _, cut, config, options = _plan(UNIT, x, layout)
    runtime.run(
        unit_length.unit_length, programs, x, mean, rstd, y, *layout.strides[0], *layout.strides[1],
        *layout.sizes, cut.chunks, cut.tiles, LEAST=SHORTEST, config=config, **options,
    )  # fmt: skip
    return outputs


@unit.register_fake
def _new_outputs(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    dtype = accumulation_dtype(x)
    mean, rstd = x.new_empty((*x.shape[:2], 2), dtype=dtype), x.new_empty(x.shape[:2], dtype=dtype)
    return torch.empty_like(x), mean, rstd


@operator("adu_kernels::cosine_features_backward")
def unit_backward(grad_output: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """Gradient of x."""
    from . import unit_length

    grad_x = torch.empty_like(x)
    batch, channels = x.shape[:2]
    layout = layout_of([x, grad_output, grad_x])
    of_x, of_g, of_d = layout.strides
    programs, _, cut, config, options = _plan(UNIT_SUMS, x, layout)
    partials = new_partials(mean, 2, batch, cut.chunks, channels)
    runtime.run(
        unit_length.unit_gradient_sums, programs, x, mean, rstd, grad_output, partials, *of_x, *of_g,
        *layout.sizes, cut.chunks, cut.tiles, batch,
        LEAST=SHORTEST, config=config, **options,
    )  # fmt: skip
    sums, per_channel = (mean.new_empty((2, batch, channels)) for _ in range(2))  # a channel is a group: alike
    totals(partials, None, sums, per_channel, config)
    programs, _, cut, config, options = _plan(UNIT_GRADIENT, x, layout)
    runtime.run(
        unit_length.unit_input_gradient, programs, x, mean, rstd, grad_output, sums, grad_x,
        *of_x, *of_g, *of_d, *layout.sizes, cut.chunks, cut.tiles, batch,
        LEAST=SHORTEST, config=config, **options,
    )  # fmt: skip
    return grad_x


@unit_backward.register_fake
def _(grad_output: Tensor, x: Tensor, *others: object) -> Tensor:
    return torch.empty_like(x)


def _setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, ...]) -> None:
    _, mean, rstd = output
    keep(ctx, "cosine_features", [inputs[0], mean, rstd])
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_output: Tensor | None, *others: None) -> tuple[Tensor | None, None]:
    (x, mean, rstd), _ = kept(ctx)
    return (None if grad_output is None else unit_backward(grad_output, x, mean, rstd)), None


differentiable_once(
    unit, unit_backward,
    setup_context=_setup_context, backward=_backward, operation=lambda *_: "cosine_features",
)  # fmt: skip
