"""Triton kernels of group normalisation: statistics and normalisation, and for the gradients sums, totals and x's.

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


@triton.jit(do_not_specialize=RUNTIME)
def statistics(
    x_pointer, partials, x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c,
    size_0, size_1, size_2, chunks, tiles, parts, batches, config: NormConfig,
):  # fmt: skip
    """Each chunk's number of values, mean and sum of squared distances to it, per group: partials 3 × B × G × parts.

    A lane adds up distances to its first value, which is one of those it adds up: however large the mean is, and
    whatever that value, what cancels is at most as many times the result as the lane has values.
    """
    ACC: tl.constexpr = dtype_of(config.ACC)
    place = place_of(tl.program_id(0), chunks, config)
    lanes = lanes_of(place.block, config)
    x = Map(x_pointer, x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c)
    start = image_start(x, place.batch, config)
    total = position_count(size_0, size_1, size_2, config)
    first = first_position(place.chunk, tiles, config) + tl.arange(0, config.POSITIONS)
    o_x = offsets(x, first, lanes.channel, size_1, size_2, config)
    origin = tl.load(start + o_x, mask=tile_mask(first, total, lanes, config), other=0.0).to(ACC)
    distance = tl.zeros([config.POSITIONS, lane_count(config.GROUPS, config.LANES)], ACC)
    square = tl.zeros([config.POSITIONS, lane_count(config.GROUPS, config.LANES)], ACC)
    for tile in tl.range(1, tiles, num_stages=config.STAGES):
        position = first + tile * config.POSITIONS
        mask = tile_mask(position, total, lanes, config)
        o_x = offsets(x, position, lanes.channel, size_1, size_2, config)
        value = tl.load(start + o_x, mask=mask, other=0.0).to(ACC)
        step = tl.where(mask, value - origin, 0.0)
        distance += step
        square += step * step
    rows = tl.minimum(tl.maximum((total - first + config.POSITIONS - 1) // config.POSITIONS, 0), tiles).to(ACC)
    count = tl.where(lanes.valid[None, :], rows[:, None], 0.0)
    reciprocal = 1.0 / tl.maximum(count, 1.0)
    offset = distance * reciprocal
    squares = tl.maximum(square - distance * offset, square * 0.0)
    number = per_group(count, config)
    per_number = 1.0 / tl.maximum(number, 1.0)
    rough = per_group(tl.where(count > 0, origin + offset, 0.0) * count, config) * per_number
    away = tl.where(count > 0, origin + offset - per_lane(rough, config)[None, :], 0.0)
    more = per_group(away * count, config) * per_number
    squares = per_group(tl.where(count > 0, squares, 0.0) + away * away * count, config) - number * more * more
    group = groups_of(place.block, config)
    part = place.chunk * config.SPLIT + place.block % config.SPLIT
    planes = batches * config.NUM_GROUPS * parts
    p_partial = partials + (place.batch * config.NUM_GROUPS + group) * parts + part
    mask = group < config.NUM_GROUPS
    tl.store(p_partial, number, mask=mask)
    tl.store(p_partial + planes, rough + more, mask=mask)
    tl.store(p_partial + 2 * planes, tl.maximum(squares, squares * 0.0), mask=mask)


@triton.jit
def reciprocal_root(value, ACC: tl.constexpr):
    if ACC == tl.float64:  # noqa: SIM300 (whose root is always the rounded one)
        root = tl.sqrt(value)
    else:
        root = tl.sqrt_rn(value)
    return 1.0 / root


@triton.jit
def group_statistics(partials, batch, block, parts, batches, config: NormConfig):
    """Mean and 1/√(variance + eps) of a block's groups, from what the programs of `statistics` found."""
    ACC: tl.constexpr = dtype_of(config.ACC)
    group = groups_of(block, config)
    planes = batches * config.NUM_GROUPS * parts
    p_group = partials + (batch * config.NUM_GROUPS + group) * parts
    inside = group < config.NUM_GROUPS
    origin = tl.load(p_group + planes, mask=inside, other=0.0)
    number = tl.zeros([config.GROUPS], ACC)
    distance = tl.zeros([config.GROUPS], ACC)
    square = tl.zeros([config.GROUPS], ACC)
    for first in range(0, parts, config.PARTS):
        part = first + tl.arange(0, config.PARTS)
        mask = inside[:, None] & (part < parts)[None, :]
        p_part = p_group[:, None] + part[None, :]
        count = tl.load(p_part, mask=mask, other=0.0)
        away = tl.where(mask, tl.load(p_part + planes, mask=mask, other=0.0) - origin[:, None], 0.0)
        number += tl.sum(count, 1)
        distance += tl.sum(away * count, 1)
        square += tl.sum(tl.load(p_part + 2 * planes, mask=mask, other=0.0) + away * away * count, 1)
    number = tl.maximum(number, 1.0)
    mean = origin + distance / number
    variance = (square - distance * (distance / number)) / number
    return mean, reciprocal_root(tl.maximum(variance, variance * 0.0) + config.EPS, ACC)


