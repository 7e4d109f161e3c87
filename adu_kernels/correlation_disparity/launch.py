"""The Triton kernels as two PyTorch operators, their launch table, and how they are started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import accumulator, factor, in_parts
from .._triton.layout import (
    by_layout,
    ceil_div,
    divided_strides,
    empty_like_map,
    map_layout,
    needs_int64,
    power_of_two,
    unit_stride,
)
from .._triton.operators import operator
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype
from ..stereo import reduction_factor

if TYPE_CHECKING:
    from .kernels import DisparityConfig


class DisparityOptions(NamedTuple):
    """One call, as the operator below takes it after its tensors."""

    num_disparities: int
    softmax_scale: float
    reduction: str
    zero_fill: bool
    sign: int
    """match = base − sign·d."""


@dataclass(frozen=True)
class Tile:
    """Columns of either map, and channels at a time, of one program; in the backward, of how many such chunks of
    channels it keeps the gradient: the scores are made again for every so many. With a window, so many columns of the
    other map at a time, the scores are made once and the gradient so many chunks at a time."""

    block: int
    channels: int
    chunks: int
    num_warps: int
    num_stages: int
    window: int = 0


# HALF and HALF_BACKWARD are measured (H200, Triton 3.6.0, bench/results/h200, B 8, C 320, D 48, 64×128): forward
# 36.5 µs, in two stages 41 (65f2ad8); backward 178 µs with 5 chunks, which make the scores once for 320 channels, 287
# with 3, 387 with 2. Where products take their factors from registers 5 chunks spill (616 bytes a thread on sm_120),
# and 2 are kept. The other rows are chosen from the machine code (README).
HALF = Tile(block=64, channels=64, chunks=1, num_warps=4, num_stages=4)
HALF_INT64 = Tile(block=64, channels=64, chunks=1, num_warps=4, num_stages=1)  # in two stages sm_80 spills 16 bytes
HALF_BACKWARD = Tile(block=64, channels=64, chunks=5, num_warps=8, num_stages=1)
HALF_BACKWARD_FROM_REGISTERS = Tile(block=64, channels=64, chunks=2, num_warps=8, num_stages=1)
WIDER = Tile(block=32, channels=32, chunks=1, num_warps=4, num_stages=1)
WIDER_BACKWARD = Tile(block=32, channels=64, chunks=1, num_warps=8, num_stages=1)
# fp32 in parts of bf16, not measured since they are made by whole numbers. Executed counts, of an A100's DRAM time:
# forward 1.0; backward 1.9, with 32 columns and the scores made again for 3 chunks of 32 channels 7.6. Up to 49
# disparities take one window.
PARTS = Tile(block=64, channels=32, chunks=1, num_warps=4, num_stages=2)
PARTS_BACKWARD = Tile(block=16, channels=16, chunks=2, num_warps=4, num_stages=2, window=64)


@operator("adu_kernels::correlation_disparity")
def correlation_disparity_maps(
    base: Tensor, match: Tensor, num_disparities: int, softmax_scale: float, reduction: str, zero_fill: bool, sign: int
) -> Tensor:
    """3×B×H×W: mean, variance, and the logarithm of the softmax's denominator."""
    from . import kernels  # Triton is needed only where a kernel runs

    options = DisparityOptions(num_disparities, softmax_scale, reduction, zero_fill, sign)
    maps = _new_maps(base, match, *options)
    batch, _, height, width = base.shape
    half = HALF_INT64 if needs_int64([base, match]) else HALF
    factored = in_parts(base)
    tile = half if _on_matrix_units(base, match) else PARTS if factored else WIDER
    config = _config([base, match], tile, reduction, sign, factored)._replace(ZERO_FILL=zero_fill)
    tiles = ceil_div(width, tile.block)
    runtime.run(
        kernels.expectation, batch * height * tiles,
        base, match, *maps, softmax_scale, height, width, num_disparities, tiles,
        *divided_strides([base, match], config.LAYOUT.STRIDE_DIVISOR), config=config, **_options(tile),
    )  # fmt: skip
    return maps


