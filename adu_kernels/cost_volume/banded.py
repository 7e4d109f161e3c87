"""Triton kernels of the plain correlation (one group, many channels) on matrix units.

A block of B columns of the own map times 2·B columns of the other one holds, in a diagonal band, the products of B
columns with B disparities. `gather` moves the band upright, so that loads and stores of the volume are those of a dense
B×B block. The backward moves the volume's gradient back into the band and multiplies it with the other map.

Own, other and SIGN as in kernels.py. DOT is the type of the factors, ACC that of the sums.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from .._triton.device import wide_index
from .kernels import SIZES, inverse_norm, row_start

STRIDES = [f"{tensor}_{axis}" for tensor in ("own", "other", "grad_own", "grad_other") for axis in "bchw"]
VOLUME_STRIDES = [f"volume_{axis}" for axis in "bdhw"]


@triton.jit
def load_block(p_row, columns, channels, width, stride_c, stride_w,
               C: tl.constexpr, UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr):  # fmt: skip
    """columns × channels of a row, 0 outside of the map."""
    o_c = channels
    if not UNIT_C:
        o_c = o_c * stride_c
    o_w = columns
    if not UNIT_W:
        o_w = o_w * VEC * stride_w
    m_load = ((columns >= 0) & (columns < width))[:, None] & (channels < C)[None, :]
    return tl.load(p_row + o_w[:, None] + o_c[None, :], mask=m_load, other=0.0)


@triton.jit
def volume_offsets(columns, disparities, volume_d, volume_w,
                   VOLUME_UNIT_D: tl.constexpr, VOLUME_UNIT_W: tl.constexpr, VOLUME_VEC: tl.constexpr):  # fmt: skip
    o_d = disparities
    if not VOLUME_UNIT_D:
        o_d = o_d * volume_d
    o_w = columns
    if not VOLUME_UNIT_W:
        o_w = o_w * VOLUME_VEC * volume_w
    return o_w[:, None] + o_d[None, :]


@triton.jit
def exists(disparities, num_disparities, VOLUME_VEC: tl.constexpr):
    """disparities < num_disparities, of which VOLUME_VEC is a divisor: so the compiler sees that VOLUME_VEC neighbours
    are loaded all or none."""
    return disparities // VOLUME_VEC < num_disparities // VOLUME_VEC


@triton.jit
def band_columns(first_column, first_disparity, BLOCK: tl.constexpr, SIGN: tl.constexpr):
    """Columns of the map that slides: 2·BLOCK of them, upwards, as they stand in memory."""
    n = tl.arange(0, 2 * BLOCK)
    if SIGN == 1:
        return first_column - first_disparity - BLOCK + n
    return first_column + first_disparity + n


@triton.jit
def place_of_disparity(BLOCK: tl.constexpr, SIGN: tl.constexpr):
    """Row m of a tile finds its disparity i in this column of the band."""
    m, i = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    if SIGN == 1:
        return BLOCK + m - i
    return m + i


@triton.jit
def disparity_of_place(rows, places, BLOCK: tl.constexpr, SIGN: tl.constexpr):
    """The reverse: which disparity of the row stands in the place; outside of [0, BLOCK) none does."""
    if SIGN == 1:
        return BLOCK + rows - places
    return places - rows


@triton.jit(do_not_specialize=["wide_tiles", "disparity_tiles", *SIZES[:3], *STRIDES[:8], *VOLUME_STRIDES])
def band_forward(
    own, other, volume, height, width, num_disparities, wide_tiles, disparity_tiles,
    own_b, own_c, own_h, own_w, other_b, other_c, other_h, other_w, volume_b, volume_d, volume_h, volume_w,
    C: tl.constexpr, BLOCK: tl.constexpr, BLOCK_C: tl.constexpr, SIGN: tl.constexpr, INT64: tl.constexpr,
    SCALE: tl.constexpr, NORMALIZE: tl.constexpr, EPS: tl.constexpr, EPS_ADDED: tl.constexpr,
    UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr,
    VOLUME_UNIT_D: tl.constexpr, VOLUME_UNIT_W: tl.constexpr, VOLUME_VEC: tl.constexpr,
    DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    image_row = program // (wide_tiles * disparity_tiles)
    tile = program % (wide_tiles * disparity_tiles)
    first_column = (tile // disparity_tiles) * BLOCK
    first_disparity = (tile % disparity_tiles) * BLOCK
    batch, row = wide_index(image_row // height, INT64), wide_index(image_row % height, INT64)
    p_own = row_start(own, batch, row, own_b, own_h, VEC)
    p_other = row_start(other, batch, row, other_b, other_h, VEC)
    p_volume = row_start(volume, batch, row, volume_b, volume_h, VOLUME_VEC)
    columns = wide_index(first_column + tl.arange(0, BLOCK), INT64)
    slides = wide_index(band_columns(first_column, first_disparity, BLOCK, SIGN), INT64)
    band = tl.zeros([BLOCK, 2 * BLOCK], ACC)
    own_squares = tl.zeros([BLOCK], ACC)
    other_squares = tl.zeros([2 * BLOCK], ACC)
    for first_channel in range(0, C, BLOCK_C):
        channels = wide_index(first_channel + tl.arange(0, BLOCK_C), INT64)
        a = load_block(p_own, columns, channels, width, own_c, own_w, C, UNIT_C, UNIT_W, VEC)
        b = load_block(p_other, slides, channels, width, other_c, other_w, C, UNIT_C, UNIT_W, VEC)
        band = tl.dot(a.to(DOT), tl.trans(b.to(DOT)), band, input_precision="ieee", out_dtype=ACC)
        if NORMALIZE != "none":
            own_squares += tl.sum(a.to(ACC) * a.to(ACC), 1)
            other_squares += tl.sum(b.to(ACC) * b.to(ACC), 1)
    if NORMALIZE != "none":
        inverse = inverse_norm(own_squares, EPS, EPS_ADDED)[:, None]
        band = band * inverse * inverse_norm(other_squares, EPS, EPS_ADDED)[None, :]
    upright = tl.gather(band, place_of_disparity(BLOCK, SIGN), 1)
    disparities = wide_index(first_disparity + tl.arange(0, BLOCK), INT64)
    partner = columns[:, None] - SIGN * disparities[None, :]
    values = tl.where((partner >= 0) & (partner < width), upright * SCALE, 0.0)
    offsets = volume_offsets(columns, disparities, volume_d, volume_w, VOLUME_UNIT_D, VOLUME_UNIT_W, VOLUME_VEC)
    m_store = (columns < width)[:, None] & exists(disparities, num_disparities, VOLUME_VEC)[None, :]
    tl.store(p_volume + offsets, values.to(volume.dtype.element_ty), mask=m_store)


@triton.jit
def band_of_gradient(
    p_volume, first_column, columns, slides, first_disparity, width, num_disparities, volume_d, volume_w,
    OWN_TILE: tl.constexpr, BLOCK: tl.constexpr, SIGN: tl.constexpr, INT64: tl.constexpr,
    VOLUME_UNIT_D: tl.constexpr, VOLUME_UNIT_W: tl.constexpr, VOLUME_VEC: tl.constexpr,
):  # fmt: skip
    """The volume's gradient as a band, tile columns × 2·BLOCK sliding columns, 0 beside the band.

    VOLUME_VEC disparities are loaded together; those without a partner are taken out afterwards.
    """
    disparities = wide_index(first_disparity + tl.arange(0, BLOCK), INT64)
    m_exists = exists(disparities, num_disparities, VOLUME_VEC)[None, :]
    rows, places = tl.arange(0, BLOCK), tl.arange(0, 2 * BLOCK)
    if OWN_TILE:  # the volume's columns are the tile's: rows of BLOCK disparities, moved apart
        offsets = volume_offsets(columns, disparities, volume_d, volume_w, VOLUME_UNIT_D, VOLUME_UNIT_W, VOLUME_VEC)
        upright = tl.load(p_volume + offsets, mask=m_exists & (columns < width)[:, None], other=0.0)
        partner = columns[:, None] - SIGN * disparities[None, :]
        upright = tl.where((partner >= 0) & (partner < width), upright, 0.0)
        place = disparity_of_place(rows[:, None], places[None, :], BLOCK, SIGN)
        inside = (place >= 0) & (place < BLOCK)
        band = tl.where(inside, tl.gather(upright, tl.where(inside, place, 0), 1), 0.0)
    else:  # the volume's columns are those that slide: the same with 2·BLOCK rows, turned at the end
        one_end = slides[:, None] + SIGN * (disparities // VOLUME_VEC * VOLUME_VEC)[None, :]
        other_end = one_end + SIGN * (VOLUME_VEC - 1)
        m_load = m_exists & ((slides >= 0) & (slides < width))[:, None]
        m_load = m_load & (tl.maximum(one_end, other_end) >= first_column)
        m_load = m_load & (tl.minimum(one_end, other_end) < first_column + BLOCK)
        offsets = volume_offsets(slides, disparities, volume_d, volume_w, VOLUME_UNIT_D, VOLUME_UNIT_W, VOLUME_VEC)
        upright = tl.load(p_volume + offsets, mask=m_load, other=0.0)
        place = disparity_of_place(rows[None, :], places[:, None], BLOCK, SIGN)
        inside = (place >= 0) & (place < BLOCK) & (columns < width)[None, :]
        band = tl.trans(tl.where(inside, tl.gather(upright, tl.where(inside, place, 0), 1), 0.0))
    return band


@triton.jit
def band_gradient(
    slide, p_volume, grad, batch, row, tile, width, num_disparities, wide_tiles,
    slide_b, slide_c, slide_h, slide_w, volume_d, volume_w, grad_b, grad_c, grad_h, grad_w,
    OWN_TILE: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr, BLOCK_C: tl.constexpr, SIGN: tl.constexpr,
    INT64: tl.constexpr, SCALE: tl.constexpr, UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr,
    VOLUME_UNIT_D: tl.constexpr, VOLUME_UNIT_W: tl.constexpr, VOLUME_VEC: tl.constexpr,
    DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    first_column = (tile % wide_tiles) * BLOCK
    columns = wide_index(first_column + tl.arange(0, BLOCK), INT64)
    channels = wide_index((tile // wide_tiles) * BLOCK_C + tl.arange(0, BLOCK_C), INT64)
    p_slide = row_start(slide, batch, row, slide_b, slide_h, VEC)
    p_grad = row_start(grad, batch, row, grad_b, grad_h, VEC)
    sums = tl.zeros([BLOCK, BLOCK_C], ACC)
    for first_disparity in range(0, num_disparities, BLOCK):
        slides = wide_index(band_columns(first_column, first_disparity, BLOCK, SIGN), INT64)
        vectors = load_block(p_slide, slides, channels, width, slide_c, slide_w, C, UNIT_C, UNIT_W, VEC)
        band = band_of_gradient(
            p_volume, first_column, columns, slides, first_disparity, width, num_disparities, volume_d, volume_w,
            OWN_TILE, BLOCK, SIGN, INT64, VOLUME_UNIT_D, VOLUME_UNIT_W, VOLUME_VEC,
        )  # fmt: skip
        sums = tl.dot(band.to(DOT), vectors.to(DOT), sums, input_precision="ieee", out_dtype=ACC)
    o_c = channels
    if not UNIT_C:
        o_c = o_c * grad_c
    o_w = columns
    if not UNIT_W:
        o_w = o_w * VEC * grad_w
    m_store = (columns < width)[:, None] & (channels < C)[None, :]
    tl.store(p_grad + o_w[:, None] + o_c[None, :], (sums * SCALE).to(grad.dtype.element_ty), mask=m_store)


@triton.jit(do_not_specialize=["wide_tiles", *SIZES[:3], *STRIDES, *VOLUME_STRIDES])
def band_backward(
    own, other, volume, grad_own, grad_other, height, width, num_disparities, wide_tiles,
    own_b, own_c, own_h, own_w, other_b, other_c, other_h, other_w, volume_b, volume_d, volume_h, volume_w,
    grad_own_b, grad_own_c, grad_own_h, grad_own_w, grad_other_b, grad_other_c, grad_other_h, grad_other_w,
    NEED_OWN: tl.constexpr, NEED_OTHER: tl.constexpr,
    C: tl.constexpr, BLOCK: tl.constexpr, BLOCK_C: tl.constexpr, SIGN: tl.constexpr, INT64: tl.constexpr,
    SCALE: tl.constexpr, UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr,
    VOLUME_UNIT_D: tl.constexpr, VOLUME_UNIT_W: tl.constexpr, VOLUME_VEC: tl.constexpr,
    DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One launch for both gradients: a row's programs for the own map, then those for the other."""
    tiles = wide_tiles * ((C + BLOCK_C - 1) // BLOCK_C)
    program = tl.program_id(0)
    tile = program % (tiles * (NEED_OWN + NEED_OTHER))
    image_row = program // (tiles * (NEED_OWN + NEED_OTHER))
    batch, row = wide_index(image_row // height, INT64), wide_index(image_row % height, INT64)
    p_volume = row_start(volume, batch, row, volume_b, volume_h, VOLUME_VEC)
    if NEED_OWN:
        if tile < tiles:
            band_gradient(
                other, p_volume, grad_own, batch, row, tile, width, num_disparities, wide_tiles,
                other_b, other_c, other_h, other_w, volume_d, volume_w,
                grad_own_b, grad_own_c, grad_own_h, grad_own_w, True, C, BLOCK, BLOCK_C, SIGN, INT64, SCALE,
                UNIT_C, UNIT_W, VEC, VOLUME_UNIT_D, VOLUME_UNIT_W, VOLUME_VEC, DOT, ACC,
            )  # fmt: skip
        tile -= tiles
    if NEED_OTHER:  # noqa: SIM102  the first `if` is settled when compiling, the second when running
        if tile >= 0:
            band_gradient(
                own, p_volume, grad_other, batch, row, tile, width, num_disparities, wide_tiles,
                own_b, own_c, own_h, own_w, volume_d, volume_w,
                grad_other_b, grad_other_c, grad_other_h, grad_other_w, False, C, BLOCK, BLOCK_C, -SIGN, INT64, SCALE,
                UNIT_C, UNIT_W, VEC, VOLUME_UNIT_D, VOLUME_UNIT_W, VOLUME_VEC, DOT, ACC,
            )  # fmt: skip
