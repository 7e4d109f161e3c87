"""Triton kernels of correlation → softmax → expectation and variance, in the manner of flash attention.

A program owns BLOCK columns of one image row and visits the blocks of columns of the other map that lie within D of
them: a sliding window. Scores are a matrix product, kept in registers; the softmax is taken on the way, and of it only
its sum, mean and second moment about the mean remain, merged block by block so that no two large numbers are
subtracted. The backward makes the scores again, once for every CHUNKS·BLOCK_C channels of a gradient. `softmax_scale`
may change from step to step and is no constant. Own, other, SIGN as in cost_volume/kernels.py: other = own − SIGN·d.
"""

# mypy: disable-error-code="assignment"

from __future__ import annotations

import triton
import triton.language as tl

from .._triton.device import wide_index
from ..cost_volume.banded import load_block
from ..cost_volume.kernels import row_start

LOWEST = tl.constexpr(-1e30)
SIZES = ["height", "width", "num_disparities", "tiles"]
STRIDES = [f"{tensor}_{axis}" for tensor in ("own", "other", "grad_own", "grad_other") for axis in "bchw"]


@triton.jit
def first_block(first_column, num_disparities, BLOCK: tl.constexpr, TOWARDS: tl.constexpr):
    """The first column that may partner with one of the BLOCK from first_column on; TOWARDS −1: those left of them."""
    return tl.maximum(first_column - num_disparities + 1, 0) if TOWARDS == -1 else first_column


@triton.jit
def end_of_blocks(first_column, width, num_disparities, BLOCK: tl.constexpr, TOWARDS: tl.constexpr):
    end = first_column + BLOCK
    if TOWARDS == 1:
        end = end + num_disparities - 1
    return tl.minimum(end, width)