@triton.jit
def store_statistics(mean, rstd, group_mean, group_rstd, place, config: NormConfig):
    group = groups_of(place.block, config)
    p_group = place.batch * config.NUM_GROUPS + group
    tl.store(mean + p_group, group_mean, mask=group < config.NUM_GROUPS)
    tl.store(rstd + p_group, group_rstd, mask=group < config.NUM_GROUPS)


@triton.jit(do_not_specialize=RUNTIME)
def join(partials, mean, rstd, parts, batches, config: NormConfig):
    """Mean and rstd (B × G), where the groups are too many for every program of `normalise` to put them together."""
    place = place_of(tl.program_id(0), 1, config)
    group_mean, group_rstd = group_statistics(partials, place.batch, place.block, parts, batches, config)
    store_statistics(mean, rstd, group_mean, group_rstd, place, config)


@triton.jit
def lane_statistics(partials, mean, rstd, place, lanes, parts, batches, config: NormConfig):
    """A tile's lanes' mean and rstd. The first chunk's program writes them, for the backward, if no launch has."""
    if config.JOINED:
        p_group = place.batch * config.NUM_GROUPS + lanes.group
        lane_mean = tl.load(mean + p_group, mask=lanes.valid, other=0.0)
        lane_rstd = tl.load(rstd + p_group, mask=lanes.valid, other=0.0)
    else:
        group_mean, group_rstd = group_statistics(partials, place.batch, place.block, parts, batches, config)
        if (place.chunk == 0) & (place.block % config.SPLIT == 0):
            store_statistics(mean, rstd, group_mean, group_rstd, place, config)
        lane_mean, lane_rstd = per_lane(group_mean, config), per_lane(group_rstd, config)
    return lane_mean[None, :], lane_rstd[None, :]


