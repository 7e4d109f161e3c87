"""Triton kernels of the plain correlation (one group, many channels) on matrix units.

A block of B columns of the base map times 2·B columns of the match map holds, in a diagonal band, the products of B
columns with B disparities. `gather` moves the band upright, so that loads and stores of the volume are those of a dense
B×B block. The backward moves the volume's gradient back into the band and multiplies it with the map
that slides past.

Base, match, SIGN and target as in shared.py. DOT is the type of the factors, ACC that of the sums.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .._triton.device import add_product, dtype_of, wide_index
from .._triton.layout import MapLayout
from .._triton.maps import Map, block_offsets, load_block, row_start
from .shared import SIZES, inverse_norm

STRIDES = [f"{tensor}_{axis}" for tensor in ("base", "match", "grad_base", "grad_match") for axis in "bchw"]
VOLUME_STRIDES = [f"volume_{axis}" for axis in "bdhw"]


class BandConfig(NamedTuple):
    C: int
    BLOCK: int
    """Columns, and disparities."""
    BLOCK_C: int
    """Channels that are multiplied at a time."""
    SIGN: int
    INT64: bool
    SCALE: float
    FEATURES: MapLayout
    """Of both maps and their gradients."""
    CONTIGUOUS_D: bool
    """The volume's disparities are neighbours."""
    CONTIGUOUS_W: bool
    """They are not, its columns are."""
    STRIDE_DIVISOR: int
    """Of the volume's strides; where disparities are neighbours, of their number too."""
    DOT: str
    ACC: str
    IN_PARTS: bool
    """How factors are multiplied (`_triton.device.add_product`)."""
    NORMALIZE: str = "none"
    """Asked forward, as are the next two."""
    EPS: float = 0.0
    EPS_ADDED: bool = False
    NEEDED: tuple[bool, ...] = (True, True)
    """Gradients that are written."""


class BandVolume(NamedTuple):
    """B×D×H×W; all strides but that of neighbouring disparities arrive in units of STRIDE_DIVISOR."""

    pointer: Any
    stride_b: Any
    stride_d: Any
    stride_h: Any
    stride_w: Any


@triton.jit
def volume_offsets(volume, columns, disparities, config):
    o_d = disparities
    if not config.CONTIGUOUS_D:
        o_d = o_d * volume.stride_d
    o_w = columns
    if not config.CONTIGUOUS_W:
        o_w = o_w * config.STRIDE_DIVISOR * volume.stride_w
    return o_w[:, None] + o_d[None, :]


@triton.jit
def exists(disparities, num_disparities, config):
    """disparities < num_disparities, of which STRIDE_DIVISOR is a divisor: so the compiler sees that STRIDE_DIVISOR
    neighbours are loaded all or none."""
    return disparities // config.STRIDE_DIVISOR < num_disparities // config.STRIDE_DIVISOR


@triton.jit
def band_columns(first_column, first_disparity, BLOCK: tl.constexpr, SIGN: tl.constexpr):
    """Columns of the map that slides: 2·BLOCK of them, upwards, as they stand in memory."""
    n = tl.arange(0, 2 * BLOCK)
    if SIGN == 1:
        return first_column - first_disparity - BLOCK + n
    return first_column + first_disparity + n


@triton.jit
def place_of_disparity(BLOCK: tl.constexpr, SIGN: tl.constexpr):
    """Row m of a block finds its disparity i in this column of the band."""
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


