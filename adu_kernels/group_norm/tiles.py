"""What the kernels of group normalisation share: their config, where a program works, tiles and signs in memory.

Positions are numbered through D, H and W. A tile is POSITIONS × lanes, the lanes GROUPS groups of LANES channels; a
program walks with it over the positions of its chunk. Where a group has more channels than a tile has lanes it is cut
into SPLIT blocks. What the programs of an image found is put together by each that needs it, in one order.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .._triton.device import dtype_of, wide_index


class NormConfig(NamedTuple):
    """What the kernels are compiled for."""

    NUM_GROUPS: int
    CHANNELS: int
    """Of a group."""
    POSITIONS: int
    GROUPS: int
    """Of a block; a power of two."""
    LANES: int
    """For the channels of each; a power of two."""
    SPLIT: int
    """Blocks that a group is cut into."""
    PARTS: int
    """Programs' results that are put together at once."""
    FLAT: bool
    """All positions of a map lie at one stride."""
    CONTIGUOUS_C: bool
    CONTIGUOUS_P: bool
    STRIDE_DIVISOR: int
    """All strides but that of neighbours arrive in units of so many elements."""
    INT64: bool
    WEIGHTED: bool
    BIASED: bool
    RESIDUAL: bool
    RELU: bool
    SIGNED: bool
    """Signs behind a residual are written, for the backward."""
    JOINED: bool
    """The statistics were put together by a launch of their own."""
    EPS: float
    STAGES: int
    """Tiles that are loaded ahead, and one: where a program adds up alone (`statistics`, `gradient_sums`)."""
    ACC: str


class Map(NamedTuple):
    pointer: Any
    stride_b: Any
    stride_0: Any
    stride_1: Any
    stride_2: Any
    stride_c: Any


class Place(NamedTuple):
    """Where a program works."""

    batch: Any
    block: Any
    chunk: Any


class Lanes(NamedTuple):
    """What the lanes of a tile stand for."""

    group: Any
    channel: Any
    valid: Any


STRIDES = [f"{name}_stride_{axis}" for name in ("x", "r", "y", "g", "d") for axis in "b012c"]
SIZES = ["size_0", "size_1", "size_2", "chunks", "tiles", "parts", "batches"]
RUNTIME = [*STRIDES, *SIZES]


# Triton 3.6 hands no tuple over to these functions: they take fields of the config.
@triton.constexpr_function
def lane_count(groups, lanes):
    return groups * lanes


