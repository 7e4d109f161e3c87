"""Triton kernels of group normalisation, forward: `statistics` and `normalise`, for many groups `join` between them."""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

import triton
import triton.language as tl

from .._triton.device import dtype_of
from .tiles import (
    RUNTIME,
    Map,
    NormConfig,
    first_position,
    groups_of,
    image_start,
    lane_count,
    lane_parameter,
    lanes_of,
    load_tile,
    offsets,
    packed_signs,
    per_group,
    per_lane,
    place_of,
    position_count,
    shift_of,
    sign_offsets,
    store_tile,
    stored_statistics,
    tile_mask,
)


@triton.jit(do_not_specialize=RUNTIME)
def statistics(
    x_pointer, partials, x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c,
    size_0, size_1, size_2, chunks, tiles, parts, batches, config: NormConfig,
):  # fmt: skip
    """Each chunk's number of values, mean, what its rounding leaves out, and sum of squared distances to it, per group:
    partials 4 × B × G × parts.

    A lane adds up distances to its first value, which is one of those it adds up: however large the mean is, and
    whatever that value, what cancels is at most as many times the result as the lane has values.
    """
    ACC: tl.constexpr = dtype_of(config.ACC)
    place = place_of(tl.program_id(0), chunks, config)
    lanes = lanes_of(place.block, config)
    x = Map(x_pointer, x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c)
    start = image_start(x, place.batch, config)  # out of the loop: `load_tile` takes a few registers more here
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
    squares = tl.where(count > 0, tl.maximum(square - distance * offset, square * 0.0), 0.0)
    within = per_group(squares, config)  # by itself: so few registers are taken at once
    number = per_group(count, config)
    per_number = 1.0 / tl.maximum(number, 1.0)
    rough = per_group(tl.where(count > 0, origin + offset, 0.0) * count, config) * per_number
    away = tl.where(count > 0, origin - per_lane(rough, config)[None, :] + offset, 0.0)
    more = per_group(away * count, config) * per_number
    squares = within + per_group(away * away * count, config) - number * more * more
    group = groups_of(place.block, config)
    part = place.chunk * config.SPLIT + place.block % config.SPLIT
    planes = batches * config.NUM_GROUPS * parts
    p_partial = partials + (place.batch * config.NUM_GROUPS + group) * parts + part
    mask = group < config.NUM_GROUPS
    tl.store(p_partial, number, mask=mask)
    tl.store(p_partial + planes, rough, mask=mask)
    tl.store(p_partial + 2 * planes, more, mask=mask)
    tl.store(p_partial + 3 * planes, tl.maximum(squares, squares * 0.0), mask=mask)


@triton.jit
def reciprocal_root(value, ACC: tl.constexpr):
    if ACC == tl.float64:  # noqa: SIM300 (whose root is always the rounded one)
        root = tl.sqrt(value)
    else:
        root = tl.sqrt_rn(value)
    return 1.0 / root


@triton.jit
def group_statistics(partials, batch, block, parts, batches, config: NormConfig):
    """Of a block's groups the mean, what its rounding leaves out, and 1/√(variance + eps), from what the programs of
    `statistics` found."""
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
        more = tl.load(p_part + 2 * planes, mask=mask, other=0.0)
        away = tl.where(mask, tl.load(p_part + planes, mask=mask, other=0.0) - origin[:, None] + more, 0.0)
        number += tl.sum(count, 1)
        distance += tl.sum(away * count, 1)
        square += tl.sum(tl.load(p_part + 3 * planes, mask=mask, other=0.0) + away * away * count, 1)
    number = tl.maximum(number, 1.0)
    offset = distance / number
    mean = origin + offset
    variance = (square - distance * offset) / number
    return mean, origin - mean + offset, reciprocal_root(tl.maximum(variance, variance * 0.0) + config.EPS, ACC)


