"""Triton kernels of the cost volumes by multiply and add: group-wise correlation, concatenation, or both at once.

Words and items are in shared.py; slide.py correlates.

Every fused multiply-add is written out, and launches say enable_fp_fusion=False: left to the compiler, a lane fuses its
own product with the one it is sent, and two lanes round the same sum differently.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

import triton
import triton.language as tl

from .._triton.device import dtype_of, wide_index
from .._triton.maps import Map, row_start
from .shared import (
    SIZES,
    Scores,
    SlideConfig,
    Volume,
    load_vectors,
    split_items,
    store_vectors,
    vector_mask,
    vector_pointers,
)
from .slide import correlate, correlation_gradient

STRIDES = [
    f"{tensor}_{axis}"
    for tensor, axes in {
        "base": "bchw", "match": "bchw", "base_concat": "bchw", "match_concat": "bchw", "volume": "bcdhw",
        "scores": "bdhw",
        "grad_base": "bchw", "grad_match": "bchw", "grad_base_concat": "bchw", "grad_match_concat": "bchw",
    }.items()
    for axis in axes
]  # fmt: skip


@triton.jit
def half_start(volume, batch, row, FIRST: tl.constexpr, config):
    """Where the volume's channel FIRST starts in an image's row."""
    p_volume = row_start(volume, batch, row, config.VOLUME)
    if config.VOLUME.CONTIGUOUS_C:
        p_volume = p_volume + FIRST
    else:
        p_volume = p_volume + FIRST * wide_index(volume.stride_c, config.INT64)
    return p_volume


@triton.jit
def concatenate(base, match, volume, batch, row, index, width, num_disparities, config):
    """Both halves of the concatenation, CONCAT_SIZE channels an item, copied as they are.

    Nothing in the loop chooses by the half alone: of a choice that no step changes LLVM made two loops, which a warp
    with items of both halves ran one after the other, and every record was written in two parts far apart.
    """
    SIZE: tl.constexpr = config.CONCAT_SIZE
    PER_HALF: tl.constexpr = config.CONCAT // SIZE
    SIGN: tl.constexpr = config.SIGN
    INT64: tl.constexpr = config.INT64
    items = index * config.BLOCK_N + tl.arange(0, config.BLOCK_N)
    columns, parts = split_items(items, width, 2 * PER_HALF, config.CHANNELS_LAST)
    inside = (columns < width) & (parts < 2 * PER_HALF)
    left_half = parts < PER_HALF
    is_base = left_half
    if SIGN == -1:
        is_base = parts >= PER_HALF
    columns, parts = wide_index(columns, INT64), wide_index(parts, INT64)
    within = tl.where(left_half, parts, parts - PER_HALF)
    p_base = row_start(base, batch, row, config.CONCAT_FEATURES)
    p_match = row_start(match, batch, row, config.CONCAT_FEATURES)
    p_volume = half_start(volume, batch, row, config.NUM_GROUPS, config)
    copied = load_vectors(p_base, base, columns, within, inside & is_base, SIZE, SIZE, config.CONCAT_FEATURES)
    p_slide = vector_pointers(p_match, match, columns, within, SIZE, SIZE, config.CONCAT_FEATURES)
    way = SIGN
    if not config.CONCAT_FEATURES.CONTIGUOUS_W:
        way = SIGN * config.CONCAT_FEATURES.STRIDE_DIVISOR * wide_index(match.stride_w, INT64)
    p_cell = vector_pointers(p_volume, volume, columns, parts, SIZE, SIZE, config.VOLUME)
    next_slab = config.VOLUME.STRIDE_DIVISOR * wide_index(volume.stride_d, INT64)
    slide = columns
    is_match = inside & (parts >= PER_HALF)
    if SIGN == -1:
        is_match = inside & left_half
    for _ in range(num_disparities):
        reachable = (slide >= 0) & (slide < width)
        values = copied  # 0 in the items of the match map
        if config.MASK_BASE:
            values = tl.where(reachable[:, None], copied, 0.0)
        values = tl.load(p_slide, mask=vector_mask(is_match & reachable, SIZE, SIZE), other=values)
        tl.store(p_cell, values.to(p_volume.dtype.element_ty), mask=vector_mask(inside, SIZE, SIZE))
        p_slide -= way
        p_cell += next_slab
        slide -= SIGN


@triton.jit
def concatenation_gradient(volume, grad, batch, row, index, width, num_disparities, BASE_TARGET: tl.constexpr, config):
    """Gradient of one concatenated map, the sum over the disparities of its half of the volume's."""
    SIZE: tl.constexpr = config.CONCAT_SIZE
    PARTS: tl.constexpr = config.CONCAT // SIZE
    SIGN: tl.constexpr = config.SIGN if BASE_TARGET else -config.SIGN
    FIRST: tl.constexpr = config.NUM_GROUPS + (0 if SIGN == 1 else config.CONCAT)  # the left map's half comes first
    INT64: tl.constexpr = config.INT64
    items = index * config.BLOCK_N + tl.arange(0, config.BLOCK_N)
    columns, parts = split_items(items, width, PARTS, config.CHANNELS_LAST)
    inside = (columns < width) & (parts < PARTS)
    columns, parts = wide_index(columns, INT64), wide_index(parts, INT64)
    p_grad = row_start(grad, batch, row, config.CONCAT_FEATURES)
    p_volume = half_start(volume, batch, row, FIRST, config)
    sums = tl.zeros([config.BLOCK_N, SIZE], dtype_of(config.ACC))
    for disparity in range(num_disparities):
        d = wide_index(disparity, INT64)
        slide = columns - SIGN * d
        m_load = inside
        if config.MASK_BASE or not BASE_TARGET:
            m_load = inside & (slide >= 0) & (slide < width)
        volume_column = slide
        if BASE_TARGET:
            volume_column = columns
        p_slab = p_volume + d * config.VOLUME.STRIDE_DIVISOR * volume.stride_d
        values = load_vectors(p_slab, volume, volume_column, parts, m_load, SIZE, SIZE, config.VOLUME)
        sums += values.to(dtype_of(config.ACC))
    store_vectors(p_grad, grad, sums, columns, parts, inside, SIZE, SIZE, config.CONCAT_FEATURES)


