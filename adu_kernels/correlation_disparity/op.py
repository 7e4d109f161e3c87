"""Correlation disparity: checks, launch shapes, registration, and the public function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import checks
from .._triton import runtime
from .._triton.dtypes import accumulator, factor
from .._triton.layout import divided_strides, empty_like_map, needs_int64, power_of_two, stride_divisor, unit_stride
from ..backend import choose, exporting
from ..cost_volume.op import REDUCTIONS, VIEWS, check_pair
from ..cost_volume.reference import reduction_factor
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype
from . import reference


def correlation_disparity(
    left: Tensor,
    right: Tensor,
    num_disparities: int,
    *,
    reduction: str = "mean",
    softmax_scale: float = 1.0,
    zero_fill: bool = False,
    view: str = "left",
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Disparity and its variance from the correlation of two feature maps; the volume is never written.

    p = softmax over d of softmax_scale·Σ_c left[c,h,w]·right[c,h,w−d] (AANet, arXiv 2004.09548, without aggregation);
    disparity = Σ_d d·p_d, variance = Σ_d (d − disparity)²·p_d.

    left, right: B×C×H×W of a rectified pair, one floating dtype, one device, any strides.
    num_disparities: D ≥ 1, may exceed W. reduction: the sum over channels times 1/C ("mean"), 1 ("sum") or 1/√C
    ("sqrt"). softmax_scale: a number.
    zero_fill: disparities that lead out of the image stay out of the softmax (False), or enter it with score 0 (True),
    as in the softmax of a zero-filled volume.
    view: "left", or "right": disparities of the right map's pixels, partners at x + d.
    backend: "auto", "triton" or "torch".

    Returns disparity and variance, each B×H×W, in columns of the map and their squares, fp32 (fp64 for fp64) whatever
    autocast says. Differentiable in left and right through both (once: the Triton kernels have no second derivative).
    Raises ValueError for wrong shapes, devices, counts or names, TypeError for wrong types; each names the argument.
    """
    check_pair("left", left, "right", right)
    num_disparities = checks.check_count("num_disparities", num_disparities)
    checks.check_choice("reduction", reduction, REDUCTIONS)
    softmax_scale = checks.check_number("softmax_scale", softmax_scale)
    zero_fill = checks.check_flag("zero_fill", zero_fill)
    checks.check_choice("view", view, VIEWS)
    run = choose(
        "correlation_disparity", backend, left, torch_twin=reference.correlation_disparity, triton_twin=_triton
    )
    if exporting():
        run = reference.correlation_disparity
    return run(
        left, right, num_disparities, reduction=reduction, softmax_scale=softmax_scale, zero_fill=zero_fill, view=view
    )


def _triton(
    left: Tensor,
    right: Tensor,
    num_disparities: int,
    *,
    reduction: str = "mean",
    softmax_scale: float = 1.0,
    zero_fill: bool = False,
    view: str = "left",
) -> tuple[Tensor, Tensor]:
    own, other = (left, right) if view == "left" else (right, left)
    maps = torch.ops.adu_kernels.correlation_disparity(
        own, other, num_disparities, float(softmax_scale), reduction, zero_fill, 1 if view == "left" else -1
    )
    return maps[0], maps[1]


@dataclass(frozen=True)
class Tile:
    """Columns of either map, and channels at a time, of one program; in the backward, of how many such chunks of
    channels it keeps the gradient: the scores are made again for every so many."""

    block: int
    channels: int
    chunks: int
    num_warps: int
    num_stages: int


# HALF and HALF_BACKWARD are measured (H200, Triton 3.6.0, bench/results/h200, B 8, C 320, D 48, 64×128): 45 µs forward;
# backward 178 µs with 5 chunks, which make the scores once for 320 channels, 287 with 3, 387 with 2. Where products
# take their factors from registers 5 chunks spill (616 bytes a thread on sm_120), and 2 are kept. The other rows are
# chosen from the machine code (README).
HALF = Tile(block=64, channels=64, chunks=1, num_warps=4, num_stages=2)
HALF_INT64 = Tile(block=64, channels=64, chunks=1, num_warps=4, num_stages=1)  # in two stages sm_80 spills 16 bytes
HALF_BACKWARD = Tile(block=64, channels=64, chunks=5, num_warps=8, num_stages=1)
HALF_BACKWARD_FROM_REGISTERS = Tile(block=64, channels=64, chunks=2, num_warps=8, num_stages=1)
WIDER = Tile(block=32, channels=32, chunks=1, num_warps=4, num_stages=1)
WIDER_BACKWARD = Tile(block=32, channels=64, chunks=1, num_warps=8, num_stages=1)