@triton.jit(do_not_specialize=RUNTIME)
def normalise(
    x_pointer, weight, bias, r_pointer, partials, y_pointer, mean, rstd, signs,
    x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c,
    r_stride_b, r_stride_0, r_stride_1, r_stride_2, r_stride_c,
    y_stride_b, y_stride_0, y_stride_1, y_stride_2, y_stride_c,
    size_0, size_1, size_2, chunks, tiles, parts, batches, config: NormConfig,
):  # fmt: skip
    """y of the positions of a chunk; the first chunk's program writes mean and rstd (B × G), for the backward. So do
    signs where there are a residual and ReLU, if asked for: without a residual the backward calculates them again.

    From the last program to the first, and from a chunk's last tile to its first: what `statistics` has read last, the
    end of every chunk of its own, is still in the cache.
    """
    ACC: tl.constexpr = dtype_of(config.ACC)
    place = place_of(tl.num_programs(0) - 1 - tl.program_id(0), chunks, config)
    lanes = lanes_of(place.block, config)
    x = Map(x_pointer, x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c)
    r = Map(r_pointer, r_stride_b, r_stride_0, r_stride_1, r_stride_2, r_stride_c)
    y = Map(y_pointer, y_stride_b, y_stride_0, y_stride_1, y_stride_2, y_stride_c)
    lane_mean, scale = lane_statistics(partials, mean, rstd, place, lanes, parts, batches, config)
    if config.WEIGHTED:
        scale *= lane_parameter(weight, lanes, config)
    total = position_count(size_0, size_1, size_2, config)
    first = first_position(place.chunk, tiles, config) + tl.arange(0, config.POSITIONS)
    for tile in range(tiles):
        position = first + (tiles - 1 - tile) * config.POSITIONS
        mask = tile_mask(position, total, lanes, config)
        o_x = offsets(x, position, lanes.channel, size_1, size_2, config)
        value = tl.load(image_start(x, place.batch, config) + o_x, mask=mask, other=0.0).to(ACC)
        value = (value - lane_mean) * scale
        if config.BIASED:
            value += lane_parameter(bias, lanes, config)
        if config.RESIDUAL:
            o_r = offsets(r, position, lanes.channel, size_1, size_2, config)
            value += tl.load(image_start(r, place.batch, config) + o_r, mask=mask, other=0.0).to(ACC)
        if config.RELU:
            if config.SIGNED:
                o_signs = sign_offsets(place, position, total, config)
                tl.store(signs + o_signs, packed_signs(value, config), mask=(position < total)[:, None])
            value = tl.where(value < 0, 0.0, value)  # NaN stays
        o_y = offsets(y, position, lanes.channel, size_1, size_2, config)
        tl.store(image_start(y, place.batch, config) + o_y, value.to(y.pointer.dtype.element_ty), mask=mask)


@triton.jit
def through_relu(gradient, value, lane_mean, scale, shift, config: NormConfig):
    """The gradient where the normalised value with its shift is above 0."""
    active = (value - lane_mean) * scale
    if config.BIASED:
        active += shift
    return tl.where(active <= 0, 0.0, gradient)


@triton.jit(do_not_specialize=RUNTIME)
def gradient_sums(
    x_pointer, weight, bias, mean, rstd, g_pointer, signs, d_pointer, partials,
    x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c,
    g_stride_b, g_stride_0, g_stride_1, g_stride_2, g_stride_c,
    d_stride_b, d_stride_0, d_stride_1, d_stride_2, d_stride_c,
    size_0, size_1, size_2, chunks, tiles, batches, config: NormConfig,
):  # fmt: skip
    """Each chunk's Σ g and Σ g · (x − mean) · rstd per channel, g the gradient behind the activation: partials
    2 × B × chunks × C. With a residual and ReLU that g is the residual's gradient and is written (d).
    """
    ACC: tl.constexpr = dtype_of(config.ACC)
    place = place_of(tl.program_id(0), chunks, config)
    lanes = lanes_of(place.block, config)
    x = Map(x_pointer, x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c)
    g = Map(g_pointer, g_stride_b, g_stride_0, g_stride_1, g_stride_2, g_stride_c)
    d = Map(d_pointer, d_stride_b, d_stride_0, d_stride_1, d_stride_2, d_stride_c)
    p_group = place.batch * config.NUM_GROUPS + lanes.group
    lane_mean = tl.load(mean + p_group, mask=lanes.valid, other=0.0)[None, :]
    lane_rstd = tl.load(rstd + p_group, mask=lanes.valid, other=0.0)
    scale = lane_rstd[None, :]
    if config.RELU and config.WEIGHTED:
        scale *= lane_parameter(weight, lanes, config)
    shift = scale
    if config.RELU and config.BIASED:
        shift = lane_parameter(bias, lanes, config)
    total = position_count(size_0, size_1, size_2, config)
    first = first_position(place.chunk, tiles, config) + tl.arange(0, config.POSITIONS)
    sums = tl.zeros([config.POSITIONS, lane_count(config.GROUPS, config.LANES)], ACC)
    products = tl.zeros([config.POSITIONS, lane_count(config.GROUPS, config.LANES)], ACC)
    for tile in tl.range(tiles, num_stages=config.STAGES):
        position = first + tile * config.POSITIONS
        mask = tile_mask(position, total, lanes, config)
        o_x = offsets(x, position, lanes.channel, size_1, size_2, config)
        value = tl.load(image_start(x, place.batch, config) + o_x, mask=mask, other=0.0).to(ACC)
        o_g = offsets(g, position, lanes.channel, size_1, size_2, config)
        gradient = tl.load(image_start(g, place.batch, config) + o_g, mask=mask, other=0.0).to(ACC)
        if config.RELU:
            if config.RESIDUAL:
                o_signs = sign_offsets(place, position, total, config)
                packed = tl.load(signs + o_signs, mask=(position < total)[:, None], other=0)
                gradient = tl.where(unpacked_signs(packed, config), gradient, 0.0)
                o_d = offsets(d, position, lanes.channel, size_1, size_2, config)
                p_d = image_start(d, place.batch, config) + o_d
                tl.store(p_d, gradient.to(d.pointer.dtype.element_ty), mask=mask)
            else:
                gradient = through_relu(gradient, value, lane_mean, scale, shift, config)
        sums += gradient
        products += gradient * tl.where(mask, value - lane_mean, 0.0)
    channels = config.NUM_GROUPS * config.CHANNELS
    p_partial = partials + (place.batch * chunks + place.chunk) * channels + lanes.channel
    tl.store(p_partial, tl.sum(sums, 0), mask=lanes.valid)
    tl.store(p_partial + batches * chunks * channels, tl.sum(products, 0) * lane_rstd, mask=lanes.valid)