@triton.jit
def store_statistics(mean, rstd, group_mean, group_rest, group_rstd, place, config: NormConfig):
    group = groups_of(place.block, config)
    p_group = place.batch * config.NUM_GROUPS + group
    tl.store(mean + 2 * p_group, group_mean, mask=group < config.NUM_GROUPS)
    tl.store(mean + 2 * p_group + 1, group_rest, mask=group < config.NUM_GROUPS)
    tl.store(rstd + p_group, group_rstd, mask=group < config.NUM_GROUPS)


@triton.jit(do_not_specialize=RUNTIME)
def join(partials, mean, rstd, parts, batches, config: NormConfig):
    """Mean (B × G × 2) and rstd (B × G), where the groups are too many for every program of `normalise` to put them
    together."""
    place = place_of(tl.program_id(0), 1, config)
    group_mean, rest, group_rstd = group_statistics(partials, place.batch, place.block, parts, batches, config)
    store_statistics(mean, rstd, group_mean, rest, group_rstd, place, config)


@triton.jit
def lane_statistics(partials, mean, rstd, place, lanes, parts, batches, config: NormConfig):
    """As `stored_statistics`. The first chunk's program writes them, for the backward, if no launch has."""
    if config.JOINED:
        lane_mean, lane_rest, lane_rstd = stored_statistics(mean, rstd, place, lanes, config)
    else:
        group_mean, rest, group_rstd = group_statistics(partials, place.batch, place.block, parts, batches, config)
        if (place.chunk == 0) & (place.block % config.SPLIT == 0):
            store_statistics(mean, rstd, group_mean, rest, group_rstd, place, config)
        lane_mean, lane_rest = per_lane(group_mean, config)[None, :], per_lane(rest, config)[None, :]
        lane_rstd = per_lane(group_rstd, config)[None, :]
    return lane_mean, lane_rest, lane_rstd


@triton.jit(do_not_specialize=RUNTIME)
def normalise(
    x_pointer, weight, bias, r_pointer, partials, y_pointer, mean, rstd, signs,
    x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c,
    r_stride_b, r_stride_0, r_stride_1, r_stride_2, r_stride_c,
    y_stride_b, y_stride_0, y_stride_1, y_stride_2, y_stride_c,
    size_0, size_1, size_2, chunks, tiles, parts, batches, config: NormConfig,
):  # fmt: skip
    """y of the positions of a chunk; the first chunk's program writes mean (B × G × 2) and rstd, for the backward.
    Signs are written where there are a residual and ReLU, if asked for: else the backward calculates them again.

    From the last program to the first, and from a chunk's last tile to its first: what `statistics` has read last, the
    end of every chunk of its own, is still in the cache.
    """
    place = place_of(tl.num_programs(0) - 1 - tl.program_id(0), chunks, config)
    lanes = lanes_of(place.block, config)
    x = Map(x_pointer, x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c)
    r = Map(r_pointer, r_stride_b, r_stride_0, r_stride_1, r_stride_2, r_stride_c)
    y = Map(y_pointer, y_stride_b, y_stride_0, y_stride_1, y_stride_2, y_stride_c)
    lane_mean, lane_rest, scale = lane_statistics(partials, mean, rstd, place, lanes, parts, batches, config)
    if config.WEIGHTED:
        scale *= lane_parameter(weight, lanes, config)
    shift = shift_of(lane_rest, scale, bias, lanes, config)
    total = position_count(size_0, size_1, size_2, config)
    first = first_position(place.chunk, tiles, config) + tl.arange(0, config.POSITIONS)
    for tile in range(tiles):
        position = first + (tiles - 1 - tile) * config.POSITIONS
        mask = tile_mask(position, total, lanes, config)
        value = load_tile(x, place, position, lanes, mask, size_1, size_2, config)
        value = (value - lane_mean) * scale + shift
        if config.RESIDUAL:
            value += load_tile(r, place, position, lanes, mask, size_1, size_2, config)
        if config.RELU:
            if config.SIGNED:
                o_signs = sign_offsets(place, position, total, config)
                tl.store(signs + o_signs, packed_signs(value, config), mask=(position < total)[:, None])
            value = tl.where(value < 0, 0.0, value)  # NaN stays
        store_tile(y, value, place, position, lanes, mask, size_1, size_2, config)
