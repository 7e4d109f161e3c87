"""Triton functions that correlate by sliding one map past the other; kernels.py starts them. Words as in shared.py.

An item's base features stay in registers while the match map's columns slide past: a column loaded once meets PIXELS of
the volume's cells. The backward is the same slide, the volume's gradient in the place of the stores: a gather for
either map, so no atomics.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .._triton.device import dtype_of, wide_index
from .._triton.maps import row_start
from .shared import inverse_norm, load_vectors, split_items, store_vectors, vector_mask, vector_pointers

MANY = tl.constexpr(16)
"""Channels of a group that one thread adds up."""


class Items(NamedTuple):
    """Of a program: the first column and the group of each, and whether there is such an item."""

    column: Any
    groups: Any
    inside: Any


@triton.jit
def items_of_program(index, width, config):
    """A correlating program's items, neighbours in memory next to each other: a run over all groups, or BLOCK_N blocks
    of columns of one group, plainly counted so that the compiler sees them to be neighbours."""
    GROUPS: tl.constexpr = config.GROUPS
    BLOCK_N: tl.constexpr = config.BLOCK_N
    PIXELS: tl.constexpr = config.PIXELS
    num_blocks = (width + PIXELS - 1) // PIXELS
    if config.CHANNELS_LAST:
        blocks, groups = split_items(index * BLOCK_N + tl.arange(0, BLOCK_N), num_blocks, GROUPS, True)
    else:
        blocks = index // GROUPS * BLOCK_N + tl.arange(0, BLOCK_N)
        groups = tl.full([BLOCK_N], 0, tl.int32) + index % GROUPS
    inside = (blocks < num_blocks) & (groups < config.NUM_GROUPS)
    return Items(wide_index(blocks * PIXELS, config.INT64), wide_index(groups, config.INT64), inside)


@triton.jit
def channels_of(vectors, BLOCK: tl.constexpr):
    """items × BLOCK → BLOCK tensors of the items, one channel each, in an order of its own; above MANY, one of all."""
    channels = (vectors,)
    for level in tl.static_range(4):
        if BLOCK <= MANY and BLOCK >> level > 1:
            halves = ()
            for part in tl.static_range(1 << level):
                pairs = tl.reshape(channels[part], [vectors.shape[0], BLOCK >> (level + 1), 2])
                halves = halves + tl.split(pairs)
            channels = halves
    return channels


@triton.jit
def dot_product(a, b, BLOCK: tl.constexpr):
    """Per item Σ a·b, from what `channels_of` gave: one thread adds up to MANY channels, more are left to its warp."""
    if BLOCK <= MANY:
        total = a[0] * b[0]
        for channel in tl.static_range(1, BLOCK):
            total = tl.fma(a[channel], b[channel], total)
        total = tl.reshape(total, [total.shape[0]])
    else:
        total = tl.sum(a[0] * b[0], 1)
    return total


@triton.jit
def over_norm_group(values, config):
    """Per item: its own value, or with "all" the sum over the GROUPS items of its pixel."""
    if config.NORMALIZE == "all":
        pixels = tl.reshape(values, [values.shape[0] // config.GROUPS, config.GROUPS])
        total = tl.broadcast_to(tl.sum(pixels, 1)[:, None], pixels.shape)
        values = tl.reshape(total, values.shape)
    return values


@triton.jit
def norm_backward(gradient, vectors, config):
    """Gradient of a vector from that of its normalised self, u: s·u − (s²/‖x‖)·(x·u)·x, s the inverse norm."""
    squares = over_norm_group(tl.sum(vectors * vectors, 1), config)
    along = over_norm_group(tl.sum(vectors * gradient, 1), config)
    inverse = inverse_norm(squares, config)
    slope = tl.where(squares > 0, inverse * inverse / tl.sqrt(tl.where(squares > 0, squares, 1.0)), 0.0)
    return inverse[:, None] * gradient - (slope * along)[:, None] * vectors


@triton.jit
def slide_column(step, PIXELS: tl.constexpr, SIGN: tl.constexpr):
    """Column, relative to the item's first, of the sliding map at this step."""
    if SIGN == 1:
        return PIXELS - 1 - step
    return step


@triton.jit
def slide_disparity(step, pixel, PIXELS: tl.constexpr, SIGN: tl.constexpr):
    """Disparity at which the item's pixel meets the sliding map's column."""
    if SIGN == 1:
        return step - (PIXELS - 1 - pixel)
    return step - pixel