@triton.constexpr_function
def block_count(num_groups, groups, split):
    """Blocks of an image."""
    return num_groups * split if split > 1 else -(-num_groups // groups)


@triton.jit
def place_of(program, chunks, config: NormConfig):
    BLOCKS: tl.constexpr = block_count(config.NUM_GROUPS, config.GROUPS, config.SPLIT)
    block = (program // chunks) % BLOCKS
    return Place(program // chunks // BLOCKS, block, program % chunks)


@triton.jit
def lanes_of(block, config: NormConfig):
    lane = tl.arange(0, lane_count(config.GROUPS, config.LANES))
    if config.SPLIT > 1:
        group = block // config.SPLIT + lane * 0
        member = (block % config.SPLIT) * config.LANES + lane
    else:
        group = block * config.GROUPS + lane // config.LANES
        member = lane % config.LANES
    channel = group * config.CHANNELS + member
    if config.SPLIT == 1 and config.LANES == config.CHANNELS:  # the compiler sees that lanes are neighbours
        channel = block * (config.GROUPS * config.LANES) + lane
    return Lanes(group, channel, (group < config.NUM_GROUPS) & (member < config.CHANNELS))


@triton.jit
def groups_of(block, config: NormConfig):
    if config.SPLIT > 1:
        return block // config.SPLIT + tl.arange(0, config.GROUPS)
    return block * config.GROUPS + tl.arange(0, config.GROUPS)


@triton.jit
def per_group(values, config: NormConfig):
    """The sum over a tile's positions and each group's lanes."""
    return tl.sum(tl.reshape(tl.sum(values, 0), [config.GROUPS, config.LANES]), 1)


@triton.jit
def per_lane(values, config: NormConfig):
    """A number of each group, for its lanes."""
    return tl.reshape(tl.broadcast_to(values[:, None], [config.GROUPS, config.LANES]), [config.GROUPS * config.LANES])


@triton.jit
def stored_statistics(mean, rstd, place, lanes, config: NormConfig):
    """Of a tile's lanes the mean, what its rounding has left out (mean: B × G × 2), and rstd (B × G)."""
    p_group = place.batch * config.NUM_GROUPS + lanes.group
    lane_mean = tl.load(mean + 2 * p_group, mask=lanes.valid, other=0.0)[None, :]
    lane_rest = tl.load(mean + 2 * p_group + 1, mask=lanes.valid, other=0.0)[None, :]
    lane_rstd = tl.load(rstd + p_group, mask=lanes.valid, other=0.0)[None, :]
    return lane_mean, lane_rest, lane_rstd


@triton.jit
def shift_of(lane_rest, scale, bias, lanes, config: NormConfig):
    """What is added to (x − mean) · scale: of a mean of 1000 spreads rounding leaves out 3e-5."""
    shift = -lane_rest * scale
    if config.BIASED:
        shift += lane_parameter(bias, lanes, config)
    return shift


@triton.jit
def position_count(size_0, size_1, size_2, config: NormConfig):
    """Dividing and multiplying tells the compiler that no wide load reaches beyond the last one."""
    total = wide_index(size_0, config.INT64) * size_1 * size_2
    if not config.CONTIGUOUS_C:
        total = total // config.STRIDE_DIVISOR * config.STRIDE_DIVISOR
    return total


@triton.jit
def first_position(chunk, tiles, config: NormConfig):
    return wide_index(chunk, config.INT64) * tiles * config.POSITIONS


@triton.jit
def offsets(m, position, channel, size_1, size_2, config: NormConfig):
    """Of a tile's elements from the start of the image."""
    DIVISOR: tl.constexpr = config.STRIDE_DIVISOR
    o_c = wide_index(channel, config.INT64)
    if not config.CONTIGUOUS_C:
        o_c = o_c * m.stride_c * DIVISOR
    last = position
    if not config.FLAT:
        row = position // size_2
        last = position % size_2
    if not config.CONTIGUOUS_P:
        last = last * m.stride_2 * DIVISOR
    if not config.FLAT:
        last += (row // size_1) * m.stride_0 * DIVISOR + (row % size_1) * m.stride_1 * DIVISOR
    return last[:, None] + o_c[None, :]


@triton.jit
def image_start(m, batch, config: NormConfig):
    return m.pointer + wide_index(batch, config.INT64) * m.stride_b * config.STRIDE_DIVISOR


@triton.jit
def tile_mask(position, total, lanes, config: NormConfig):
    mask = (position < total)[:, None]
    if config.LANES * config.SPLIT != config.CHANNELS or config.NUM_GROUPS % config.GROUPS != 0:
        mask = mask & lanes.valid[None, :]
    return mask


@triton.jit
def load_tile(m, place, position, lanes, mask, size_1, size_2, config: NormConfig):
    """A tile of the image in the type that is calculated in, 0 where there is nothing."""
    p_tile = image_start(m, place.batch, config) + offsets(m, position, lanes.channel, size_1, size_2, config)
    return tl.load(p_tile, mask=mask, other=0.0).to(dtype_of(config.ACC))


@triton.jit
def store_tile(m, values, place, position, lanes, mask, size_1, size_2, config: NormConfig):
    """Writes what `load_tile` reads."""
    p_tile = image_start(m, place.batch, config) + offsets(m, position, lanes.channel, size_1, size_2, config)
    tl.store(p_tile, values.to(m.pointer.dtype.element_ty), mask=mask)


@triton.constexpr_function
def bits_of(lanes):
    """Lanes of which a byte has the signs."""
    return min(lanes, 8)


@triton.jit
def sign_offsets(place, position, total, config: NormConfig):
    """Of the bytes of a tile's signs, which lie as the tiles do: B × blocks × positions × lanes / 8."""
    BYTES: tl.constexpr = lane_count(config.GROUPS, config.LANES) // bits_of(config.GROUPS * config.LANES)
    image = (
        wide_index(place.batch, config.INT64) * block_count(config.NUM_GROUPS, config.GROUPS, config.SPLIT)
        + place.block
    )
    return ((image * total + position) * BYTES)[:, None] + tl.arange(0, BYTES)[None, :]


@triton.jit
def packed_signs(value, config: NormConfig):
    """What ReLU's gradient must know of each value, in a bit: whether it is not ≤ 0."""
    BITS: tl.constexpr = bits_of(config.GROUPS * config.LANES)
    flags = tl.where(value <= 0, 0, 1)
    flags = tl.reshape(flags, [config.POSITIONS, lane_count(config.GROUPS, config.LANES) // BITS, BITS])
    return tl.sum(flags << tl.arange(0, BITS)[None, None, :], 2).to(tl.uint8)


@triton.jit
def unpacked_signs(packed, config: NormConfig):
    BITS: tl.constexpr = bits_of(config.GROUPS * config.LANES)
    flags = (packed.to(tl.int32)[:, :, None] >> tl.arange(0, BITS)[None, None, :]) & 1
    return tl.reshape(flags, [config.POSITIONS, lane_count(config.GROUPS, config.LANES)]) > 0


@triton.jit
def lane_parameter(pointer, lanes, config: NormConfig):
    return tl.load(pointer + lanes.channel, mask=lanes.valid, other=0.0).to(dtype_of(config.ACC))[None, :]
