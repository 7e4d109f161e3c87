"""The launch table of the cost volumes: how many columns, groups, disparities and channels one program takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .._triton.layout import power_of_two


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