@triton.jit
def first_step(part: tl.constexpr, num_disparities, PIXELS: tl.constexpr):
    """Steps in the middle part meet a disparity in [0, D) with every pixel of an item; the PIXELS − 1 at either end
    do not. Those at the start are known when it is compiled (REACHED), and cells without a disparity are passed over
    there: LLVM's vectoriser left loads whose mask is false at compile time with a predicate that nothing sets."""
    step = 0
    if part == 1:
        step = PIXELS - 1
    elif part == 2:
        step = tl.maximum(num_disparities, PIXELS - 1)
    return step


@triton.jit
def end_step(part: tl.constexpr, num_disparities, PIXELS: tl.constexpr):
    step = PIXELS - 1
    if part == 1:
        step = num_disparities
    elif part == 2:
        step = tl.maximum(num_disparities, PIXELS - 1) + PIXELS - 1
    return step


@triton.jit
def advanced(pointers, by, PIXELS: tl.constexpr):
    moved = ()
    for pixel in tl.static_range(PIXELS):
        moved = moved + (pointers[pixel] + by,)  # noqa: RUF005  Triton adds tuples, it does not unpack them
    return moved


@triton.jit
def cell_pointers(p_volume, volume, items, slide, step, BASE_TARGET: tl.constexpr, SIGN: tl.constexpr, config):
    """Per pixel of the items, where the volume's cell of this step stands; the next step's is a fixed way further."""
    STRIDE_DIVISOR: tl.constexpr = config.VOLUME.STRIDE_DIVISOR
    cells = ()
    for pixel in tl.static_range(config.PIXELS):
        disparity = slide_disparity(step, pixel, config.PIXELS, SIGN)
        column = slide
        if BASE_TARGET:
            column = items.column + pixel
        p_cell = p_volume + disparity * STRIDE_DIVISOR * volume.stride_d + column * STRIDE_DIVISOR * volume.stride_w
        cells = cells + (p_cell + items.groups * volume.stride_c,)  # noqa: RUF005
    return cells


@triton.jit
def score_pointers(scores, batch, row, items, slide, step, BASE_TARGET: tl.constexpr, SIGN: tl.constexpr, config):
    """The same in the scores; nothing where none has a gradient."""
    cells = ()
    if config.SCORE_SHARE > 0:
        p_row = scores.pointer + batch * scores.stride_b + row * scores.stride_h
        for pixel in tl.static_range(config.PIXELS):
            disparity = slide_disparity(step, pixel, config.PIXELS, SIGN)
            column = slide
            if BASE_TARGET:
                column = items.column + pixel
            cells = cells + (p_row + disparity * scores.stride_d + column * scores.stride_w,)  # noqa: RUF005
    return cells


@triton.jit
def advanced_by_two(pointers, by, scores_by, config):
    """The cells' pointers, then the scores' where there are such."""
    moved = advanced(pointers, by, config.PIXELS)
    if config.SCORE_SHARE > 0:
        for pixel in tl.static_range(config.PIXELS):
            moved = moved + (pointers[config.PIXELS + pixel] + scores_by,)  # noqa: RUF005
    return moved


@triton.jit
def correlate_step(
    p_slide, p_cells, base_features, slide, items, step, width, num_disparities,
    EDGE: tl.constexpr, REACHED: tl.constexpr, config,
):  # fmt: skip
    """One column of the match map, at p_slide, against every pixel of the items; the base's hold the scale already."""
    PIXELS: tl.constexpr = config.PIXELS
    SIGN: tl.constexpr = config.SIGN
    BLOCK_K: tl.constexpr = config.BLOCK_K
    reachable = items.inside & (slide >= 0) & (slide < width)
    match_features = tl.load(p_slide, mask=vector_mask(reachable, config.K, BLOCK_K), other=0.0)
    match_features = channels_of(match_features.to(dtype_of(config.ACC)), BLOCK_K)
    if config.NORMALIZE != "none":
        squares = over_norm_group(dot_product(match_features, match_features, BLOCK_K), config)
        inverse = inverse_norm(squares, config)
    for pixel in tl.static_range(PIXELS):
        if (PIXELS - 1 - pixel if SIGN == 1 else pixel) <= REACHED:  # else its disparity is below 0
            value = dot_product(base_features[pixel], match_features, BLOCK_K)
            if config.NORMALIZE != "none":
                value = value * inverse
            m_store = items.inside & (items.column + pixel < width)
            if EDGE:
                disparity = slide_disparity(step, pixel, PIXELS, SIGN)
                m_store = tl.where((disparity >= 0) & (disparity < num_disparities), m_store, False)
            value = tl.where(reachable, value, 0.0)  # 0 times a base feature, were it NaN, is not 0
            tl.store(p_cells[pixel], value.to(p_cells[pixel].dtype.element_ty), mask=m_store)