@triton.jit(do_not_specialize=["column_blocks", "disparity_blocks", *SIZES[:3], *STRIDES[:8], *VOLUME_STRIDES])
def band_forward(
    base, match, volume, height, width, num_disparities, column_blocks, disparity_blocks,
    base_b, base_c, base_h, base_w, match_b, match_c, match_h, match_w, volume_b, volume_d, volume_h, volume_w,
    config: BandConfig,
):  # fmt: skip
    BLOCK: tl.constexpr = config.BLOCK
    SIGN: tl.constexpr = config.SIGN
    INT64: tl.constexpr = config.INT64
    DOT: tl.constexpr = dtype_of(config.DOT)
    ACC: tl.constexpr = dtype_of(config.ACC)
    C: tl.constexpr = config.C
    base = Map(base, base_b, base_c, base_h, base_w)
    match = Map(match, match_b, match_c, match_h, match_w)
    volume = BandVolume(volume, volume_b, volume_d, volume_h, volume_w)
    program = tl.program_id(0)
    image_row = program // (column_blocks * disparity_blocks)
    index = program % (column_blocks * disparity_blocks)
    first_column = (index // disparity_blocks) * BLOCK
    first_disparity = (index % disparity_blocks) * BLOCK
    batch, row = wide_index(image_row // height, INT64), wide_index(image_row % height, INT64)
    p_base = row_start(base, batch, row, config.FEATURES)
    p_match = row_start(match, batch, row, config.FEATURES)
    p_volume = row_start(volume, batch, row, config)
    columns = wide_index(first_column + tl.arange(0, BLOCK), INT64)
    slides = wide_index(band_columns(first_column, first_disparity, BLOCK, SIGN), INT64)
    band = tl.zeros([BLOCK, 2 * BLOCK], ACC)
    base_squares = tl.zeros([BLOCK], ACC)
    match_squares = tl.zeros([2 * BLOCK], ACC)
    for first_channel in range(0, C, config.BLOCK_C):
        channels = wide_index(first_channel + tl.arange(0, config.BLOCK_C), INT64)
        a = load_block(p_base, base, columns, channels, width, C, config.FEATURES)
        b = load_block(p_match, match, slides, channels, width, C, config.FEATURES)
        band = add_product(a.to(DOT), tl.trans(b.to(DOT)), band, config.IN_PARTS)
        if config.NORMALIZE != "none":
            base_squares += tl.sum(a.to(ACC) * a.to(ACC), 1)
            match_squares += tl.sum(b.to(ACC) * b.to(ACC), 1)
    if config.NORMALIZE != "none":
        inverse = inverse_norm(base_squares, config)[:, None]
        band = band * inverse * inverse_norm(match_squares, config)[None, :]
    upright = tl.gather(band, place_of_disparity(BLOCK, SIGN), 1)
    disparities = wide_index(first_disparity + tl.arange(0, BLOCK), INT64)
    partner = columns[:, None] - SIGN * disparities[None, :]
    values = tl.where((partner >= 0) & (partner < width), upright * config.SCALE, 0.0)
    offsets = volume_offsets(volume, columns, disparities, config)
    m_store = (columns < width)[:, None] & exists(disparities, num_disparities, config)[None, :]
    tl.store(p_volume + offsets, values.to(p_volume.dtype.element_ty), mask=m_store)


@triton.jit
def band_of_gradient(
    p_volume, volume, first_column, columns, slides, first_disparity, width, num_disparities,
    BASE_TARGET: tl.constexpr, SIGN: tl.constexpr, config,
):  # fmt: skip
    """The volume's gradient as a band, BLOCK of the target's columns × 2·BLOCK sliding columns, 0 beside the band.

    STRIDE_DIVISOR disparities are loaded together; those without a partner are taken out afterwards.
    """
    BLOCK: tl.constexpr = config.BLOCK
    STRIDE_DIVISOR: tl.constexpr = config.STRIDE_DIVISOR
    disparities = wide_index(first_disparity + tl.arange(0, BLOCK), config.INT64)
    m_exists = exists(disparities, num_disparities, config)[None, :]
    rows, places = tl.arange(0, BLOCK), tl.arange(0, 2 * BLOCK)
    if BASE_TARGET:  # the volume's columns are the target's: rows of BLOCK disparities, moved apart
        offsets = volume_offsets(volume, columns, disparities, config)
        upright = tl.load(p_volume + offsets, mask=m_exists & (columns < width)[:, None], other=0.0)
        partner = columns[:, None] - SIGN * disparities[None, :]
        upright = tl.where((partner >= 0) & (partner < width), upright, 0.0)
        place = disparity_of_place(rows[:, None], places[None, :], BLOCK, SIGN)
        inside = (place >= 0) & (place < BLOCK)
        band = tl.where(inside, tl.gather(upright, tl.where(inside, place, 0), 1), 0.0)
    else:  # the volume's columns are those that slide: the same with 2·BLOCK rows, turned at the end
        one_end = slides[:, None] + SIGN * (disparities // STRIDE_DIVISOR * STRIDE_DIVISOR)[None, :]
        other_end = one_end + SIGN * (STRIDE_DIVISOR - 1)
        m_load = m_exists & ((slides >= 0) & (slides < width))[:, None]
        m_load = m_load & (tl.maximum(one_end, other_end) >= first_column)
        m_load = m_load & (tl.minimum(one_end, other_end) < first_column + BLOCK)
        offsets = volume_offsets(volume, slides, disparities, config)
        upright = tl.load(p_volume + offsets, mask=m_load, other=0.0)
        place = disparity_of_place(rows[None, :], places[:, None], BLOCK, SIGN)
        inside = (place >= 0) & (place < BLOCK) & (columns < width)[None, :]
        band = tl.trans(tl.where(inside, tl.gather(upright, tl.where(inside, place, 0), 1), 0.0))
    return band


@triton.jit
def band_gradient(
    slide_map, p_volume, volume, grad, batch, row, index, width, num_disparities, column_blocks,
    BASE_TARGET: tl.constexpr, config,
):  # fmt: skip
    """Gradient of the target map, from the volume's and the map that slides. BASE_TARGET: it is the base map."""
    BLOCK: tl.constexpr = config.BLOCK
    SIGN: tl.constexpr = config.SIGN if BASE_TARGET else -config.SIGN
    INT64: tl.constexpr = config.INT64
    DOT: tl.constexpr = dtype_of(config.DOT)
    ACC: tl.constexpr = dtype_of(config.ACC)
    first_column = (index % column_blocks) * BLOCK
    columns = wide_index(first_column + tl.arange(0, BLOCK), INT64)
    channels = wide_index((index // column_blocks) * config.BLOCK_C + tl.arange(0, config.BLOCK_C), INT64)
    p_slide = row_start(slide_map, batch, row, config.FEATURES)
    p_grad = row_start(grad, batch, row, config.FEATURES)
    sums = tl.zeros([BLOCK, config.BLOCK_C], ACC)
    for first_disparity in range(0, num_disparities, BLOCK):
        slides = wide_index(band_columns(first_column, first_disparity, BLOCK, SIGN), INT64)
        vectors = load_block(p_slide, slide_map, slides, channels, width, config.C, config.FEATURES)
        band = band_of_gradient(
            p_volume, volume, first_column, columns, slides, first_disparity, width, num_disparities,
            BASE_TARGET, SIGN, config,
        )  # fmt: skip
        sums = add_product(band.to(DOT), vectors.to(DOT), sums, config.IN_PARTS)
    o_w, o_c = block_offsets(grad, columns, channels, config.FEATURES)
    m_store = (columns < width)[:, None] & (channels < config.C)[None, :]
    p_store = p_grad + o_w[:, None] + o_c[None, :]
    tl.store(p_store, (sums * config.SCALE).to(p_grad.dtype.element_ty), mask=m_store)


@triton.jit(do_not_specialize=["column_blocks", *SIZES[:3], *STRIDES, *VOLUME_STRIDES])
def band_backward(
    base, match, volume, grad_base, grad_match, height, width, num_disparities, column_blocks,
    base_b, base_c, base_h, base_w, match_b, match_c, match_h, match_w, volume_b, volume_d, volume_h, volume_w,
    grad_base_b, grad_base_c, grad_base_h, grad_base_w, grad_match_b, grad_match_c, grad_match_h, grad_match_w,
    config: BandConfig,
):  # fmt: skip
    """One launch for both gradients: a row's programs for the base map, then those for the match."""
    base = Map(base, base_b, base_c, base_h, base_w)
    match = Map(match, match_b, match_c, match_h, match_w)
    volume = BandVolume(volume, volume_b, volume_d, volume_h, volume_w)
    grad_base = Map(grad_base, grad_base_b, grad_base_c, grad_base_h, grad_base_w)
    grad_match = Map(grad_match, grad_match_b, grad_match_c, grad_match_h, grad_match_w)
    programs = column_blocks * ((config.C + config.BLOCK_C - 1) // config.BLOCK_C)
    program = tl.program_id(0)
    index = program % (programs * (config.NEEDED[0] + config.NEEDED[1]))
    image_row = program // (programs * (config.NEEDED[0] + config.NEEDED[1]))
    batch, row = wide_index(image_row // height, config.INT64), wide_index(image_row % height, config.INT64)
    p_volume = row_start(volume, batch, row, config)
    if config.NEEDED[0]:
        if index < programs:
            band_gradient(
                match, p_volume, volume, grad_base, batch, row, index, width, num_disparities, column_blocks, True,
                config,
            )  # fmt: skip
        index -= programs
    if config.NEEDED[1]:  # noqa: SIM102  the first `if` is settled when compiling, the second when running
        if index >= 0:
            band_gradient(
                base, p_volume, volume, grad_match, batch, row, index, width, num_disparities, column_blocks, False,
                config,
            )  # fmt: skip
