"""Triton kernels of group normalisation, backward: `gradient_sums`, `totals` over them, and `input_gradient`."""

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
    lane_count,
    lane_parameter,
    lanes_of,
    load_tile,
    per_group,
    place_of,
    position_count,
    shift_of,
    sign_offsets,
    store_tile,
    stored_statistics,
    tile_mask,
    unpacked_signs,
)


@triton.jit
def through_relu(grad_output, value, lane_mean, scale, shift):
    """The gradient where the normalised value with its shift is above 0, as `normalise` calculates it."""
    return tl.where((value - lane_mean) * scale + shift <= 0, 0.0, grad_output)


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
    lane_mean, behind_mean, scale = stored_statistics(mean, rstd, place, lanes, config)
    if config.RELU and config.WEIGHTED:
        scale *= lane_parameter(weight, lanes, config)
    shift = scale
    if config.RELU and not config.RESIDUAL:
        shift = shift_of(behind_mean, scale, bias, lanes, config)
    total = position_count(size_0, size_1, size_2, config)
    first = first_position(place.chunk, tiles, config) + tl.arange(0, config.POSITIONS)
    sums = tl.zeros([config.POSITIONS, lane_count(config.GROUPS, config.LANES)], ACC)
    products = tl.zeros([config.POSITIONS, lane_count(config.GROUPS, config.LANES)], ACC)
    for tile in tl.range(tiles, num_stages=config.STAGES):
        position = first + tile * config.POSITIONS
        mask = tile_mask(position, total, lanes, config)
        value = load_tile(x, place, position, lanes, mask, size_1, size_2, config)
        grad_output = load_tile(g, place, position, lanes, mask, size_1, size_2, config)
        if config.RELU:
            if config.RESIDUAL:
                o_signs = sign_offsets(place, position, total, config)
                packed = tl.load(signs + o_signs, mask=(position < total)[:, None], other=0)
                grad_output = tl.where(unpacked_signs(packed, config), grad_output, 0.0)
                store_tile(d, grad_output, place, position, lanes, mask, size_1, size_2, config)
            else:
                grad_output = through_relu(grad_output, value, lane_mean, scale, shift)
        sums += grad_output
        products += grad_output * tl.where(mask, value - lane_mean, 0.0)
    channels = config.NUM_GROUPS * config.CHANNELS
    p_partial = partials + (place.batch * chunks + place.chunk) * channels + lanes.channel
    of_lanes = tl.sum(sums, 0)
    tl.store(p_partial, of_lanes, mask=lanes.valid)
    # Loaded again: in the loop they would take registers.
    p_group = place.batch * config.NUM_GROUPS + lanes.group
    lane_rest = tl.load(mean + 2 * p_group + 1, mask=lanes.valid, other=0.0)
    lane_rstd = tl.load(rstd + p_group, mask=lanes.valid, other=0.0)
    of_products = (tl.sum(products, 0) - lane_rest * of_lanes) * lane_rstd
    tl.store(p_partial + batches * chunks * channels, of_products, mask=lanes.valid)


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
    lane_mean, lane_rest, lane_rstd = stored_statistics(mean, rstd, place, lanes, config)
    constant = group_mean_of(group_sums, place.batch, lanes, size, config)
    planes = batches * config.NUM_GROUPS * config.SPLIT
    slope = group_mean_of(group_sums + planes, place.batch, lanes, size, config) * lane_rstd
    factor = tl.full([1, lane_count(config.GROUPS, config.LANES)], 1.0, ACC)
    if config.WEIGHTED:
        factor = lane_parameter(weight, lanes, config)
    constant -= lane_rest * slope
    scale = lane_rstd * factor
    shift = scale
    if config.RELU and not config.RESIDUAL:
        shift = shift_of(lane_rest, scale, bias, lanes, config)
    first = first_position(place.chunk, tiles, config) + tl.arange(0, config.POSITIONS)
    for tile in range(tiles):
        position = first + tile * config.POSITIONS
        mask = tile_mask(position, total, lanes, config)
        value = load_tile(x, place, position, lanes, mask, size_1, size_2, config)
        grad_output = load_tile(g, place, position, lanes, mask, size_1, size_2, config)
        if config.RELU and not config.RESIDUAL:
            grad_output = through_relu(grad_output, value, lane_mean, scale, shift)
        found = (grad_output * factor - constant - (value - lane_mean) * slope) * lane_rstd
        store_tile(d, found, place, position, lanes, mask, size_1, size_2, config)