@triton.jit
def correlate(base, match, volume, batch, row, index, width, num_disparities, config):
    """The volume's cells of one program's items, base columns of one row and their groups: their features are read once
    and normalised, then the match map slides past them a column a step. Three parts of steps, see `first_step`."""
    K: tl.constexpr = config.K
    BLOCK_K: tl.constexpr = config.BLOCK_K
    PIXELS: tl.constexpr = config.PIXELS
    SIGN: tl.constexpr = config.SIGN
    INT64: tl.constexpr = config.INT64
    items = items_of_program(index, width, config)
    p_base = row_start(base, batch, row, config.FEATURES)
    p_match = row_start(match, batch, row, config.FEATURES)
    p_volume = row_start(volume, batch, row, config.VOLUME)
    base_features = ()
    for pixel in tl.static_range(PIXELS):
        column = items.column + pixel
        here = items.inside & (column < width)
        vectors = load_vectors(p_base, base, column, items.groups, here, K, BLOCK_K, config.FEATURES)
        vectors = vectors.to(dtype_of(config.ACC))
        if config.NORMALIZE != "none":
            squares = over_norm_group(tl.sum(vectors * vectors, 1), config)
            vectors = vectors * inverse_norm(squares, config)[:, None]
        base_features = base_features + (channels_of(vectors * config.SCALE, BLOCK_K),)  # noqa: RUF005
    for part in tl.static_range(3):
        if PIXELS > 1 or part == 1:
            start = wide_index(first_step(part, num_disparities, PIXELS), INT64)
            slide = items.column + slide_column(start, PIXELS, SIGN)
            p_slide = vector_pointers(p_match, match, slide, items.groups, K, BLOCK_K, config.FEATURES)
            p_cells = cell_pointers(p_volume, volume, items, slide, start, True, SIGN, config)
            way = wide_index(volume.stride_d, INT64) * config.VOLUME.STRIDE_DIVISOR
            if part == 0:
                for known in tl.static_range(PIXELS - 1):
                    correlate_step(
                        p_slide, p_cells, base_features, slide, items, known, width, num_disparities,
                        True, known, config,
                    )  # fmt: skip
                    slide -= SIGN
                    p_slide -= config.FEATURES.STRIDE_DIVISOR * match.stride_w * SIGN
                    p_cells = advanced(p_cells, way, PIXELS)
            else:
                for step in range(first_step(part, num_disparities, PIXELS), end_step(part, num_disparities, PIXELS)):
                    correlate_step(
                        p_slide, p_cells, base_features, slide, items, step, width, num_disparities,
                        part == 2, PIXELS, config,
                    )  # fmt: skip
                    slide -= SIGN
                    p_slide -= config.FEATURES.STRIDE_DIVISOR * match.stride_w * SIGN
                    p_cells = advanced(p_cells, way, PIXELS)


@triton.jit
def gradient_step(
    p_slide, p_cells, sums, slide, items, step, width, num_disparities,
    EDGE: tl.constexpr, REACHED: tl.constexpr, SIGN: tl.constexpr, config,
):  # fmt: skip
    """The sums, with one column of the sliding map times the gradients of the cells where it met the items' pixels."""
    PIXELS: tl.constexpr = config.PIXELS
    BLOCK_K: tl.constexpr = config.BLOCK_K
    reachable = items.inside & (slide >= 0) & (slide < width)
    vectors = tl.load(p_slide, mask=vector_mask(reachable, config.K, BLOCK_K), other=0.0).to(dtype_of(config.ACC))
    if config.NORMALIZE != "none":
        channels = channels_of(vectors, BLOCK_K)
        squares = over_norm_group(dot_product(channels, channels, BLOCK_K), config)
        vectors = vectors * inverse_norm(squares, config)[:, None]
    added = ()
    for pixel in tl.static_range(PIXELS):
        moved = sums[pixel]
        if (PIXELS - 1 - pixel if SIGN == 1 else pixel) <= REACHED:  # else its disparity is below 0
            m_load = reachable & (items.column + pixel < width)
            if EDGE:
                disparity = slide_disparity(step, pixel, PIXELS, SIGN)
                m_load = tl.where((disparity >= 0) & (disparity < num_disparities), m_load, False)
            gradient = tl.load(p_cells[pixel], mask=m_load, other=0.0).to(dtype_of(config.ACC))
            if config.SCORE_SHARE > 0:
                score = tl.load(p_cells[PIXELS + pixel], mask=m_load, other=0.0).to(dtype_of(config.ACC))
                gradient = tl.fma(score, tl.full(score.shape, config.SCORE_SHARE, score.dtype), gradient)
            moved = tl.fma(tl.broadcast_to(gradient[:, None], vectors.shape), vectors, sums[pixel])
            if EDGE:
                moved = tl.where(m_load[:, None], moved, sums[pixel])  # 0 times an infinite feature is not 0
        added = added + (moved,)  # noqa: RUF005
    return added