@triton.jit(do_not_specialize=[*SIZES, *STRIDES[:21]])
def volume_forward(
    base, match, base_concat, match_concat, volume, height, width, num_disparities, correlating, concatenating,
    base_b, base_c, base_h, base_w, match_b, match_c, match_h, match_w,
    base_concat_b, base_concat_c, base_concat_h, base_concat_w,
    match_concat_b, match_concat_c, match_concat_h, match_concat_w,
    volume_b, volume_c, volume_d, volume_h, volume_w, config: SlideConfig,
):  # fmt: skip
    """One launch: a row's first programs correlate, those behind them concatenate."""
    base = Map(base, base_b, base_c, base_h, base_w)
    match = Map(match, match_b, match_c, match_h, match_w)
    base_concat = Map(base_concat, base_concat_b, base_concat_c, base_concat_h, base_concat_w)
    match_concat = Map(match_concat, match_concat_b, match_concat_c, match_concat_h, match_concat_w)
    volume = Volume(volume, volume_b, volume_c, volume_d, volume_h, volume_w)
    program = tl.program_id(0)
    index = program % (correlating + concatenating)
    image_row = program // (correlating + concatenating)
    batch, row = wide_index(image_row // height, config.INT64), wide_index(image_row % height, config.INT64)
    if config.NUM_GROUPS > 0:  # noqa: SIM102  the first `if` is settled when compiling, the second when running
        if index < correlating:
            correlate(base, match, volume, batch, row, index, width, num_disparities, config)
    if config.CONCAT > 0:  # noqa: SIM102
        if index >= correlating:
            index -= correlating
            concatenate(base_concat, match_concat, volume, batch, row, index, width, num_disparities, config)


@triton.jit(do_not_specialize=[*SIZES, *STRIDES[:8], *STRIDES[16:]])
def volume_backward(
    base, match, volume, scores, grad_base, grad_match, grad_base_concat, grad_match_concat,
    height, width, num_disparities, correlating, concatenating,
    base_b, base_c, base_h, base_w, match_b, match_c, match_h, match_w,
    volume_b, volume_c, volume_d, volume_h, volume_w, scores_b, scores_d, scores_h, scores_w,
    grad_base_b, grad_base_c, grad_base_h, grad_base_w, grad_match_b, grad_match_c, grad_match_h, grad_match_w,
    grad_base_concat_b, grad_base_concat_c, grad_base_concat_h, grad_base_concat_w,
    grad_match_concat_b, grad_match_concat_c, grad_match_concat_h, grad_match_concat_w,
    config: SlideConfig,
):  # fmt: skip
    """One launch for every gradient: a row's programs for the base map, the match, then the two concatenated ones.

    They all read the row's part of the volume's gradient; next to each other they find it in the L2 cache.
    """
    base = Map(base, base_b, base_c, base_h, base_w)
    match = Map(match, match_b, match_c, match_h, match_w)
    volume = Volume(volume, volume_b, volume_c, volume_d, volume_h, volume_w)
    scores = Scores(scores, scores_b, scores_d, scores_h, scores_w)
    grad_base = Map(grad_base, grad_base_b, grad_base_c, grad_base_h, grad_base_w)
    grad_match = Map(grad_match, grad_match_b, grad_match_c, grad_match_h, grad_match_w)
    grad_base_concat = Map(
        grad_base_concat, grad_base_concat_b, grad_base_concat_c, grad_base_concat_h, grad_base_concat_w
    )
    grad_match_concat = Map(
        grad_match_concat, grad_match_concat_b, grad_match_concat_c, grad_match_concat_h, grad_match_concat_w
    )
    programs = correlating * (config.NEEDED[0] + config.NEEDED[1])
    programs += concatenating * (config.NEEDED[2] + config.NEEDED[3])
    program = tl.program_id(0)
    index = program % programs
    image_row = program // programs
    batch, row = wide_index(image_row // height, config.INT64), wide_index(image_row % height, config.INT64)
    if config.NEEDED[0]:
        if index < correlating:
            correlation_gradient(
                base, match, volume, scores, grad_base, batch, row, index, width, num_disparities, True, config
            )
        index -= correlating
    if config.NEEDED[1]:
        if (index >= 0) & (index < correlating):
            correlation_gradient(
                match, base, volume, scores, grad_match, batch, row, index, width, num_disparities, False, config
            )
        index -= correlating
    if config.NEEDED[2]:
        if (index >= 0) & (index < concatenating):
            concatenation_gradient(volume, grad_base_concat, batch, row, index, width, num_disparities, True, config)
        index -= concatenating
    if config.NEEDED[3]:  # noqa: SIM102
        if index >= 0:
            concatenation_gradient(volume, grad_match_concat, batch, row, index, width, num_disparities, False, config)