@correlation_disparity_maps.register_fake
def _new_maps(base: Tensor, match: Tensor, *options: Any) -> Tensor:
    batch, _, height, width = base.shape
    return base.new_empty((3, batch, height, width), dtype=accumulation_dtype(base))


@operator("adu_kernels::correlation_disparity_backward")
def correlation_disparity_backward(
    maps: Tensor,
    base: Tensor,
    match: Tensor,
    needed: list[bool],
    num_disparities: int,
    softmax_scale: float,
    reduction: str,
    sign: int,
) -> list[Tensor]:
    """Gradients of those of the two maps that need one. maps: 5×B×H×W, see the kernel."""
    from . import kernels

    grads = _new_gradients(maps, base, match, needed)
    batch, _, height, width = base.shape
    half = HALF_BACKWARD if runtime.products_from_shared_memory() else HALF_BACKWARD_FROM_REGISTERS
    factored = in_parts(base)
    tile = half if _on_matrix_units(base, match) else PARTS_BACKWARD if factored else WIDER_BACKWARD
    config = _config([base, match, *grads], tile, reduction, sign, factored)
    config = config._replace(CHUNKS=tile.chunks, WINDOW=tile.window, NEEDS_BASE=needed[0], NEEDS_MATCH=needed[1])
    tiles = ceil_div(width, tile.block)
    parts = 1 if tile.window else ceil_div(base.shape[1], tile.chunks * config.BLOCK_C)
    given = iter(grads)
    written = [next(given) if need else grads[0] for need in needed]  # where none is needed, none is written
    runtime.run(
        kernels.expectation_backward, batch * height * tiles * parts * len(grads),
        base, match, maps, *written, softmax_scale, height, width, num_disparities, tiles, batch * height * width,
        *divided_strides([base, match, *written], config.LAYOUT.STRIDE_DIVISOR), config=config, **_options(tile),
    )  # fmt: skip
    return grads


@correlation_disparity_backward.register_fake
def _new_gradients(maps: Tensor, base: Tensor, match: Tensor, needed: list[bool], *options: Any) -> list[Tensor]:
    return [empty_like_map(m) for m, need in zip((base, match), needed, strict=True) if need]


def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    keep(ctx, "correlation_disparity", inputs[:2], [output])
    ctx.options = DisparityOptions(*inputs[2:])


def backward(ctx: Any, grad_output: Tensor) -> tuple:
    (base, match), (output,) = kept(ctx, lambda *pair: [correlation_disparity_maps(*pair, *ctx.options)])
    needed = list(ctx.needs_input_grad[:2])
    maps = torch.cat((output, grad_output[:2]))
    num_disparities, softmax_scale, reduction, _, sign = ctx.options
    grads = iter(
        correlation_disparity_backward(maps, base, match, needed, num_disparities, softmax_scale, reduction, sign)
    )
    return *(next(grads) if need else None for need in needed), None, None, None, None, None


differentiable_once(
    correlation_disparity_maps,
    correlation_disparity_backward,
    setup_context=setup_context,
    backward=backward,
    operation=lambda *_: "correlation_disparity",
)


def _on_matrix_units(base: Tensor, match: Tensor) -> bool:
    """2-byte maps whose channels lie next to each other: those can run ahead into shared memory."""
    return base.dtype.itemsize == 2 and unit_stride([base, match], 1)


@by_layout
def _config(tensors: list[Tensor], tile: Tile, reduction: str, sign: int, parts: bool) -> DisparityConfig:
    """What both kernels are compiled for. tensors: the maps, and the gradients that are written."""
    from .kernels import DisparityConfig

    channels = tensors[0].shape[1]
    return DisparityConfig(
        C=channels,
        BLOCK=tile.block,
        BLOCK_C=min(tile.channels, max(power_of_two(channels), 16)),
        SIGN=sign,
        INT64=needs_int64(tensors),
        SCALE=reduction_factor(reduction, channels),
        LAYOUT=map_layout(tensors),
        DOT=str(factor(tensors[0])),
        ACC=str(accumulator(tensors[0])),
        IN_PARTS=parts and not runtime.interpreting(),
    )


def _options(tile: Tile) -> dict[str, Any]:
    return {"num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": False}
