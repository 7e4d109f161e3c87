"""The Triton kernels as two PyTorch operators, their launch table, and how they are started."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import accumulator, factor
from .._triton.layout import by_layout, ceil_div, divided_strides, map_layout, needs_int64, power_of_two
from .._triton.operators import operator
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype

if TYPE_CHECKING:
    from .kernels import ConvConfig

SLOTS = 32
"""Columns of the kernels' products."""
FEWEST_CHANNELS = 16
"""That a matrix product takes."""


@dataclass(frozen=True)
class Tile:
    """Positions of a tile, and how many channels of them are multiplied at a time."""

    positions: int
    channels: int
    num_warps: int
    num_stages: int


# HALF, HALF_BACKWARD and PROGRAMS are measured (H200, 65f2ad8, bench/results/h200: bf16, B 8, C 32, 48×64×128), the
# other rows chosen from the machine code and executed counts (README). Forward a tile with its border is read for its
# inside; 8 warps for 256 positions take 116 registers on sm_90, so that a multiprocessor has two programs, where 4
# warps for 256 or 8 for 512 leave it half as many warps. fp32 and fp64 products are made of single multiplications,
# unrolled: 256 positions ask shared memory for two thirds of what 64 do, and spill where channels are no neighbours.
# HALF_BACKWARD, 256 positions and 8 warps → 128 and 4: 225 → 165 µs. With 64-bit offsets or more channels 256 spill.
# PROGRAMS, 600 → 1056: 90 → 86 µs.
HALF = Tile(positions=256, channels=64, num_warps=8, num_stages=3)
HALF_CONTIGUOUS = Tile(positions=256, channels=64, num_warps=8, num_stages=1)
SINGLE = Tile(positions=256, channels=32, num_warps=8, num_stages=1)
SINGLE_CONTIGUOUS = Tile(positions=128, channels=32, num_warps=8, num_stages=1)
DOUBLE = Tile(positions=64, channels=16, num_warps=4, num_stages=1)
HALF_BACKWARD = Tile(positions=128, channels=32, num_warps=4, num_stages=2)
HALF_BACKWARD_CONTIGUOUS = Tile(positions=256, channels=32, num_warps=8, num_stages=2)  # 128: sm_120 spills 8 bytes
HALF_BACKWARD_NARROW = Tile(positions=128, channels=64, num_warps=8, num_stages=2)
WIDER_BACKWARD = Tile(positions=32, channels=32, num_warps=4, num_stages=1)
COLUMNS = 32
"""Of a forward tile where columns, not channels, are neighbours."""
PROGRAMS = 1056
"""Forward, a program takes so many planes that there are as many programs or a few more; at least
LEAST_PLANES, for two more are read than written."""
LEAST_PLANES = 4
PROGRAMS_BACKWARD = 528
"""At most, or one for each image and block of channels: each leaves a partial sum of the weight's gradient."""
PARTS, PARTS_WARPS = 128, 8
"""Partial sums that are added at once."""


class TileShape(NamedTuple):
    """Rows and columns of a forward tile; those at its edges (halo 1) are only read."""

    rows: int
    columns: int
    halo_h: int
    halo_w: int
    tiles_h: int
    tiles_w: int


@lru_cache(maxsize=256)
def tile_shape(height: int, width: int, positions: int, columns: int) -> TileShape:
    """The shape with the fewest tiles, of those the one that reads least. columns: as many if not 0."""
    found = [_shape(height, width, positions, c) for c in ([columns] if columns else range(1, positions + 1))]
    usable = [one for one in found if one is not None]

    def cost(one: TileShape) -> tuple[int, int]:
        read_h = height + 2 * one.halo_h * (one.tiles_h - 1)
        return one.tiles_h * one.tiles_w, read_h * (width + 2 * one.halo_w * (one.tiles_w - 1))

    return min(usable, key=cost)


