"""Triton kernels of correlation → softmax → expectation and variance, in the manner of flash attention.

The *base* map is the one whose pixels get a disparity (left in the left view), the *match* map the one they are found
in: match = base − SIGN·d. A program owns BLOCK columns of one image row and visits the blocks of columns of the other
map that lie within D of them: a sliding window. Scores are a matrix product, kept in registers; the softmax is taken on
the way, and of it only its sum, mean and second moment about the mean remain, merged block by block so that no two
large numbers are subtracted. The backward makes the scores again: `map_gradient` once for every CHUNKS·BLOCK_C channels
of a gradient, whose sums stay in registers; `window_gradient` once, and keeps those of the scores instead.
`softmax_scale` may change from step to step and is no constant.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .._triton.device import add_product, dtype_of, wide_index
from .._triton.layout import MapLayout
from .._triton.maps import Map, load_block, row_start, store_block

LOWEST = tl.constexpr(-1e30)
SIZES = ["height", "width", "num_disparities", "tiles"]
STRIDES = [f"{tensor}_{axis}" for tensor in ("base", "match", "grad_base", "grad_match") for axis in "bchw"]


class DisparityConfig(NamedTuple):
    C: int
    BLOCK: int
    """Columns of either map."""
    BLOCK_C: int
    """Channels that are multiplied at a time."""
    SIGN: int
    INT64: bool
    SCALE: float
    """What a sum over the channels is multiplied by."""
    LAYOUT: MapLayout
    """Of both maps and their gradients."""
    DOT: str
    """Type of the factors, ACC that of the sums."""
    ACC: str
    IN_PARTS: bool
    """How factors are multiplied (`_triton.device.add_product`)."""
    ZERO_FILL: bool = False
    """Asked forward."""
    CHUNKS: int = 1
    """Of BLOCK_C channels; asked backward, as are the next three."""
    WINDOW: int = 0
    """Columns of the other map taken at a time, by `window_gradient`; 0: as many as BLOCK, by `map_gradient`."""
    NEEDS_BASE: bool = True
    NEEDS_MATCH: bool = True


@triton.jit
def first_block(first_column, num_disparities, TOWARDS: tl.constexpr):
    """The first column that may partner with one of a block from first_column on; TOWARDS −1: those left of them."""
    return tl.maximum(first_column - num_disparities + 1, 0) if TOWARDS == -1 else first_column


@triton.jit
def end_of_blocks(first_column, width, num_disparities, BLOCK: tl.constexpr, TOWARDS: tl.constexpr):
    end = first_column + BLOCK
    if TOWARDS == 1:
        end = end + num_disparities - 1
    return tl.minimum(end, width)


@triton.jit
def products(p_target, p_slide, target, slide, columns, slides, width, config):
    """columns × slides: those of a row of the map `target` times those of `slide`, summed over the channels."""
    ACC: tl.constexpr = dtype_of(config.ACC)
    DOT: tl.constexpr = dtype_of(config.DOT)
    C: tl.constexpr = config.C
    sums = tl.zeros([columns.shape[0], slides.shape[0]], ACC)
    for first_channel in range(0, C, config.BLOCK_C):
        channels = wide_index(first_channel + tl.arange(0, config.BLOCK_C), config.INT64)
        a = load_block(p_target, target, columns, channels, width, C, config.LAYOUT).to(DOT)
        b = load_block(p_slide, slide, slides, channels, width, C, config.LAYOUT).to(DOT)
        sums = add_product(a, tl.trans(b), sums, config.IN_PARTS)
    return sums


@triton.jit(do_not_specialize=["softmax_scale", *SIZES, *STRIDES[:8]])
def expectation(
    base, match, mean, variance, log_row_sum, softmax_scale, height, width, num_disparities, tiles,
    base_b, base_c, base_h, base_w, match_b, match_c, match_h, match_w, config: DisparityConfig,
):  # fmt: skip
    """Mean and variance of the disparity, and the logarithm of the softmax's denominator, each B×H×W."""
    BLOCK: tl.constexpr = config.BLOCK
    SIGN: tl.constexpr = config.SIGN
    INT64: tl.constexpr = config.INT64
    ACC: tl.constexpr = dtype_of(config.ACC)
    base = Map(base, base_b, base_c, base_h, base_w)
    match = Map(match, match_b, match_c, match_h, match_w)
    program = tl.program_id(0)
    image_row = program // tiles
    first_column = (program % tiles) * BLOCK
    batch, row = wide_index(image_row // height, INT64), wide_index(image_row % height, INT64)
    p_base = row_start(base, batch, row, config.LAYOUT)
    p_match = row_start(match, batch, row, config.LAYOUT)
    columns = wide_index(first_column + tl.arange(0, BLOCK), INT64)
    scale = tl.cast(softmax_scale, ACC) * config.SCALE
    row_max = tl.full([BLOCK], LOWEST, ACC)
    row_sum = tl.zeros([BLOCK], ACC)
    centre = tl.zeros([BLOCK], ACC)
    m2 = tl.zeros([BLOCK], ACC)
    if config.ZERO_FILL:  # the disparities without a partner, from `partners` on, have score 0
        partners = columns + 1
        if SIGN == -1:
            partners = width - columns
        row_sum = tl.maximum(num_disparities - partners, 0).to(ACC)
        row_max = tl.where(row_sum > 0, 0.0, LOWEST).to(ACC)
        centre = (partners.to(ACC) + num_disparities - 1) * 0.5
        m2 = row_sum * (row_sum * row_sum - 1) / 12
    start = first_block(first_column, num_disparities, -SIGN)
    for first_slide in range(start, end_of_blocks(first_column, width, num_disparities, BLOCK, -SIGN), BLOCK):
        slides = wide_index(first_slide + tl.arange(0, BLOCK), INT64)
        scores = products(p_base, p_match, base, match, columns, slides, width, config) * scale
        disparities = (columns[:, None] - slides[None, :]) * SIGN
        valid = (disparities >= 0) & (disparities < num_disparities) & (slides < width)[None, :]
        scores = tl.where(valid, scores, LOWEST)
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        shrink = tl.exp(row_max - new_max)
        weights = tl.where(valid, tl.exp(scores - new_max[:, None]), 0.0)
        added = tl.sum(weights, 1)
        distance = disparities.to(ACC)
        added_centre = tl.sum(weights * distance, 1) / tl.where(added > 0, added, 1.0)
        away = distance - added_centre[:, None]
        added_m2 = tl.sum(weights * away * away, 1)
        # Two sets of weights become one (Chan, Golub, LeVeque 1979).
        row_sum, m2 = row_sum * shrink, m2 * shrink
        total = tl.where(added > 0, row_sum + added, 1.0)
        step = added_centre - centre
        m2 = tl.where(added > 0, m2 + added_m2 + step * step * (row_sum * added / total), m2)
        centre = tl.where(added > 0, centre + step * (added / total), centre)
        row_sum, row_max = row_sum + added, new_max
    row_sum = tl.where(row_sum > 0, row_sum, 1.0)
    o_map = (batch * height + row) * width + columns
    m_map = columns < width
    tl.store(mean + o_map, centre, mask=m_map)
    tl.store(variance + o_map, m2 / row_sum, mask=m_map)
    tl.store(log_row_sum + o_map, row_max + tl.log(row_sum), mask=m_map)


class RowMaps(NamedTuple):
    """The five maps of `expectation_backward` at an image's row: where the first is, and how far it is to the next."""

    pointer: tl.tensor
    size: tl.tensor


@triton.jit
def score_gradient(scores, maps, columns, slides, width, num_disparities, scale, BASE_TARGET: tl.constexpr, config):
    """Of the products, from their scores; 0 where columns are no partners."""
    ACC: tl.constexpr = dtype_of(config.ACC)
    disparities = (columns[:, None] - slides[None, :]) * (config.SIGN if BASE_TARGET else -config.SIGN)
    valid = (disparities >= 0) & (disparities < num_disparities)
    valid = valid & (columns < width)[:, None] & (slides < width)[None, :]
    # The maps belong to columns of the base map: rows of the scores, or where it slides, their columns.
    owner = columns if BASE_TARGET else slides
    m_map = owner < width
    mean = tl.load(maps.pointer + owner, mask=m_map, other=0.0)
    variance = tl.load(maps.pointer + maps.size + owner, mask=m_map, other=0.0)
    log_row_sum = tl.load(maps.pointer + 2 * maps.size + owner, mask=m_map, other=0.0)
    grad_mean = tl.load(maps.pointer + 3 * maps.size + owner, mask=m_map, other=0.0)
    grad_variance = tl.load(maps.pointer + 4 * maps.size + owner, mask=m_map, other=0.0)
    mean, variance = tl.expand_dims(mean, BASE_TARGET), tl.expand_dims(variance, BASE_TARGET)
    log_row_sum = tl.expand_dims(log_row_sum, BASE_TARGET)
    grad_mean, grad_variance = tl.expand_dims(grad_mean, BASE_TARGET), tl.expand_dims(grad_variance, BASE_TARGET)
    probability = tl.exp(tl.where(valid, scores - log_row_sum, LOWEST))
    away = disparities.to(ACC) - mean
    gradient = probability * (grad_mean * away + grad_variance * (away * away - variance)) * scale
    return tl.where(valid, gradient, 0.0).to(dtype_of(config.DOT))


class Place(NamedTuple):
    """What a program of the backward owns, columns and channels from these on, and the sizes of the whole."""

    first_column: tl.tensor
    first_channel: tl.tensor
    width: tl.tensor
    num_disparities: tl.tensor


@triton.jit
def map_gradient(p_target, p_slide, p_grad, target, slide, grad, maps, place, scale, BASE_TARGET: tl.constexpr, config):
    """Gradient of the target map, at a place in it; the other map slides. BASE_TARGET: it is the base map."""
    BLOCK: tl.constexpr = config.BLOCK
    BLOCK_C: tl.constexpr = config.BLOCK_C
    INT64: tl.constexpr = config.INT64
    C: tl.constexpr = config.C
    ACC: tl.constexpr = dtype_of(config.ACC)
    TOWARDS: tl.constexpr = -config.SIGN if BASE_TARGET else config.SIGN
    width, num_disparities, first_column = place.width, place.num_disparities, place.first_column
    columns = wide_index(first_column + tl.arange(0, BLOCK), INT64)
    sums = ()
    for _ in tl.static_range(config.CHUNKS):
        sums = sums + (tl.zeros([BLOCK, BLOCK_C], ACC),)  # noqa: RUF005  Triton adds tuples, it does not unpack them
    start = first_block(first_column, num_disparities, TOWARDS)
    for first_slide in range(start, end_of_blocks(first_column, width, num_disparities, BLOCK, TOWARDS), BLOCK):
        slides = wide_index(first_slide + tl.arange(0, BLOCK), INT64)
        scores = products(p_target, p_slide, target, slide, columns, slides, width, config) * scale
        gradient = score_gradient(scores, maps, columns, slides, width, num_disparities, scale, BASE_TARGET, config)
        added = ()
        for chunk in tl.static_range(config.CHUNKS):
            channels = wide_index(place.first_channel + chunk * BLOCK_C + tl.arange(0, BLOCK_C), INT64)
            vectors = load_block(p_slide, slide, slides, channels, width, C, config.LAYOUT).to(dtype_of(config.DOT))
            moved = add_product(gradient, vectors, sums[chunk], config.IN_PARTS)
            added = added + (moved,)  # noqa: RUF005
        sums = added
    for chunk in tl.static_range(config.CHUNKS):
        channels = wide_index(place.first_channel + chunk * BLOCK_C + tl.arange(0, BLOCK_C), INT64)
        store_block(p_grad, grad, sums[chunk], columns, channels, width, C, config.LAYOUT)


@triton.jit
def window_gradient(
    p_target, p_slide, p_grad, target, slide, grad, maps, place, scale, BASE_TARGET: tl.constexpr, config
):
    """As `map_gradient`, of all channels: the scores of a window are made once, and their gradient meets one chunk of
    channels after the other. Disparities that reach beyond a window are added to what lies in the gradient's memory,
    which is exact where that is fp32."""
    BLOCK: tl.constexpr = config.BLOCK
    INT64: tl.constexpr = config.INT64
    C: tl.constexpr = config.C
    ACC: tl.constexpr = dtype_of(config.ACC)
    CHANNELS: tl.constexpr = config.CHUNKS * config.BLOCK_C
    TOWARDS: tl.constexpr = -config.SIGN if BASE_TARGET else config.SIGN
    width, num_disparities, first_column = place.width, place.num_disparities, place.first_column
    columns = wide_index(first_column + tl.arange(0, BLOCK), INT64)
    start = first_block(first_column, num_disparities, TOWARDS)
    for first_slide in range(start, end_of_blocks(first_column, width, num_disparities, BLOCK, TOWARDS), config.WINDOW):
        slides = wide_index(first_slide + tl.arange(0, config.WINDOW), INT64)
        # Rows are those of the base map, so that a thread holds the five maps of few of them.
        if BASE_TARGET:
            scores = products(p_target, p_slide, target, slide, columns, slides, width, config) * scale
            gradient = score_gradient(scores, maps, columns, slides, width, num_disparities, scale, True, config)
        else:
            scores = products(p_slide, p_target, slide, target, slides, columns, width, config) * scale
            gradient = score_gradient(scores, maps, slides, columns, width, num_disparities, scale, True, config)
            gradient = tl.trans(gradient)
        if first_slide > start:
            tl.debug_barrier()  # other threads may have stored what is loaded below
        for first_channel in range(0, C, CHANNELS):
            channels = wide_index(first_channel + tl.arange(0, CHANNELS), INT64)
            vectors = load_block(p_slide, slide, slides, channels, width, C, config.LAYOUT).to(dtype_of(config.DOT))
            sums = tl.zeros([BLOCK, CHANNELS], ACC)
            if first_slide > start:
                sums = load_block(p_grad, grad, columns, channels, width, C, config.LAYOUT).to(ACC)
            sums = add_product(gradient, vectors, sums, config.IN_PARTS)
            store_block(p_grad, grad, sums, columns, channels, width, C, config.LAYOUT)


@triton.jit(do_not_specialize=["softmax_scale", *SIZES, "map_size", *STRIDES])
def expectation_backward(
    base, match, maps, grad_base, grad_match, softmax_scale, height, width, num_disparities, tiles, map_size,
    base_b, base_c, base_h, base_w, match_b, match_c, match_h, match_w,
    grad_base_b, grad_base_c, grad_base_h, grad_base_w, grad_match_b, grad_match_c, grad_match_h, grad_match_w,
    config: DisparityConfig,
):  # fmt: skip
    """One launch for both gradients. maps: 5×B×H×W, mean, variance, log of the softmax's denominator, and the gradients
    of the first two."""
    base = Map(base, base_b, base_c, base_h, base_w)
    match = Map(match, match_b, match_c, match_h, match_w)
    grad_base = Map(grad_base, grad_base_b, grad_base_c, grad_base_h, grad_base_w)
    grad_match = Map(grad_match, grad_match_b, grad_match_c, grad_match_h, grad_match_w)
    CHANNELS: tl.constexpr = config.C if config.WINDOW > 0 else config.CHUNKS * config.BLOCK_C
    GRADIENTS: tl.constexpr = config.NEEDS_BASE + config.NEEDS_MATCH
    program = tl.program_id(0)
    blocks = tiles * ((config.C + CHANNELS - 1) // CHANNELS)
    index = program % (blocks * GRADIENTS)
    image_row = program // (blocks * GRADIENTS)
    batch, row = wide_index(image_row // height, config.INT64), wide_index(image_row % height, config.INT64)
    p_base = row_start(base, batch, row, config.LAYOUT)
    p_match = row_start(match, batch, row, config.LAYOUT)
    maps = RowMaps(maps + (batch * height + row) * width, map_size)
    scale = tl.cast(softmax_scale, dtype_of(config.ACC)) * config.SCALE
    first_column, first_channel = (index % tiles) * config.BLOCK, (index % blocks // tiles) * CHANNELS
    place = Place(first_column, first_channel, width, num_disparities)
    if config.NEEDS_BASE:
        if index < blocks:
            p_grad = row_start(grad_base, batch, row, config.LAYOUT)
            if config.WINDOW > 0:
                window_gradient(p_base, p_match, p_grad, base, match, grad_base, maps, place, scale, True, config)
            else:
                map_gradient(p_base, p_match, p_grad, base, match, grad_base, maps, place, scale, True, config)
        index -= blocks
    if config.NEEDS_MATCH:  # noqa: SIM102  the first `if` is settled when compiling, the second when running
        if index >= 0:
            p_grad = row_start(grad_match, batch, row, config.LAYOUT)
            if config.WINDOW > 0:
                window_gradient(p_match, p_base, p_grad, match, base, grad_match, maps, place, scale, False, config)
            else:
                map_gradient(p_match, p_base, p_grad, match, base, grad_match, maps, place, scale, False, config)
