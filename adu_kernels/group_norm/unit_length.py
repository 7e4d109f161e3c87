"""Triton kernels of `cosine_features`: an instance norm, then unit length over the channels of each position.

A tile is some positions × all channels, one group each; `statistics`, `join` and `totals` of group normalisation serve
as they are.
"""

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
    lane_count,
    lanes_of,
    load_tile,
    place_of,
    position_count,
    store_tile,
    stored_statistics,
    tile_mask,
)


@triton.constexpr_function
def root_of(channels):
    """√C, the length that a position gets."""
    return channels**0.5


@triton.jit
def unit(value, lane_mean, lane_rest, lane_rstd, mask, LEAST: tl.constexpr):
    """A tile normalised per channel, its length per position, and one over that."""
    normal = tl.where(mask, (value - lane_mean - lane_rest) * lane_rstd, 0.0)
    length = tl.sqrt(tl.sum(normal * normal, 1))[:, None]
    return normal, length, 1.0 / tl.maximum(length, LEAST, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def behind_unit(gradient, normal, length, reciprocal, root, LEAST: tl.constexpr):
    """The normalised tile's gradient. A position shorter than LEAST was only multiplied."""
    along = tl.sum(gradient * normal, 1)[:, None] * reciprocal * reciprocal
    along = tl.where(length > LEAST, along, 0.0)
    return (gradient - normal * along) * reciprocal * root


@triton.jit(do_not_specialize=RUNTIME)
def unit_length(
    x_pointer, mean, rstd, y_pointer,
    x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c,
    y_stride_b, y_stride_0, y_stride_1, y_stride_2, y_stride_c,
    size_0, size_1, size_2, chunks, tiles, LEAST: tl.constexpr, config: NormConfig,
):  # fmt: skip
    """y = √C · n / max(‖n‖₂, LEAST), from the last program to the first."""
    place = place_of(tl.num_programs(0) - 1 - tl.program_id(0), chunks, config)
    lanes = lanes_of(place.block, config)
    x = Map(x_pointer, x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c)
    y = Map(y_pointer, y_stride_b, y_stride_0, y_stride_1, y_stride_2, y_stride_c)
    lane_mean, lane_rest, lane_rstd = stored_statistics(mean, rstd, place, lanes, config)
    total = position_count(size_0, size_1, size_2, config)
    first = first_position(place.chunk, tiles, config) + tl.arange(0, config.POSITIONS)
    for tile in range(tiles):
        position = first + tile * config.POSITIONS
        mask = tile_mask(position, total, lanes, config)
        value = load_tile(x, place, position, lanes, mask, size_1, size_2, config)
        normal, _, reciprocal = unit(value, lane_mean, lane_rest, lane_rstd, mask, LEAST)
        found = normal * (reciprocal * root_of(config.NUM_GROUPS))
        store_tile(y, found, place, position, lanes, mask, size_1, size_2, config)


@triton.jit(do_not_specialize=RUNTIME)
def unit_gradient_sums(
    x_pointer, mean, rstd, g_pointer, partials,
    x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c,
    g_stride_b, g_stride_0, g_stride_1, g_stride_2, g_stride_c,
    size_0, size_1, size_2, chunks, tiles, batches, LEAST: tl.constexpr, config: NormConfig,
):  # fmt: skip
    """Each chunk's Σ d and Σ d · n per channel, d the normalised map's gradient: partials 2 × B × chunks × C."""
    ACC: tl.constexpr = dtype_of(config.ACC)
    place = place_of(tl.program_id(0), chunks, config)
    lanes = lanes_of(place.block, config)
    x = Map(x_pointer, x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c)
    g = Map(g_pointer, g_stride_b, g_stride_0, g_stride_1, g_stride_2, g_stride_c)
    lane_mean, lane_rest, lane_rstd = stored_statistics(mean, rstd, place, lanes, config)
    total = position_count(size_0, size_1, size_2, config)
    first = first_position(place.chunk, tiles, config) + tl.arange(0, config.POSITIONS)
    sums = tl.zeros([config.POSITIONS, lane_count(config.GROUPS, config.LANES)], ACC)
    products = tl.zeros([config.POSITIONS, lane_count(config.GROUPS, config.LANES)], ACC)
    for tile in range(tiles):
        position = first + tile * config.POSITIONS
        mask = tile_mask(position, total, lanes, config)
        value = load_tile(x, place, position, lanes, mask, size_1, size_2, config)
        grad_output = load_tile(g, place, position, lanes, mask, size_1, size_2, config)
        normal, length, reciprocal = unit(value, lane_mean, lane_rest, lane_rstd, mask, LEAST)
        behind = behind_unit(grad_output, normal, length, reciprocal, root_of(config.NUM_GROUPS), LEAST)
        sums += behind
        products += behind * normal
    channels = config.NUM_GROUPS
    p_partial = partials + (place.batch * chunks + place.chunk) * channels + lanes.channel
    tl.store(p_partial, tl.sum(sums, 0), mask=lanes.valid)
    tl.store(p_partial + batches * chunks * channels, tl.sum(products, 0), mask=lanes.valid)


@triton.jit(do_not_specialize=RUNTIME)
def unit_input_gradient(
    x_pointer, mean, rstd, g_pointer, sums, d_pointer,
    x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c,
    g_stride_b, g_stride_0, g_stride_1, g_stride_2, g_stride_c,
    d_stride_b, d_stride_0, d_stride_1, d_stride_2, d_stride_c,
    size_0, size_1, size_2, chunks, tiles, batches, LEAST: tl.constexpr, config: NormConfig,
):  # fmt: skip
    """x's gradient: rstd · (d − mean(d) − n · mean(d · n)), means over the positions. sums: 2 × B × C."""
    ACC: tl.constexpr = dtype_of(config.ACC)
    place = place_of(tl.num_programs(0) - 1 - tl.program_id(0), chunks, config)
    lanes = lanes_of(place.block, config)
    x = Map(x_pointer, x_stride_b, x_stride_0, x_stride_1, x_stride_2, x_stride_c)
    g = Map(g_pointer, g_stride_b, g_stride_0, g_stride_1, g_stride_2, g_stride_c)
    d = Map(d_pointer, d_stride_b, d_stride_0, d_stride_1, d_stride_2, d_stride_c)
    total = position_count(size_0, size_1, size_2, config)
    size = total.to(ACC)
    lane_mean, lane_rest, lane_rstd = stored_statistics(mean, rstd, place, lanes, config)
    p_group = place.batch * config.NUM_GROUPS + lanes.group
    constant = (tl.load(sums + p_group, mask=lanes.valid, other=0.0) / size)[None, :]
    p_products = sums + batches * config.NUM_GROUPS + p_group
    slope = (tl.load(p_products, mask=lanes.valid, other=0.0) / size)[None, :]
    first = first_position(place.chunk, tiles, config) + tl.arange(0, config.POSITIONS)
    for tile in range(tiles):
        position = first + tile * config.POSITIONS
        mask = tile_mask(position, total, lanes, config)
        value = load_tile(x, place, position, lanes, mask, size_1, size_2, config)
        grad_output = load_tile(g, place, position, lanes, mask, size_1, size_2, config)
        normal, length, reciprocal = unit(value, lane_mean, lane_rest, lane_rstd, mask, LEAST)
        behind = behind_unit(grad_output, normal, length, reciprocal, root_of(config.NUM_GROUPS), LEAST)
        found = (behind - constant - normal * slope) * lane_rstd
        store_tile(d, found, place, position, lanes, mask, size_1, size_2, config)