def _shape(height: int, width: int, positions: int, columns: int) -> TileShape | None:
    """None where nothing is left between the edges."""
    rows = min(positions // columns, height + 2)
    halo_h, halo_w = int(rows < height), int(columns < width)
    inner_h, inner_w = rows - 2 * halo_h, columns - 2 * halo_w
    if inner_h < 1 or inner_w < 1:
        return None
    return TileShape(rows, columns, halo_h, halo_w, ceil_div(height, inner_h), ceil_div(width, inner_w))


@operator("adu_kernels::single_output_conv3d")
def single_output_conv3d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """B×1×D×H×W. All of one dtype; weight: 1×C×3×3×3, bias: 1."""
    from . import kernels  # Triton is needed only where a kernel runs

    y = _new_result(x, weight, bias)
    batch, _, depth, height, width = x.shape
    tile = _tile(x)
    layout = map_layout([x])
    columns = 0 if layout.CONTIGUOUS_C else min(COLUMNS, tile.positions // 8)
    shape = tile_shape(height, width, tile.positions, columns)
    tiles = batch * shape.tiles_h * shape.tiles_w
    planes = min(depth, max(LEAST_PLANES, ceil_div(depth, ceil_div(PROGRAMS, tiles))))
    config = _config([x], y, weight, tile)._replace(COLUMNS=columns, HAS_BIAS=bias is not None)
    tiles_d = ceil_div(depth, planes)
    runtime.run(
        kernels.convolution, tiles * tiles_d,
        x, weight, weight if bias is None else bias, y, depth, height, width,
        planes, shape.rows, shape.columns, shape.halo_h, shape.halo_w, tiles_d, shape.tiles_h, shape.tiles_w,
        *divided_strides([x], config.STRIDE_DIVISOR), *weight.stride()[1:], config=config, **_options(tile),
    )  # fmt: skip
    return y


@single_output_conv3d.register_fake
def _new_result(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], 1, *x.shape[2:]))