@triton.jit
def correlation_gradient(
    target_map, slide_map, volume, scores, grad, batch, row, index, width, num_disparities, BASE_TARGET: tl.constexpr,
    config,
):  # fmt: skip
    """Gradient of the target map, from the volume's and the map that slides. BASE_TARGET: it is the base map.

    The scores' gradient is added to a cell's where it is loaded: no pass adds them up, and no sum is stored.
    """
    K: tl.constexpr = config.K
    BLOCK_K: tl.constexpr = config.BLOCK_K
    PIXELS: tl.constexpr = config.PIXELS
    SIGN: tl.constexpr = config.SIGN if BASE_TARGET else -config.SIGN
    INT64: tl.constexpr = config.INT64
    items = items_of_program(index, width, config)
    p_target = row_start(target_map, batch, row, config.FEATURES)
    p_slide = row_start(slide_map, batch, row, config.FEATURES)
    p_grad = row_start(grad, batch, row, config.FEATURES)
    p_volume = row_start(volume, batch, row, config.VOLUME)
    sums = ()
    for _ in tl.static_range(PIXELS):
        sums = sums + (tl.zeros([config.BLOCK_N, BLOCK_K], dtype_of(config.ACC)),)  # noqa: RUF005
    way = wide_index(volume.stride_d, INT64) * config.VOLUME.STRIDE_DIVISOR
    if not BASE_TARGET:
        way -= wide_index(volume.stride_w, INT64) * config.VOLUME.STRIDE_DIVISOR * SIGN
    scores_way = wide_index(scores.stride_d, INT64)
    if not BASE_TARGET:
        scores_way -= wide_index(scores.stride_w, INT64) * SIGN
    for part in tl.static_range(3):
        if PIXELS > 1 or part == 1:
            start = wide_index(first_step(part, num_disparities, PIXELS), INT64)
            slide = items.column + slide_column(start, PIXELS, SIGN)
            p_step = vector_pointers(p_slide, slide_map, slide, items.groups, K, BLOCK_K, config.FEATURES)
            p_cells = cell_pointers(p_volume, volume, items, slide, start, BASE_TARGET, SIGN, config)
            p_cells = p_cells + score_pointers(scores, batch, row, items, slide, start, BASE_TARGET, SIGN, config)
            if part == 0:
                for known in tl.static_range(PIXELS - 1):
                    sums = gradient_step(
                        p_step, p_cells, sums, slide, items, known, width, num_disparities, True, known, SIGN, config
                    )
                    slide -= SIGN
                    p_step -= config.FEATURES.STRIDE_DIVISOR * slide_map.stride_w * SIGN
                    p_cells = advanced_by_two(p_cells, way, scores_way, config)
            else:
                for step in range(first_step(part, num_disparities, PIXELS), end_step(part, num_disparities, PIXELS)):
                    sums = gradient_step(
                        p_step, p_cells, sums, slide, items, step, width, num_disparities,
                        part == 2, PIXELS, SIGN, config,
                    )  # fmt: skip
                    slide -= SIGN
                    p_step -= config.FEATURES.STRIDE_DIVISOR * slide_map.stride_w * SIGN
                    p_cells = advanced_by_two(p_cells, way, scores_way, config)
    for pixel in tl.static_range(PIXELS):
        column = items.column + pixel
        here = items.inside & (column < width)
        gradient = sums[pixel] * config.SCALE
        if config.NORMALIZE != "none":
            vectors = load_vectors(p_target, target_map, column, items.groups, here, K, BLOCK_K, config.FEATURES)
            gradient = norm_backward(gradient, vectors.to(dtype_of(config.ACC)), config)
        store_vectors(p_grad, grad, gradient, column, items.groups, here, K, BLOCK_K, config.FEATURES)