@triton.jit
def products(
    p_tile, p_slide, columns, slides, width, tile_c, tile_w, slide_c, slide_w,
    C: tl.constexpr, BLOCK: tl.constexpr, BLOCK_C: tl.constexpr, INT64: tl.constexpr,
    UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    sums = tl.zeros([BLOCK, BLOCK], ACC)
    for first_channel in range(0, C, BLOCK_C):
        channels = wide_index(first_channel + tl.arange(0, BLOCK_C), INT64)
        a = load_block(p_tile, columns, channels, width, tile_c, tile_w, C, UNIT_C, UNIT_W, VEC).to(DOT)
        b = load_block(p_slide, slides, channels, width, slide_c, slide_w, C, UNIT_C, UNIT_W, VEC).to(DOT)
        sums = tl.dot(a, tl.trans(b), sums, input_precision="ieee", out_dtype=ACC)
    return sums


@triton.jit(do_not_specialize=["softmax_scale", *SIZES, *STRIDES[:8]])
def expectation(
    own, other, mean, variance, log_mass, softmax_scale, height, width, num_disparities, tiles,
    own_b, own_c, own_h, own_w, other_b, other_c, other_h, other_w,
    C: tl.constexpr, BLOCK: tl.constexpr, BLOCK_C: tl.constexpr, SIGN: tl.constexpr, INT64: tl.constexpr,
    SCALE: tl.constexpr, ZERO_FILL: tl.constexpr, UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr,
    DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Mean and variance of the disparity, and the logarithm of the softmax's denominator, each B×H×W."""
    program = tl.program_id(0)
    image_row = program // tiles
    first_column = (program % tiles) * BLOCK
    batch, row = wide_index(image_row // height, INT64), wide_index(image_row % height, INT64)
    p_own = row_start(own, batch, row, own_b, own_h, VEC)
    p_other = row_start(other, batch, row, other_b, other_h, VEC)
    columns = wide_index(first_column + tl.arange(0, BLOCK), INT64)
    scale = tl.cast(softmax_scale, ACC) * SCALE
    peak = tl.full([BLOCK], LOWEST, ACC)
    mass = tl.zeros([BLOCK], ACC)
    centre = tl.zeros([BLOCK], ACC)
    moment = tl.zeros([BLOCK], ACC)
    if ZERO_FILL:  # the disparities without a partner, from `partners` on, have score 0
        partners = columns + 1
        if SIGN == -1:
            partners = width - columns
        mass = tl.maximum(num_disparities - partners, 0).to(ACC)
        peak = tl.where(mass > 0, 0.0, LOWEST).to(ACC)
        centre = (partners.to(ACC) + num_disparities - 1) * 0.5
        moment = mass * (mass * mass - 1) / 12
    start = first_block(first_column, num_disparities, BLOCK, -SIGN)
    for first_slide in range(start, end_of_blocks(first_column, width, num_disparities, BLOCK, -SIGN), BLOCK):
        slides = wide_index(first_slide + tl.arange(0, BLOCK), INT64)
        scores = products(
            p_own, p_other, columns, slides, width, own_c, own_w, other_c, other_w,
            C, BLOCK, BLOCK_C, INT64, UNIT_C, UNIT_W, VEC, DOT, ACC,
        ) * scale  # fmt: skip
        disparities = (columns[:, None] - slides[None, :]) * SIGN
        valid = (disparities >= 0) & (disparities < num_disparities) & (slides < width)[None, :]
        scores = tl.where(valid, scores, LOWEST)
        new_peak = tl.maximum(peak, tl.max(scores, 1))
        shrink = tl.exp(peak - new_peak)
        weights = tl.where(valid, tl.exp(scores - new_peak[:, None]), 0.0)
        added = tl.sum(weights, 1)
        distance = disparities.to(ACC)
        added_centre = tl.sum(weights * distance, 1) / tl.where(added > 0, added, 1.0)
        away = distance - added_centre[:, None]
        added_moment = tl.sum(weights * away * away, 1)
        # Two sets of weights become one (Chan, Golub, LeVeque 1979).
        mass, moment = mass * shrink, moment * shrink
        total = tl.where(added > 0, mass + added, 1.0)
        step = added_centre - centre
        moment = tl.where(added > 0, moment + added_moment + step * step * (mass * added / total), moment)
        centre = tl.where(added > 0, centre + step * (added / total), centre)
        mass, peak = mass + added, new_peak
    mass = tl.where(mass > 0, mass, 1.0)
    o_map = (batch * height + row) * width + columns
    m_map = columns < width
    tl.store(mean + o_map, centre, mask=m_map)
    tl.store(variance + o_map, moment / mass, mask=m_map)
    tl.store(log_mass + o_map, peak + tl.log(mass), mask=m_map)


@triton.jit
def map_gradient(
    p_tile, p_slide, p_grad, p_maps, map_size, scale, first_column, first_channel, width, num_disparities,
    tile_c, tile_w, slide_c, slide_w, grad_c, grad_w,
    OWN_TILE: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr, BLOCK_C: tl.constexpr, CHUNKS: tl.constexpr,
    SIGN: tl.constexpr, INT64: tl.constexpr, UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr,
    DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradient of the map the tile stands in. SIGN of the forward; the other map slides."""
    TOWARDS: tl.constexpr = -SIGN if OWN_TILE else SIGN
    columns = wide_index(first_column + tl.arange(0, BLOCK), INT64)
    sums = ()
    for _ in tl.static_range(CHUNKS):
        sums = sums + (tl.zeros([BLOCK, BLOCK_C], ACC),)  # noqa: RUF005  Triton adds tuples, it does not unpack them
    start = first_block(first_column, num_disparities, BLOCK, TOWARDS)
    for first_slide in range(start, end_of_blocks(first_column, width, num_disparities, BLOCK, TOWARDS), BLOCK):
        slides = wide_index(first_slide + tl.arange(0, BLOCK), INT64)
        scores = products(
            p_tile, p_slide, columns, slides, width, tile_c, tile_w, slide_c, slide_w,
            C, BLOCK, BLOCK_C, INT64, UNIT_C, UNIT_W, VEC, DOT, ACC,
        ) * scale  # fmt: skip
        disparities = (columns[:, None] - slides[None, :]) * (SIGN if OWN_TILE else -SIGN)
        valid = (disparities >= 0) & (disparities < num_disparities)
        valid = valid & (columns < width)[:, None] & (slides < width)[None, :]
        # The five maps belong to columns of the own map: rows of the scores, or where it slides, their columns.
        owner = columns if OWN_TILE else slides
        m_map = owner < width
        mean = tl.load(p_maps + owner, mask=m_map, other=0.0)
        variance = tl.load(p_maps + map_size + owner, mask=m_map, other=0.0)
        log_mass = tl.load(p_maps + 2 * map_size + owner, mask=m_map, other=0.0)
        grad_mean = tl.load(p_maps + 3 * map_size + owner, mask=m_map, other=0.0)
        grad_variance = tl.load(p_maps + 4 * map_size + owner, mask=m_map, other=0.0)
        mean, variance = tl.expand_dims(mean, OWN_TILE), tl.expand_dims(variance, OWN_TILE)
        log_mass = tl.expand_dims(log_mass, OWN_TILE)
        grad_mean, grad_variance = tl.expand_dims(grad_mean, OWN_TILE), tl.expand_dims(grad_variance, OWN_TILE)
        probability = tl.exp(tl.where(valid, scores - log_mass, LOWEST))
        away = disparities.to(ACC) - mean
        upstream = probability * (grad_mean * away + grad_variance * (away * away - variance)) * scale
        upstream = tl.where(valid, upstream, 0.0).to(DOT)
        added = ()
        for chunk in tl.static_range(CHUNKS):
            channels = wide_index(first_channel + chunk * BLOCK_C + tl.arange(0, BLOCK_C), INT64)
            vectors = load_block(p_slide, slides, channels, width, slide_c, slide_w, C, UNIT_C, UNIT_W, VEC).to(DOT)
            moved = tl.dot(upstream, vectors, sums[chunk], input_precision="ieee", out_dtype=ACC)
            added = added + (moved,)  # noqa: RUF005
        sums = added
    for chunk in tl.static_range(CHUNKS):
        channels = wide_index(first_channel + chunk * BLOCK_C + tl.arange(0, BLOCK_C), INT64)
        o_c = channels
        if not UNIT_C:
            o_c = o_c * grad_c
        o_w = columns
        if not UNIT_W:
            o_w = o_w * VEC * grad_w
        m_store = (columns < width)[:, None] & (channels < C)[None, :]
        tl.store(p_grad + o_w[:, None] + o_c[None, :], sums[chunk].to(p_grad.dtype.element_ty), mask=m_store)


@triton.jit(do_not_specialize=["softmax_scale", *SIZES, "map_size", *STRIDES])
def expectation_backward(
    own, other, maps, grad_own, grad_other, softmax_scale, height, width, num_disparities, tiles, map_size,
    own_b, own_c, own_h, own_w, other_b, other_c, other_h, other_w,
    grad_own_b, grad_own_c, grad_own_h, grad_own_w, grad_other_b, grad_other_c, grad_other_h, grad_other_w,
    NEED_OWN: tl.constexpr, NEED_OTHER: tl.constexpr,
    C: tl.constexpr, BLOCK: tl.constexpr, BLOCK_C: tl.constexpr, CHUNKS: tl.constexpr, SIGN: tl.constexpr,
    INT64: tl.constexpr, SCALE: tl.constexpr, UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr,
    DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One launch for both gradients. maps: 5×B×H×W, mean, variance, log mass, and the gradients of the first two."""
    program = tl.program_id(0)
    blocks = tiles * ((C + CHUNKS * BLOCK_C - 1) // (CHUNKS * BLOCK_C))
    tile = program % (blocks * (NEED_OWN + NEED_OTHER))
    image_row = program // (blocks * (NEED_OWN + NEED_OTHER))
    batch, row = wide_index(image_row // height, INT64), wide_index(image_row % height, INT64)
    p_own = row_start(own, batch, row, own_b, own_h, VEC)
    p_other = row_start(other, batch, row, other_b, other_h, VEC)
    p_maps = maps + (batch * height + row) * width
    scale = tl.cast(softmax_scale, ACC) * SCALE
    first_column, first_channel = (tile % tiles) * BLOCK, (tile % blocks // tiles) * (CHUNKS * BLOCK_C)
    if NEED_OWN:
        if tile < blocks:
            map_gradient(
                p_own, p_other, row_start(grad_own, batch, row, grad_own_b, grad_own_h, VEC), p_maps, map_size,
                scale, first_column, first_channel, width, num_disparities,
                own_c, own_w, other_c, other_w, grad_own_c, grad_own_w,
                True, C, BLOCK, BLOCK_C, CHUNKS, SIGN, INT64, UNIT_C, UNIT_W, VEC, DOT, ACC,
            )  # fmt: skip
        tile -= blocks
    if NEED_OTHER:  # noqa: SIM102  the first `if` is settled when compiling, the second when running
        if tile >= 0:
            map_gradient(
                p_other, p_own, row_start(grad_other, batch, row, grad_other_b, grad_other_h, VEC), p_maps, map_size,
                scale, first_column, first_channel, width, num_disparities,
                other_c, other_w, own_c, own_w, grad_other_c, grad_other_w,
                False, C, BLOCK, BLOCK_C, CHUNKS, SIGN, INT64, UNIT_C, UNIT_W, VEC, DOT, ACC,
            )  # fmt: skip