@triton.jit(do_not_specialize=RUNTIME)
def totals(partials, weight, group_sums, channel_sums, chunks, batches, config: NormConfig):
    """An image's sums over its chunks: per channel (2 × B × C), and weighted per group for x's gradient
    (2 × B × G × SPLIT, put together there)."""
    place = place_of(tl.program_id(0), 1, config)
    lanes = lanes_of(place.block, config)
    channels = config.NUM_GROUPS * config.CHANNELS
    sums = tl.zeros([config.PARTS, lane_count(config.GROUPS, config.LANES)], dtype_of(config.ACC))
    products = tl.zeros([config.PARTS, lane_count(config.GROUPS, config.LANES)], dtype_of(config.ACC))
    for first in range(0, chunks, config.PARTS):
        chunk = first + tl.arange(0, config.PARTS)
        p_part = partials + ((place.batch * chunks + chunk) * channels)[:, None] + lanes.channel[None, :]
        mask = (chunk < chunks)[:, None] & lanes.valid[None, :]
        sums += tl.load(p_part, mask=mask, other=0.0)
        products += tl.load(p_part + batches * chunks * channels, mask=mask, other=0.0)
    p_channel = channel_sums + place.batch * channels + lanes.channel
    tl.store(p_channel, tl.sum(sums, 0), mask=lanes.valid)
    tl.store(p_channel + batches * channels, tl.sum(products, 0), mask=lanes.valid)
    if config.WEIGHTED:
        factor = lane_parameter(weight, lanes, config)
        sums *= factor
        products *= factor
    group = groups_of(place.block, config)
    p_group = group_sums + (place.batch * config.NUM_GROUPS + group) * config.SPLIT + place.block % config.SPLIT
    mask = group < config.NUM_GROUPS
    tl.store(p_group, per_group(sums, config), mask=mask)
    tl.store(p_group + batches * config.NUM_GROUPS * config.SPLIT, per_group(products, config), mask=mask)


@triton.jit
def parameter_gradient(channel_sums, gradient, batches, lanes, config: NormConfig):
    """Of weight or bias: the images' sums added up."""
    BATCHES: tl.constexpr = 16
    total = tl.zeros([BATCHES, lane_count(config.GROUPS, config.LANES)], dtype_of(config.ACC))
    for first in range(0, batches, BATCHES):
        batch = first + tl.arange(0, BATCHES)
        p_sums = channel_sums + (batch * (config.NUM_GROUPS * config.CHANNELS))[:, None] + lanes.channel[None, :]
        total += tl.load(p_sums, mask=(batch < batches)[:, None] & lanes.valid[None, :], other=0.0)
    tl.store(gradient + lanes.channel, tl.sum(total, 0).to(gradient.dtype.element_ty), mask=lanes.valid)