@operator("adu_kernels::single_output_conv3d_backward")
def single_output_conv3d_backward(grad_output: Tensor, x: Tensor, weight: Tensor, needed: list[bool]) -> list[Tensor]:
    """Gradients of those of x, weight and bias that need one."""
    from . import kernels

    grads = _new_gradients(grad_output, x, weight, needed)
    given = iter(grads)
    grad_x, grad_weight = (next(given) if need else None for need in needed[:2])
    if needed[2]:
        grads[-1] = grad_output.sum(dtype=accumulation_dtype(x)).to(x.dtype).reshape(1)
    if grad_x is None and grad_weight is None:
        return grads
    batch, channels, depth, height, width = x.shape
    tile = _backward_tile(x)
    volumes = [x] if grad_x is None else [x, grad_x]
    config = _config(volumes, grad_output, weight, tile)
    flat = all(_flat(volume, config.CONTIGUOUS_W) for volume in volumes) and _flat(grad_output, True)
    config = config._replace(FLAT=flat, NEEDS_X=grad_x is not None, NEEDS_WEIGHT=grad_weight is not None)
    blocks = ceil_div(depth * height * width, tile.positions)
    blocks = ceil_div(blocks, ceil_div(PROGRAMS_BACKWARD, batch * config.CHUNKS))
    parts = ceil_div(depth * height * width, blocks * tile.positions)
    programs = batch * parts * config.CHUNKS
    partials = x
    if grad_weight is not None:
        partials = x.new_empty(programs * config.BLOCK_C * SLOTS, dtype=accumulation_dtype(x))
    strides = divided_strides(volumes, config.STRIDE_DIVISOR)
    runtime.run(
        kernels.convolution_backward, programs,
        x, weight, grad_output, volumes[-1], partials, depth, height, width, parts, blocks,
        *strides[:5], *weight.stride()[1:], grad_output.stride(0), *grad_output.stride()[2:], *strides[-5:],
        config=config, **_options(tile),
    )  # fmt: skip
    if grad_weight is not None:
        sums = kernels.SumConfig(config.BLOCK_C * config.CHUNKS, PARTS, config.ACC)
        runtime.run(
            kernels.add_parts, channels, partials, grad_weight, batch * parts, *grad_weight.stride()[1:],
            config=sums, num_warps=PARTS_WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return grads


@single_output_conv3d_backward.register_fake
def _new_gradients(grad_output: Tensor, x: Tensor, weight: Tensor, needed: list[bool]) -> list[Tensor]:
    every = (torch.empty_like(x), torch.empty_like(weight), x.new_empty(1))
    return [grad for grad, need in zip(every, needed, strict=True) if need]


def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    keep(ctx, "single_output_conv3d", inputs[:2])


def backward(ctx: Any, grad_output: Tensor) -> tuple:
    (x, weight), _ = kept(ctx)
    needed = list(ctx.needs_input_grad)
    grads = iter(single_output_conv3d_backward(grad_output, x, weight, needed))
    return tuple(next(grads) if need else None for need in needed)


differentiable_once(
    single_output_conv3d,
    single_output_conv3d_backward,
    setup_context=setup_context,
    backward=backward,
    operation=lambda *_: "single_output_conv3d",
)


def _tile(x: Tensor) -> Tile:
    neighbours = map_layout([x]).CONTIGUOUS_C
    if x.dtype.itemsize == 2:
        return HALF if neighbours else HALF_CONTIGUOUS
    if x.dtype.itemsize == 4:
        return SINGLE if neighbours else SINGLE_CONTIGUOUS
    return DOUBLE


def _backward_tile(x: Tensor) -> Tile:
    if x.dtype.itemsize > 2:
        return WIDER_BACKWARD
    if x.shape[1] > HALF_BACKWARD.channels or needs_int64([x]):
        return HALF_BACKWARD_NARROW
    return HALF_BACKWARD if map_layout([x]).CONTIGUOUS_C else HALF_BACKWARD_CONTIGUOUS


def _flat(volume: Tensor, neighbours: bool) -> bool:
    """Whether the positions of an image lie at one stride. neighbours: at 1 (a single column's own stride says nothing
    of that)."""
    _, _, _, height, width = volume.shape
    step = volume.stride(4)
    if neighbours:
        if width > 1 and step != 1:
            return False
        step = 1
    return volume.stride()[2:4] == (height * width * step, width * step)


@by_layout
def _config(volumes: list[Tensor], output: Tensor, weight: Tensor, tile: Tile) -> ConvConfig:
    """volumes: x, and its gradient where one is written. output: or its gradient."""
    from .kernels import ConvConfig

    x = volumes[0]
    layout = map_layout(volumes)
    block = min(tile.channels, max(power_of_two(x.shape[1]), FEWEST_CHANNELS))
    return ConvConfig(
        C=x.shape[1],
        BLOCK_C=block,
        CHUNKS=ceil_div(x.shape[1], block),
        POSITIONS=tile.positions,
        COLUMNS=0,
        CONTIGUOUS_C=layout.CONTIGUOUS_C,
        CONTIGUOUS_W=layout.CONTIGUOUS_W,
        STRIDE_DIVISOR=layout.STRIDE_DIVISOR,
        CONTIGUOUS_TAPS=x.dtype.itemsize == 2 and weight.stride(1) == 1,
        FLAT=False,
        HAS_BIAS=False,
        NEEDS_X=False,
        NEEDS_WEIGHT=False,
        INT64=needs_int64([*volumes, output]),
        DOT=str(factor(x)),
        ACC=str(accumulator(x)),
    )


def _options(tile: Tile) -> dict[str, Any]:
    # An AMD GPU has 64 kB of shared memory a program: what is loaded ahead of 64 channels does not fit.
    stages = 1 if runtime.WARP_SIZE == 64 else tile.num_stages
    return {"num_warps": tile.num_warps, "num_stages": stages, "enable_fp_fusion": False}
