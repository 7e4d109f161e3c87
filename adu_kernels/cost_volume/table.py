"""How the volumes' kernels are launched: the launch table, and the whole of a launch but its tensors, a `Plan`.

A plan is made of how the tensors lie in memory, and remembered by it; no value of theirs is read. Below `launch.py`
asks nothing else of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import accumulator, factor, in_parts
from .._triton.layout import (
    MapLayout,
    by_layout,
    ceil_div,
    divided_strides,
    is_channels_last,
    map_layout,
    needs_int64,
    power_of_two,
    stride_divisor,
    unit_stride,
)
from ..stereo import reduction_factor, view_sign

if TYPE_CHECKING:
    from .shared import SlideConfig

Pair = tuple[Tensor, Tensor]
"""The base map, whose columns the volume's are, and the match map: left and right in the left view."""
Grads = Sequence[Tensor | None]
"""Of maps, base first; None where no gradient is asked for."""


class VolumeOptions(NamedTuple):
    """One call, as the operators take it after their tensors."""

    num_disparities: int
    num_groups: int = 1
    plain: bool = False
    """B×D×H×W of one group, without the group axis."""
    normalize: str = "none"
    reduction: str = "mean"
    mask_left: bool = True
    view: str = "left"
    eps: float = 1e-12
    eps_rule: str = "max"
    scores: bool = False
    """Whether the mean over the groups is asked for too."""

    def scale(self, channels: int) -> float:
        return reduction_factor(self.reduction, channels // self.num_groups)


class Plan(NamedTuple):
    """One launch, but for its tensors."""

    programs: int
    numbers: tuple[int, ...]
    """What the kernel takes after its tensors: sizes, then strides."""
    config: Any
    """What it is compiled for: a `SlideConfig` or a `BandConfig`."""
    options: dict[str, Any]


@dataclass(frozen=True)
class SlideTile:
    """One program of kernels.py: `items` per program, each of `pixels` neighbouring columns."""

    items: int
    pixels: int
    num_warps: int


@dataclass(frozen=True)
class BandTile:
    """One program of banded.py: `block` columns × `block` disparities, `channels` at a time."""

    block: int
    channels: int
    num_warps: int
    num_stages: int


# Measured (H200, Triton 3.6.0, bench/results/h200): B 8, C 320, G 40, D 48, 64×128, by `gpu_check.sh tune`.
# Channels-last, 2-byte maps: 2 columns an item take 48 registers, 1.6 times the warps of 4 columns: 174 µs against 250
# forward, though a 16-byte load feeds half as many multiply-adds.
SLIDE_CHANNELS_LAST = SlideTile(items=128, pixels=2, num_warps=4)
# Backward 3 columns: 295 µs, with 2 343, and beside a concatenation 349 for 365 (65f2ad8); forward they take 200 µs.
SLIDE_BACKWARD = SlideTile(items=64, pixels=3, num_warps=2)
# fp32 (96×312): 2645 µs, with 4 columns 4856.
SLIDE_BACKWARD_WIDE_TYPES = SlideTile(items=128, pixels=2, num_warps=4)
# Executed counts: an A100 is busy 1.7 times as long with the backward's integers as with its bytes at 2 columns, 1.4 at
# 4. Not measured there; an H200 is faster at 3 and 2 whatever the counts say. For gfx942 Triton 3.7.1 compiles 2 and 3
# columns in seconds and 4 not within minutes.
SLIDE_BACKWARD_BEFORE_HOPPER = SlideTile(items=128, pixels=4, num_warps=4)
# fp32 forward is bound by its stores: 1029 µs against 1127 at 2 columns (96×312).
SLIDE_WIDE_TYPES = SlideTile(items=128, pixels=4, num_warps=4)
# Beside a concatenation, whose programs write the other part of each record: the larger the tile the less of a record
# leaves the caches half written: 402 µs, with 256 items and 8 warps 460 (tune at 70ed244), with 128 480 (65f2ad8). 4
# columns on 256 items take 453, but under Triton 3.7.1 those spill 8 bytes on sm_80 and sm_90.
SLIDE_BESIDE_CONCAT = SlideTile(items=512, pixels=2, num_warps=16)
# Other layouts: a program's threads take 64 neighbouring columns of one group, an item of several would part them.
SLIDE_OTHER = SlideTile(items=64, pixels=1, num_warps=2)
SLIDE_MANY_CHANNELS = SlideTile(items=0, pixels=1, num_warps=4)
MANY_CHANNELS = 16
"""Channels of a group beyond which an item's features of 4 columns would not stay in registers."""
TILE_ELEMENTS = 2048
CONCAT_VECTOR = 8
"""Concatenated channels copied at once, where they divide C'."""
# 64 fills the matrix unit of sm_90; 32 wastes less where there are few disparities.
BAND = BandTile(block=64, channels=64, num_warps=8, num_stages=3)
# The backward's two accumulators of 64 leave one program to a multiprocessor: 259 µs, with 32 columns 140. With 128
# channels in two stages 120, in three 124 (65f2ad8).
BAND_BACKWARD = BandTile(block=32, channels=128, num_warps=4, num_stages=2)
# Longer offsets take registers: in three stages the backward spills 8 bytes on sm_80.
BAND_INT64 = BandTile(block=64, channels=64, num_warps=8, num_stages=1)
BAND_FEW_DISPARITIES = BandTile(block=32, channels=64, num_warps=4, num_stages=3)
# Loads narrower than 4 bytes cannot run ahead into shared memory; stages would hold them in registers.
BAND_OTHER = BandTile(block=32, channels=32, num_warps=4, num_stages=1)
BAND_WIDE_TYPES = BandTile(block=32, channels=32, num_warps=4, num_stages=2)
# fp32 in parts of bf16. Executed counts, of an A100's DRAM time: forward 1.1, backward 1.7; as true fp32 16 and 4.2.
# While conversions made the parts: forward 1.3, with 32 columns 2.6, with 8 warps 2.2; backward with 32 channels 4.7.
BAND_PARTS = BandTile(block=64, channels=16, num_warps=4, num_stages=3)
BAND_PARTS_BACKWARD = BandTile(block=32, channels=64, num_warps=4, num_stages=1)


def slide_tile(
    per_group: int,
    groups: int,
    channels_last: bool,
    *,
    dtype: torch.dtype,
    backward: bool,
    concat: bool,
    before_hopper: bool,
) -> SlideTile:
    """before_hopper: whether the GPU is an older one of NVIDIA's."""
    block_k = power_of_two(per_group)
    if block_k > MANY_CHANNELS:
        items = max(TILE_ELEMENTS // block_k, 1)
        return SlideTile(max(items, groups), SLIDE_MANY_CHANNELS.pixels, SLIDE_MANY_CHANNELS.num_warps)
    if not channels_last:
        tile = SLIDE_OTHER
    elif backward and before_hopper:
        tile = SLIDE_BACKWARD_BEFORE_HOPPER
    elif backward:
        tile = SLIDE_BACKWARD if dtype.itemsize <= 2 else SLIDE_BACKWARD_WIDE_TYPES
    elif dtype.itemsize <= 2 and not concat:
        tile = SLIDE_CHANNELS_LAST
    else:
        tile = SLIDE_BESIDE_CONCAT if dtype.itemsize <= 2 else SLIDE_WIDE_TYPES
    return SlideTile(max(tile.items, groups), tile.pixels, tile.num_warps)


def band_tile(
    num_disparities: int, dtype: torch.dtype, channels_last: bool, int64: bool, *, backward: bool, parts: bool
) -> BandTile:
    """parts: whether products are those of parts in bf16."""
    if not channels_last:
        return BAND_OTHER
    if parts:
        return BAND_PARTS_BACKWARD if backward else BAND_PARTS
    if dtype.itemsize > 2:
        return BAND_WIDE_TYPES
    if num_disparities <= BAND_FEW_DISPARITIES.block:
        return BAND_FEW_DISPARITIES
    if int64:
        return BAND_INT64
    return BAND_BACKWARD if backward else BAND


def slide_plan(
    correlated: Pair | None,
    concatenated: Pair | None,
    volume: Tensor,
    options: VolumeOptions,
    grads: Grads | None = None,
    grad_scores: Tensor | None = None,
) -> Plan:
    """Of a kernel of kernels.py. volume: it, or in the backward its gradient. grads: of all four maps; None forward."""
    runtime.check_device(volume)  # before the GPU is asked what it is
    pair = correlated or concatenated
    assert pair is not None
    channels_last, groups, pitch = _groups(pair[0], correlated, options)
    tile = slide_tile(
        pair[0].shape[1] // groups if groups else 1, pitch if options.normalize == "all" else 1, channels_last,
        dtype=volume.dtype, backward=grads is not None, concat=concatenated is not None,
        before_hopper=runtime.before_hopper(),
    )  # fmt: skip
    return _slide_plan(correlated, concatenated, volume, options, grads, grad_scores, tile)


@by_layout
def _slide_plan(
    correlated: Pair | None,
    concatenated: Pair | None,
    volume: Tensor,
    options: VolumeOptions,
    grads: Grads | None,
    grad_scores: Tensor | None,
    tile: SlideTile,
) -> Plan:
    config = _slide_config(correlated, concatenated, volume, options, grads, grad_scores, tile)
    maps, concat_maps = correlated or concatenated, concatenated or correlated  # what is absent is stood in for, unread
    assert maps is not None
    assert concat_maps is not None
    of_maps = divided_strides(maps, config.FEATURES.STRIDE_DIVISOR)
    of_volume = divided_strides([volume], config.VOLUME.STRIDE_DIVISOR)
    concat_unit = config.CONCAT_FEATURES.STRIDE_DIVISOR
    batch, _, num_disparities, height, width = volume.shape
    correlating, concatenating = _programs(config, width, halves=2 if grads is None else 1)
    if grads is None:
        of_row = correlating + concatenating
        strides = [*of_maps, *divided_strides(concat_maps, concat_unit), *of_volume]
    else:
        of_row = correlating * sum(config.NEEDED[:2]) + concatenating * sum(config.NEEDED[2:])
        scores, written = volume if grad_scores is None else grad_scores, stood_in(grads)
        of_written = divided_strides(written[:2], config.FEATURES.STRIDE_DIVISOR)
        strides = [
            *of_maps, *of_volume, *scores.stride()[-4:], *of_written, *divided_strides(written[2:], concat_unit)
        ]  # fmt: skip
    numbers = (height, width, num_disparities, correlating, concatenating, *strides)
    return Plan(batch * height * of_row, numbers, config, {"num_warps": tile.num_warps, "enable_fp_fusion": False})


def stood_in(grads: Grads) -> list[Tensor]:
    """What a backward is given: where no gradient is asked for, and none is written, one of the others."""
    spare = next(g for g in grads if g is not None)
    return [spare if g is None else g for g in grads]


def _groups(first: Tensor, correlated: Pair | None, options: VolumeOptions) -> tuple[bool, int, int]:
    """Whether a program has the channels of all of its groups, the groups, and how many of them it takes."""
    groups = options.num_groups if correlated else 0
    across = options.normalize == "all"
    return across or is_channels_last(first), groups, power_of_two(groups) if across else max(groups, 1)


def _slide_config(
    correlated: Pair | None,
    concatenated: Pair | None,
    volume: Tensor,
    options: VolumeOptions,
    grads: Grads | None,
    grad_scores: Tensor | None,
    tile: SlideTile,
) -> SlideConfig:
    """What the kernels of kernels.py are compiled for."""
    from .shared import SlideConfig  # here and below: Triton is needed only where a kernel runs

    backward, grads = grads is not None, grads or (None,) * 4
    features = [*(correlated or ()), *(g for g in grads[:2] if g is not None)]
    concat_features = [*(concatenated or ()), *(g for g in grads[2:] if g is not None)]
    channels_last, groups, pitch = _groups((features or concat_features)[0], correlated, options)
    channels, concat = (pair[0].shape[1] if pair else 0 for pair in (correlated, concatenated))
    per_group = channels // groups if groups else 1
    # A concatenating program takes neighbouring columns through their stride: it is no constant there.
    concat_layout, volume_layout = (map_layout(t)._replace(CONTIGUOUS_W=False) for t in (concat_features, [volume]))
    whole = concat_layout.CONTIGUOUS_C and volume_layout.CONTIGUOUS_C
    return SlideConfig(
        NUM_GROUPS=groups,
        GROUPS=pitch,
        K=per_group,
        BLOCK_K=power_of_two(per_group),
        BLOCK_N=tile.items,
        PIXELS=tile.pixels,
        SIGN=view_sign(options.view),
        CHANNELS_LAST=channels_last,
        INT64=needs_int64([*features, *concat_features, volume, *([] if grad_scores is None else [grad_scores])]),
        SCALE=options.scale(channels) if correlated else 1.0,
        NORMALIZE=options.normalize,
        EPS=options.eps,
        EPS_ADDED=options.eps_rule == "add",
        CONCAT=concat,
        CONCAT_SIZE=math.gcd(concat, CONCAT_VECTOR) if whole else 1,
        MASK_BASE=options.mask_left,
        FEATURES=map_layout(features),
        CONCAT_FEATURES=concat_layout,
        VOLUME=volume_layout,
        ACC=str(accumulator(volume)),
        NEEDED=tuple(g is not None for g in grads) if backward else (True,) * 4,
        SCORE_SHARE=0.0 if grad_scores is None else 1 / groups,
    )


def _programs(config: SlideConfig, width: int, halves: int) -> tuple[int, int]:
    """Of one image row those that correlate, and those for one half of the concatenation, or both."""
    blocks = ceil_div(width, config.PIXELS)
    if config.CHANNELS_LAST:
        correlating = ceil_div(blocks * config.GROUPS, config.BLOCK_N)
    else:
        correlating = ceil_div(blocks, config.BLOCK_N) * config.GROUPS
    concatenating = ceil_div(width * halves * config.CONCAT // config.CONCAT_SIZE, config.BLOCK_N)
    return correlating if config.NUM_GROUPS else 0, concatenating


def band_plan(maps: Pair, volume: Tensor, options: VolumeOptions, grads: Grads | None = None) -> Plan:
    """Of a kernel of banded.py. volume: it, or in the backward its gradient. grads: of both maps; None forward."""
    layout, int64 = _band_layout(maps, volume, grads)
    backward, parts = grads is not None, in_parts(volume)
    tile = band_tile(volume.shape[2], volume.dtype, layout.CONTIGUOUS_C, int64, backward=backward, parts=parts)
    return _band_plan(maps, volume, options, grads, tile, parts)


@by_layout
def _band_layout(maps: Pair, volume: Tensor, grads: Grads | None) -> tuple[MapLayout, bool]:
    """Of the maps and their gradients, and whether an element lies beyond 2³¹."""
    features = [*maps, *(g for g in grads or () if g is not None)]
    return map_layout(features), needs_int64([*features, volume])


@by_layout
def _band_plan(
    maps: Pair, volume: Tensor, options: VolumeOptions, grads: Grads | None, tile: BandTile, parts: bool
) -> Plan:
    from .banded import BandConfig

    channels, (layout, int64) = maps[0].shape[1], _band_layout(maps, volume, grads)
    contiguous_d = unit_stride([volume], 2)
    config = BandConfig(
        C=channels,
        BLOCK=tile.block,
        BLOCK_C=min(tile.channels, max(power_of_two(channels), 16)),
        SIGN=view_sign(options.view),
        INT64=int64,
        SCALE=options.scale(channels) / options.num_groups,
        FEATURES=layout,
        CONTIGUOUS_D=contiguous_d,
        CONTIGUOUS_W=not contiguous_d and unit_stride([volume], 4),
        STRIDE_DIVISOR=math.gcd(stride_divisor([volume], 2), volume.shape[2]) if contiguous_d else 1,
        DOT=str(factor(volume)),
        ACC=str(accumulator(volume)),
        IN_PARTS=parts and not runtime.interpreting(),
    )
    batch, _, num_disparities, height, width = volume.shape
    volume_b, _, volume_d, volume_h, volume_w = volume.stride()
    unit = config.STRIDE_DIVISOR  # of the volume's strides, but for the disparities'
    strides = [
        *divided_strides(maps, layout.STRIDE_DIVISOR), volume_b // unit, volume_d, volume_h // unit, volume_w // unit
    ]  # fmt: skip
    column_blocks = ceil_div(width, config.BLOCK)
    blocks = [column_blocks]
    if grads is None:
        config = config._replace(NORMALIZE=options.normalize, EPS=options.eps, EPS_ADDED=options.eps_rule == "add")
        blocks.append(ceil_div(num_disparities, config.BLOCK))
        of_row = math.prod(blocks)
    else:
        config = config._replace(NEEDED=tuple(g is not None for g in grads))
        of_row = column_blocks * ceil_div(channels, config.BLOCK_C) * sum(config.NEEDED)
        strides += divided_strides(stood_in(grads), layout.STRIDE_DIVISOR)
    how = {"num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": False}
    return Plan(batch * height * of_row, (height, width, num_disparities, *blocks, *strides), config, how)