@torch.library.custom_op("adu_kernels::correlation_disparity", mutates_args=())
def _forward(
    own: Tensor, other: Tensor, num_disparities: int, softmax_scale: float, reduction: str, zero_fill: bool, sign: int
) -> Tensor:
    """3×B×H×W: mean, variance, and the logarithm of the softmax's denominator. other = own − sign·d."""
    from . import kernels

    maps = _new_maps(own, other, num_disparities, softmax_scale, reduction, zero_fill, sign)
    batch, _, height, width = own.shape
    half = HALF_INT64 if needs_int64([own, other]) else HALF
    tile = half if _on_matrix_units(own, other) else WIDER
    constants = _constants([own, other], tile, sign, reduction)
    tiles = -(-width // tile.block)
    runtime.run(
        kernels.expectation, batch * height * tiles,
        own, other, *maps, softmax_scale, height, width, num_disparities, tiles,
        *divided_strides([own, other], constants["VEC"]), ZERO_FILL=zero_fill, **constants,
    )  # fmt: skip
    return maps


@_forward.register_fake
def _new_maps(
    own: Tensor, other: Tensor, num_disparities: int, softmax_scale: float, reduction: str, zero_fill: bool, sign: int
) -> Tensor:
    batch, _, height, width = own.shape
    return own.new_empty((3, batch, height, width), dtype=accumulation_dtype(own))


@torch.library.custom_op("adu_kernels::correlation_disparity_backward", mutates_args=())
def _backward(
    maps: Tensor,
    own: Tensor,
    other: Tensor,
    needed: list[bool],
    num_disparities: int,
    softmax_scale: float,
    reduction: str,
    sign: int,
) -> list[Tensor]:
    """Gradients of those of the two maps that need one. maps: 5×B×H×W, see the kernel."""
    from . import kernels

    grads = _new_gradients(maps, own, other, needed, num_disparities, softmax_scale, reduction, sign)
    batch, _, height, width = own.shape
    half = HALF_BACKWARD if runtime.products_from_shared_memory() else HALF_BACKWARD_FROM_REGISTERS
    tile = half if _on_matrix_units(own, other) else WIDER_BACKWARD
    constants = _constants([own, other, *grads], tile, sign, reduction)
    tiles = -(-width // tile.block)
    parts = -(-own.shape[1] // (tile.chunks * constants["BLOCK_C"]))
    given = iter(grads)
    written = [next(given) if need else grads[0] for need in needed]
    runtime.run(
        kernels.expectation_backward, batch * height * tiles * parts * len(grads),
        own, other, maps, *written, softmax_scale, height, width, num_disparities, tiles, batch * height * width,
        *divided_strides([own, other, *written], constants["VEC"]), NEED_OWN=needed[0], NEED_OTHER=needed[1],
        CHUNKS=tile.chunks, **constants,
    )  # fmt: skip
    return grads


@_backward.register_fake
def _new_gradients(
    maps: Tensor,
    own: Tensor,
    other: Tensor,
    needed: list[bool],
    num_disparities: int,
    softmax_scale: float,
    reduction: str,
    sign: int,
) -> list[Tensor]:
    return [empty_like_map(m) for m, need in zip((own, other), needed, strict=True) if need]


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    keep(ctx, "correlation_disparity", inputs[:2], [output])
    ctx.options = inputs[2:]


def _differentiate(ctx: Any, upstream: Tensor) -> tuple:
    (own, other), (output,) = kept(ctx, lambda *maps: [_forward(*maps, *ctx.options)])
    needed = list(ctx.needs_input_grad[:2])
    maps = torch.cat((output, upstream[:2]))
    num_disparities, softmax_scale, reduction, _, sign = ctx.options
    grads = iter(_backward(maps, own, other, needed, num_disparities, softmax_scale, reduction, sign))
    return *(next(grads) if need else None for need in needed), None, None, None, None, None


differentiable_once(
    _forward, _backward, setup_context=_keep, backward=_differentiate, operation=lambda *_: "correlation_disparity"
)


def _on_matrix_units(own: Tensor, other: Tensor) -> bool:
    """2-byte maps whose channels lie next to each other: those can run ahead into shared memory."""
    return own.dtype.itemsize == 2 and unit_stride([own, other], 1)


def _constants(tensors: list[Tensor], tile: Tile, sign: int, reduction: str) -> dict[str, Any]:
    """What the kernels are compiled for, and how they are started."""
    channels = tensors[0].shape[1]
    unit_c = unit_stride(tensors, 1)
    return {
        "C": channels, "BLOCK": tile.block, "BLOCK_C": min(tile.channels, max(power_of_two(channels), 16)),
        "SIGN": sign, "INT64": needs_int64(tensors), "SCALE": reduction_factor(reduction, channels),
        "UNIT_C": unit_c, "UNIT_W": not unit_c and unit_stride(tensors, 3),
        "VEC": stride_divisor(tensors, 1) if unit_c else 1,
        "DOT": factor(tensors[0]), "ACC": accumulator(tensors[0]),
        "num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": False,
    }  # fmt: skip