@triton.jit
def group_mean_of(sums, batch, lanes, size, config: NormConfig):
    """A group's sum over its blocks, over its number of values, for each lane."""
    p_group = sums + (batch * config.NUM_GROUPS + lanes.group) * config.SPLIT
    found = tl.load(p_group, mask=lanes.valid, other=0.0)
    for part in tl.static_range(1, config.SPLIT):
        found += tl.load(p_group + part, mask=lanes.valid, other=0.0)
    return (found / size)[None, :]


@triton.jit(do_not_specialize=RUNTIME)
def input_gradient(
    x_pointer, weight, bias, mean, rstd, g_pointer, group_sums, d_pointer, channel_sums, grad_weight, grad_bias,
    x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c,
    g_stride_b, g_stride_0, g_stride_1, g_stride_2, g_stride_c,
    d_stride_b, d_stride_0, d_stride_1, d_stride_2, d_stride_c,
    size_0, size_1, size_2, chunks, tiles, batches, config: NormConfig,
):  # fmt: skip
    """x's gradient: rstd · (weight · g − mean(weight · g) − n · mean(weight · g · n)), n the normalised value.

    With a residual and ReLU `gradient_sums` has written g behind the activation, and that is what comes here. The first
    image's first chunk writes the gradients of weight and bias.
    """
    ACC: tl.constexpr = dtype_of(config.ACC)
    place = place_of(tl.num_programs(0) - 1 - tl.program_id(0), chunks, config)
    lanes = lanes_of(place.block, config)
    x = Map(x_pointer, x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c)
    g = Map(g_pointer, g_stride_b, g_stride_0, g_stride_1, g_stride_2, g_stride_c)
    d = Map(d_pointer, d_stride_b, d_stride_0, d_stride_1, d_stride_2, d_stride_c)
    if (place.batch == 0) & (place.chunk == 0):
        if config.BIASED:
            parameter_gradient(channel_sums, grad_bias, batches, lanes, config)
        if config.WEIGHTED:
            products = channel_sums + batches * config.NUM_GROUPS * config.CHANNELS
            parameter_gradient(products, grad_weight, batches, lanes, config)
    total = position_count(size_0, size_1, size_2, config)
    size = total.to(ACC) * config.CHANNELS
    p_group = place.batch * config.NUM_GROUPS + lanes.group
    lane_mean = tl.load(mean + p_group, mask=lanes.valid, other=0.0)[None, :]
    lane_rstd = tl.load(rstd + p_group, mask=lanes.valid, other=0.0)[None, :]
    constant = group_mean_of(group_sums, place.batch, lanes, size, config)
    planes = batches * config.NUM_GROUPS * config.SPLIT
    slope = group_mean_of(group_sums + planes, place.batch, lanes, size, config) * lane_rstd
    factor = tl.full([1, lane_count(config.GROUPS, config.LANES)], 1.0, ACC)
    if config.WEIGHTED:
        factor = lane_parameter(weight, lanes, config)
    scale = lane_rstd * factor
    shift = scale
    if config.RELU and config.BIASED:
        shift = lane_parameter(bias, lanes, config)
    first = first_position(place.chunk, tiles, config) + tl.arange(0, config.POSITIONS)
    for tile in range(tiles):
        position = first + tile * config.POSITIONS
        mask = tile_mask(position, total, lanes, config)
        o_x = offsets(x, position, lanes.channel, size_1, size_2, config)
        value = tl.load(image_start(x, place.batch, config) + o_x, mask=mask, other=0.0).to(ACC)
        o_g = offsets(g, position, lanes.channel, size_1, size_2, config)
        upstream = tl.load(image_start(g, place.batch, config) + o_g, mask=mask, other=0.0).to(ACC)
        if config.RELU and not config.RESIDUAL:
            upstream = through_relu(upstream, value, lane_mean, scale, shift, config)
        found = (upstream * factor - constant - (value - lane_mean) * slope) * lane_rstd
        o_d = offsets(d, position, lanes.channel, size_1, size_2, config)
        tl.store(image_start(d, place.batch, config) + o_d, found.to(d.pointer.dtype.element_ty), mask=mask)
