"""Triton kernels of the cost volumes by multiply and add: group-wise correlation, concatenation, or both at once.

Words. The *own* map is the one whose columns the volume's columns are (left in the left view), the *other* one is read
at column − SIGN·d; SIGN is 1 in the left view, −1 in the right. A program owns one image row (b, h) and a run of items;
an item is a group (or a few thin channels) of PIXELS neighbouring columns. The item's own features stay in registers
while the other map's columns slide past: a column loaded once meets PIXELS of the volume's cells. The backward is the
same slide, the volume's gradient in the place of the stores: a gather for either map, so no atomics.

Every fused multiply-add is written out, and launches say enable_fp_fusion=False: left to the compiler, a lane fuses its
own product with the one it is sent, and two lanes round the same sum differently.

What stands in a cell without a partner is neither read into the volume nor into a gradient, NaN included.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

import triton
import triton.language as tl

from .._triton.device import wide_index

# Sizes and strides vary with the image: specialised, each new size would be a new compilation.
SIZES = ["height", "width", "num_disparities", "wide_tiles", "thin_tiles"]
STRIDES = [
    f"{tensor}_{axis}"
    for tensor, axes in {
        "own": "bchw", "other": "bchw", "own_thin": "bchw", "other_thin": "bchw", "volume": "bcdhw",
        "grad_own": "bchw", "grad_other": "bchw", "grad_own_thin": "bchw", "grad_other_thin": "bchw",
    }.items()
    for axis in axes
]  # fmt: skip


MANY = tl.constexpr(16)
"""Channels of a group that one thread adds up."""


@triton.jit
def row_start(pointer, batch, row, stride_b, stride_h, VEC: tl.constexpr):
    """Strides arrive in units of VEC elements, so that the compiler knows what divides them."""
    return pointer + batch * VEC * stride_b + row * VEC * stride_h


@triton.jit
def split_items(items, num_blocks, GROUPS: tl.constexpr, GROUP_FASTEST: tl.constexpr):
    """Item number → block of columns and group. The faster of the two is the one neighbouring in memory."""
    if GROUP_FASTEST:
        return items // GROUPS, items % GROUPS
    return items % num_blocks, items // num_blocks


@triton.jit
def items_of_tile(tile, num_blocks, GROUPS: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_FASTEST: tl.constexpr):
    """Blocks of columns and groups of a correlating program's items, neighbours in memory next to each other: a run
    over all groups, or BLOCK_N blocks of one group, plainly counted so that the compiler sees them to be neighbours."""
    if GROUP_FASTEST:
        blocks, groups = split_items(tile * BLOCK_N + tl.arange(0, BLOCK_N), num_blocks, GROUPS, True)
    else:
        blocks = tile // GROUPS * BLOCK_N + tl.arange(0, BLOCK_N)
        groups = tl.full([BLOCK_N], 0, tl.int32) + tile % GROUPS
    return blocks, groups


@triton.jit
def vector_pointers(p_row, columns, groups, stride_c, stride_w,
                    SIZE: tl.constexpr, BLOCK: tl.constexpr, UNIT_C: tl.constexpr, UNIT_W: tl.constexpr,
                    VEC: tl.constexpr):  # fmt: skip
    """items × BLOCK: where the channels of each item's group stand at its column."""
    o_c = groups[:, None] * SIZE + tl.arange(0, BLOCK)[None, :]
    if not UNIT_C:
        o_c = o_c * stride_c
    o_w = columns
    if not UNIT_W:
        o_w = o_w * VEC * stride_w
    return p_row + o_w[:, None] + o_c


@triton.jit
def vector_mask(mask, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    # One `return`: Triton wants them all of one type, also those behind a constexpr `if`.
    vectors = mask[:, None]
    if BLOCK != SIZE:
        vectors = vectors & (tl.arange(0, BLOCK) < SIZE)[None, :]
    return vectors


@triton.jit
def load_vectors(p_row, columns, groups, mask, stride_c, stride_w,
                 SIZE: tl.constexpr, BLOCK: tl.constexpr, UNIT_C: tl.constexpr, UNIT_W: tl.constexpr,
                 VEC: tl.constexpr):  # fmt: skip
    """items × BLOCK: the SIZE channels of each item's group at its column, 0 where masked."""
    p_load = vector_pointers(p_row, columns, groups, stride_c, stride_w, SIZE, BLOCK, UNIT_C, UNIT_W, VEC)
    return tl.load(p_load, mask=vector_mask(mask, SIZE, BLOCK), other=0.0)


@triton.jit
def store_vectors(p_row, values, columns, groups, mask, stride_c, stride_w,
                  SIZE: tl.constexpr, BLOCK: tl.constexpr, UNIT_C: tl.constexpr, UNIT_W: tl.constexpr,
                  VEC: tl.constexpr):  # fmt: skip
    p_store = vector_pointers(p_row, columns, groups, stride_c, stride_w, SIZE, BLOCK, UNIT_C, UNIT_W, VEC)
    tl.store(p_store, values.to(p_row.dtype.element_ty), mask=vector_mask(mask, SIZE, BLOCK))


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
def over_norm_group(values, NORMALIZE: tl.constexpr, GROUPS: tl.constexpr):
    """Per item: its own value, or with "all" the sum over the GROUPS items of its pixel."""
    if NORMALIZE == "all":
        pixels = tl.reshape(values, [values.shape[0] // GROUPS, GROUPS])
        total = tl.broadcast_to(tl.sum(pixels, 1)[:, None], pixels.shape)
        values = tl.reshape(total, values.shape)
    return values


@triton.jit
def inverse_norm(squares, EPS: tl.constexpr, EPS_ADDED: tl.constexpr):
    """1 / (norm + eps), or 1 / norm with 0 for a vector no longer than eps."""
    if EPS_ADDED:
        return 1.0 / (tl.sqrt(squares) + EPS)
    present = squares > EPS * EPS
    return tl.where(present, 1.0 / tl.sqrt(tl.where(present, squares, 1.0)), 0.0)


@triton.jit
def norm_backward(upstream, vectors, NORMALIZE: tl.constexpr, GROUPS: tl.constexpr,
                  EPS: tl.constexpr, EPS_ADDED: tl.constexpr):  # fmt: skip
    """Gradient of a vector from the gradient of its normalised self: s·u − (s²/‖x‖)·(x·u)·x, s the inverse norm."""
    squares = over_norm_group(tl.sum(vectors * vectors, 1), NORMALIZE, GROUPS)
    along = over_norm_group(tl.sum(vectors * upstream, 1), NORMALIZE, GROUPS)
    inverse = inverse_norm(squares, EPS, EPS_ADDED)
    slope = tl.where(squares > 0, inverse * inverse / tl.sqrt(tl.where(squares > 0, squares, 1.0)), 0.0)
    return inverse[:, None] * upstream - (slope * along)[:, None] * vectors


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
def cell_pointers(p_volume, column, slide, groups, step, volume_c, volume_d, volume_w,
                  OWN_TILE: tl.constexpr, PIXELS: tl.constexpr, SIGN: tl.constexpr, VEC: tl.constexpr):  # fmt: skip
    """Per pixel of the items, where the volume's cell of this step stands; the next step's is a fixed way further."""
    cells = ()
    for pixel in tl.static_range(PIXELS):
        disparity = slide_disparity(step, pixel, PIXELS, SIGN)
        volume_column = slide
        if OWN_TILE:
            volume_column = column + pixel
        p_cell = p_volume + disparity * VEC * volume_d + volume_column * VEC * volume_w + groups * volume_c
        cells = cells + (p_cell,)  # noqa: RUF005
    return cells


@triton.jit
def correlate_step(
    p_slide, p_cells, own, slide, column, inside, step, width, num_disparities,
    PIXELS: tl.constexpr, SIGN: tl.constexpr, GROUPS: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr,
    NORMALIZE: tl.constexpr, EPS: tl.constexpr, EPS_ADDED: tl.constexpr, EDGE: tl.constexpr, REACHED: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """One column of the other map, at p_slide, against every pixel of the items; `own` holds the scale already."""
    reachable = inside & (slide >= 0) & (slide < width)
    other = tl.load(p_slide, mask=vector_mask(reachable, K, BLOCK_K), other=0.0).to(ACC)
    others = channels_of(other, BLOCK_K)
    if NORMALIZE != "none":
        squares = over_norm_group(dot_product(others, others, BLOCK_K), NORMALIZE, GROUPS)
        inverse = inverse_norm(squares, EPS, EPS_ADDED)
    for pixel in tl.static_range(PIXELS):
        if (PIXELS - 1 - pixel if SIGN == 1 else pixel) <= REACHED:  # else its disparity is below 0
            value = dot_product(own[pixel], others, BLOCK_K)
            if NORMALIZE != "none":
                value = value * inverse
            m_store = inside & (column + pixel < width)
            if EDGE:
                disparity = slide_disparity(step, pixel, PIXELS, SIGN)
                m_store = tl.where((disparity >= 0) & (disparity < num_disparities), m_store, False)
            value = tl.where(reachable, value, 0.0)  # 0 times what stands in own, were it NaN, is not 0
            tl.store(p_cells[pixel], value.to(p_cells[pixel].dtype.element_ty), mask=m_store)


@triton.jit
def correlate(
    p_own, p_other, p_volume, batch, row, tile, width, num_disparities,
    own_b, own_c, own_h, own_w, other_b, other_c, other_h, other_w, volume_b, volume_c, volume_d, volume_h, volume_w,
    NUM_GROUPS: tl.constexpr, GROUPS: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    PIXELS: tl.constexpr, SIGN: tl.constexpr, GROUP_FASTEST: tl.constexpr, INT64: tl.constexpr,
    SCALE: tl.constexpr, NORMALIZE: tl.constexpr, EPS: tl.constexpr, EPS_ADDED: tl.constexpr,
    UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr, VOLUME_VEC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    num_blocks = (width + PIXELS - 1) // PIXELS
    blocks, groups = items_of_tile(tile, num_blocks, GROUPS, BLOCK_N, GROUP_FASTEST)
    inside = (blocks < num_blocks) & (groups < NUM_GROUPS)
    column, groups = wide_index(blocks * PIXELS, INT64), wide_index(groups, INT64)
    p_own = row_start(p_own, batch, row, own_b, own_h, VEC)
    p_other = row_start(p_other, batch, row, other_b, other_h, VEC)
    p_volume = row_start(p_volume, batch, row, volume_b, volume_h, VOLUME_VEC)
    own = ()
    for pixel in tl.static_range(PIXELS):
        here = inside & (column + pixel < width)
        vectors = load_vectors(p_own, column + pixel, groups, here, own_c, own_w, K, BLOCK_K, UNIT_C, UNIT_W, VEC)
        vectors = vectors.to(ACC)
        if NORMALIZE != "none":
            squares = over_norm_group(tl.sum(vectors * vectors, 1), NORMALIZE, GROUPS)
            vectors = vectors * inverse_norm(squares, EPS, EPS_ADDED)[:, None]
        own = own + (channels_of(vectors * SCALE, BLOCK_K),)  # noqa: RUF005
    for part in tl.static_range(3):
        if PIXELS > 1 or part == 1:
            start = wide_index(first_step(part, num_disparities, PIXELS), INT64)
            slide = column + slide_column(start, PIXELS, SIGN)
            p_slide = vector_pointers(p_other, slide, groups, other_c, other_w, K, BLOCK_K, UNIT_C, UNIT_W, VEC)
            p_cells = cell_pointers(
                p_volume, column, slide, groups, start, volume_c, volume_d, volume_w, True, PIXELS, SIGN, VOLUME_VEC
            )
            way = wide_index(volume_d, INT64) * VOLUME_VEC
            if part == 0:
                for known in tl.static_range(PIXELS - 1):
                    correlate_step(
                        p_slide, p_cells, own, slide, column, inside, known, width, num_disparities,
                        PIXELS, SIGN, GROUPS, K, BLOCK_K, NORMALIZE, EPS, EPS_ADDED, True, known, ACC,
                    )  # fmt: skip
                    slide -= SIGN
                    p_slide -= VEC * other_w * SIGN
                    p_cells = advanced(p_cells, way, PIXELS)
            else:
                for step in range(first_step(part, num_disparities, PIXELS), end_step(part, num_disparities, PIXELS)):
                    correlate_step(
                        p_slide, p_cells, own, slide, column, inside, step, width, num_disparities,
                        PIXELS, SIGN, GROUPS, K, BLOCK_K, NORMALIZE, EPS, EPS_ADDED, part == 2, PIXELS, ACC,
                    )  # fmt: skip
                    slide -= SIGN
                    p_slide -= VEC * other_w * SIGN
                    p_cells = advanced(p_cells, way, PIXELS)


@triton.jit
def gradient_step(
    p_slide, p_cells, sums, slide, column, inside, step, width, num_disparities,
    PIXELS: tl.constexpr, SIGN: tl.constexpr, GROUPS: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr,
    NORMALIZE: tl.constexpr, EPS: tl.constexpr, EPS_ADDED: tl.constexpr, EDGE: tl.constexpr, REACHED: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """The sums, with one column of the sliding map times the gradients of the cells where it met the items' pixels."""
    reachable = inside & (slide >= 0) & (slide < width)
    vectors = tl.load(p_slide, mask=vector_mask(reachable, K, BLOCK_K), other=0.0).to(ACC)
    if NORMALIZE != "none":
        channels = channels_of(vectors, BLOCK_K)
        squares = over_norm_group(dot_product(channels, channels, BLOCK_K), NORMALIZE, GROUPS)
        vectors = vectors * inverse_norm(squares, EPS, EPS_ADDED)[:, None]
    added = ()
    for pixel in tl.static_range(PIXELS):
        moved = sums[pixel]
        if (PIXELS - 1 - pixel if SIGN == 1 else pixel) <= REACHED:  # else its disparity is below 0
            m_load = reachable & (column + pixel < width)
            if EDGE:
                disparity = slide_disparity(step, pixel, PIXELS, SIGN)
                m_load = tl.where((disparity >= 0) & (disparity < num_disparities), m_load, False)
            upstream = tl.load(p_cells[pixel], mask=m_load, other=0.0).to(ACC)
            moved = tl.fma(tl.broadcast_to(upstream[:, None], vectors.shape), vectors, sums[pixel])
            if EDGE:
                moved = tl.where(m_load[:, None], moved, sums[pixel])  # 0 times an infinite feature is not 0
        added = added + (moved,)  # noqa: RUF005
    return added


@triton.jit
def correlation_gradient(
    p_tile, p_slide, p_volume, p_grad, batch, row, tile, width, num_disparities,
    tile_b, tile_c, tile_h, tile_w, slide_b, slide_c, slide_h, slide_w,
    volume_b, volume_c, volume_d, volume_h, volume_w, grad_b, grad_c, grad_h, grad_w,
    OWN_TILE: tl.constexpr, NUM_GROUPS: tl.constexpr, GROUPS: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr, PIXELS: tl.constexpr, SIGN: tl.constexpr, GROUP_FASTEST: tl.constexpr, INT64: tl.constexpr,
    SCALE: tl.constexpr, NORMALIZE: tl.constexpr, EPS: tl.constexpr, EPS_ADDED: tl.constexpr,
    UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr, VOLUME_VEC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradient of the map the tile stands in, from the volume's and the map that slides; SIGN as that map slides."""
    num_blocks = (width + PIXELS - 1) // PIXELS
    blocks, groups = items_of_tile(tile, num_blocks, GROUPS, BLOCK_N, GROUP_FASTEST)
    inside = (blocks < num_blocks) & (groups < NUM_GROUPS)
    column, groups = wide_index(blocks * PIXELS, INT64), wide_index(groups, INT64)
    p_tile = row_start(p_tile, batch, row, tile_b, tile_h, VEC)
    p_slide = row_start(p_slide, batch, row, slide_b, slide_h, VEC)
    p_grad = row_start(p_grad, batch, row, grad_b, grad_h, VEC)
    p_volume = row_start(p_volume, batch, row, volume_b, volume_h, VOLUME_VEC)
    sums = ()
    for _ in tl.static_range(PIXELS):
        sums = sums + (tl.zeros([BLOCK_N, BLOCK_K], ACC),)  # noqa: RUF005
    way = wide_index(volume_d, INT64) * VOLUME_VEC
    if not OWN_TILE:
        way -= wide_index(volume_w, INT64) * VOLUME_VEC * SIGN
    for part in tl.static_range(3):
        if PIXELS > 1 or part == 1:
            start = wide_index(first_step(part, num_disparities, PIXELS), INT64)
            slide = column + slide_column(start, PIXELS, SIGN)
            p_step = vector_pointers(p_slide, slide, groups, slide_c, slide_w, K, BLOCK_K, UNIT_C, UNIT_W, VEC)
            p_cells = cell_pointers(
                p_volume, column, slide, groups, start, volume_c, volume_d, volume_w, OWN_TILE, PIXELS, SIGN, VOLUME_VEC
            )
            if part == 0:
                for known in tl.static_range(PIXELS - 1):
                    sums = gradient_step(
                        p_step, p_cells, sums, slide, column, inside, known, width, num_disparities,
                        PIXELS, SIGN, GROUPS, K, BLOCK_K, NORMALIZE, EPS, EPS_ADDED, True, known, ACC,
                    )  # fmt: skip
                    slide -= SIGN
                    p_step -= VEC * slide_w * SIGN
                    p_cells = advanced(p_cells, way, PIXELS)
            else:
                for step in range(first_step(part, num_disparities, PIXELS), end_step(part, num_disparities, PIXELS)):
                    sums = gradient_step(
                        p_step, p_cells, sums, slide, column, inside, step, width, num_disparities,
                        PIXELS, SIGN, GROUPS, K, BLOCK_K, NORMALIZE, EPS, EPS_ADDED, part == 2, PIXELS, ACC,
                    )  # fmt: skip
                    slide -= SIGN
                    p_step -= VEC * slide_w * SIGN
                    p_cells = advanced(p_cells, way, PIXELS)
    for pixel in tl.static_range(PIXELS):
        here = inside & (column + pixel < width)
        gradient = sums[pixel] * SCALE
        if NORMALIZE != "none":
            vectors = load_vectors(
                p_tile, column + pixel, groups, here, tile_c, tile_w, K, BLOCK_K, UNIT_C, UNIT_W, VEC
            )
            gradient = norm_backward(gradient, vectors.to(ACC), NORMALIZE, GROUPS, EPS, EPS_ADDED)
        store_vectors(p_grad, gradient, column + pixel, groups, here, grad_c, grad_w, K, BLOCK_K, UNIT_C, UNIT_W, VEC)


@triton.jit
def concatenate(
    p_own, p_other, p_volume, batch, row, tile, width, num_disparities,
    own_b, own_c, own_h, own_w, other_b, other_c, other_h, other_w, volume_b, volume_c, volume_d, volume_h, volume_w,
    FIRST: tl.constexpr, CHANNELS: tl.constexpr, SIZE: tl.constexpr, BLOCK_N: tl.constexpr, SIGN: tl.constexpr,
    MASK_OWN: tl.constexpr, GROUP_FASTEST: tl.constexpr, INT64: tl.constexpr,
    UNIT_C: tl.constexpr, VEC: tl.constexpr, VOLUME_UNIT_C: tl.constexpr, VOLUME_VEC: tl.constexpr,
):  # fmt: skip
    """Both halves of the concatenation from channel FIRST on, SIZE channels an item, copied as they are."""
    PER_HALF: tl.constexpr = CHANNELS // SIZE
    columns, parts = split_items(tile * BLOCK_N + tl.arange(0, BLOCK_N), width, 2 * PER_HALF, GROUP_FASTEST)
    inside = (columns < width) & (parts < 2 * PER_HALF)
    left_half = parts < PER_HALF
    is_own = left_half
    if SIGN == -1:
        is_own = parts >= PER_HALF
    columns, parts = wide_index(columns, INT64), wide_index(parts, INT64)
    within = tl.where(left_half, parts, parts - PER_HALF)
    p_own = row_start(p_own, batch, row, own_b, own_h, VEC)
    p_other = row_start(p_other, batch, row, other_b, other_h, VEC)
    p_volume = row_start(p_volume, batch, row, volume_b, volume_h, VOLUME_VEC)
    if VOLUME_UNIT_C:
        p_volume = p_volume + FIRST
    else:
        p_volume = p_volume + FIRST * wide_index(volume_c, INT64)
    own = load_vectors(p_own, columns, within, inside & is_own, own_c, own_w, SIZE, SIZE, UNIT_C, False, VEC)
    for disparity in range(num_disparities):
        d = wide_index(disparity, INT64)
        slide = columns - SIGN * d
        reachable = (slide >= 0) & (slide < width)
        m_other = inside & reachable & (parts >= PER_HALF)
        if SIGN == -1:
            m_other = inside & reachable & left_half
        other = load_vectors(p_other, slide, within, m_other, other_c, other_w, SIZE, SIZE, UNIT_C, False, VEC)
        kept = is_own
        if MASK_OWN:
            kept = is_own & reachable
        values = tl.where(kept[:, None], own, other)
        store_vectors(
            p_volume + d * VOLUME_VEC * volume_d, values, columns, parts, inside, volume_c, volume_w,
            SIZE, SIZE, VOLUME_UNIT_C, False, VOLUME_VEC,
        )  # fmt: skip


@triton.jit
def concatenation_gradient(
    p_volume, p_grad, batch, row, tile, width, num_disparities,
    volume_b, volume_c, volume_d, volume_h, volume_w, grad_b, grad_c, grad_h, grad_w,
    OWN_TILE: tl.constexpr, FIRST: tl.constexpr, CHANNELS: tl.constexpr, SIZE: tl.constexpr, BLOCK_N: tl.constexpr,
    SIGN: tl.constexpr, MASK_OWN: tl.constexpr, GROUP_FASTEST: tl.constexpr, INT64: tl.constexpr,
    UNIT_C: tl.constexpr, VEC: tl.constexpr, VOLUME_UNIT_C: tl.constexpr, VOLUME_VEC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradient of one thin map, whose half starts at channel FIRST; SIGN as the columns of the volume slide past it."""
    columns, parts = split_items(tile * BLOCK_N + tl.arange(0, BLOCK_N), width, CHANNELS // SIZE, GROUP_FASTEST)
    inside = (columns < width) & (parts < CHANNELS // SIZE)
    columns, parts = wide_index(columns, INT64), wide_index(parts, INT64)
    p_grad = row_start(p_grad, batch, row, grad_b, grad_h, VEC)
    p_volume = row_start(p_volume, batch, row, volume_b, volume_h, VOLUME_VEC)
    if VOLUME_UNIT_C:
        p_volume = p_volume + FIRST
    else:
        p_volume = p_volume + FIRST * wide_index(volume_c, INT64)
    sums = tl.zeros([BLOCK_N, SIZE], ACC)
    for disparity in range(num_disparities):
        d = wide_index(disparity, INT64)
        slide = columns - SIGN * d
        m_load = inside
        if MASK_OWN or not OWN_TILE:
            m_load = inside & (slide >= 0) & (slide < width)
        volume_column = slide
        if OWN_TILE:
            volume_column = columns
        sums += load_vectors(
            p_volume + d * VOLUME_VEC * volume_d, volume_column, parts, m_load, volume_c, volume_w,
            SIZE, SIZE, VOLUME_UNIT_C, False, VOLUME_VEC,
        ).to(ACC)  # fmt: skip
    store_vectors(p_grad, sums, columns, parts, inside, grad_c, grad_w, SIZE, SIZE, UNIT_C, False, VEC)


@triton.jit(do_not_specialize=[*SIZES, *STRIDES[:21]])
def volume_forward(
    own, other, own_thin, other_thin, volume, height, width, num_disparities, wide_tiles, thin_tiles,
    own_b, own_c, own_h, own_w, other_b, other_c, other_h, other_w,
    own_thin_b, own_thin_c, own_thin_h, own_thin_w, other_thin_b, other_thin_c, other_thin_h, other_thin_w,
    volume_b, volume_c, volume_d, volume_h, volume_w,
    NUM_GROUPS: tl.constexpr, GROUPS: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    PIXELS: tl.constexpr, SIGN: tl.constexpr, GROUP_FASTEST: tl.constexpr, INT64: tl.constexpr,
    SCALE: tl.constexpr, NORMALIZE: tl.constexpr, EPS: tl.constexpr, EPS_ADDED: tl.constexpr,
    THIN: tl.constexpr, THIN_SIZE: tl.constexpr, MASK_OWN: tl.constexpr,
    UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr, THIN_UNIT_C: tl.constexpr, THIN_VEC: tl.constexpr,
    VOLUME_UNIT_C: tl.constexpr, VOLUME_VEC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One launch: programs [0, wide_tiles) of a row correlate, the thin_tiles after them concatenate."""
    program = tl.program_id(0)
    tile = program % (wide_tiles + thin_tiles)
    image_row = program // (wide_tiles + thin_tiles)
    batch, row = wide_index(image_row // height, INT64), wide_index(image_row % height, INT64)
    if NUM_GROUPS > 0:  # noqa: SIM102  the first `if` is settled when compiling, the second when running
        if tile < wide_tiles:
            correlate(
                own, other, volume, batch, row, tile, width, num_disparities,
                own_b, own_c, own_h, own_w, other_b, other_c, other_h, other_w,
                volume_b, volume_c, volume_d, volume_h, volume_w,
                NUM_GROUPS, GROUPS, K, BLOCK_K, BLOCK_N, PIXELS, SIGN, GROUP_FASTEST, INT64, SCALE, NORMALIZE, EPS,
                EPS_ADDED, UNIT_C, UNIT_W, VEC, VOLUME_VEC, ACC,
            )  # fmt: skip
    if THIN > 0:  # noqa: SIM102
        if tile >= wide_tiles:
            concatenate(
                own_thin, other_thin, volume, batch, row, tile - wide_tiles, width, num_disparities,
                own_thin_b, own_thin_c, own_thin_h, own_thin_w, other_thin_b, other_thin_c, other_thin_h, other_thin_w,
                volume_b, volume_c, volume_d, volume_h, volume_w,
                NUM_GROUPS, THIN, THIN_SIZE, BLOCK_N, SIGN, MASK_OWN, GROUP_FASTEST, INT64,
                THIN_UNIT_C, THIN_VEC, VOLUME_UNIT_C, VOLUME_VEC,
            )  # fmt: skip


@triton.jit(do_not_specialize=[*SIZES, *STRIDES[:8], *STRIDES[16:]])
def volume_backward(
    own, other, volume, grad_own, grad_other, grad_own_thin, grad_other_thin,
    height, width, num_disparities, wide_tiles, thin_tiles,
    own_b, own_c, own_h, own_w, other_b, other_c, other_h, other_w,
    volume_b, volume_c, volume_d, volume_h, volume_w,
    grad_own_b, grad_own_c, grad_own_h, grad_own_w, grad_other_b, grad_other_c, grad_other_h, grad_other_w,
    grad_own_thin_b, grad_own_thin_c, grad_own_thin_h, grad_own_thin_w,
    grad_other_thin_b, grad_other_thin_c, grad_other_thin_h, grad_other_thin_w,
    NEED_OWN: tl.constexpr, NEED_OTHER: tl.constexpr, NEED_OWN_THIN: tl.constexpr, NEED_OTHER_THIN: tl.constexpr,
    NUM_GROUPS: tl.constexpr, GROUPS: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    PIXELS: tl.constexpr, SIGN: tl.constexpr, GROUP_FASTEST: tl.constexpr, INT64: tl.constexpr,
    SCALE: tl.constexpr, NORMALIZE: tl.constexpr, EPS: tl.constexpr, EPS_ADDED: tl.constexpr,
    THIN: tl.constexpr, THIN_SIZE: tl.constexpr, MASK_OWN: tl.constexpr,
    UNIT_C: tl.constexpr, UNIT_W: tl.constexpr, VEC: tl.constexpr, THIN_UNIT_C: tl.constexpr, THIN_VEC: tl.constexpr,
    VOLUME_UNIT_C: tl.constexpr, VOLUME_VEC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One launch for every gradient: a row's programs for the own map, the other, then the two thin ones.

    They all read the row's part of the volume's gradient; next to each other they find it in the L2 cache.
    """
    tiles = wide_tiles * (NEED_OWN + NEED_OTHER) + thin_tiles * (NEED_OWN_THIN + NEED_OTHER_THIN)
    program = tl.program_id(0)
    tile = program % tiles
    image_row = program // tiles
    batch, row = wide_index(image_row // height, INT64), wide_index(image_row % height, INT64)
    FIRST_OWN: tl.constexpr = NUM_GROUPS + (0 if SIGN == 1 else THIN)
    FIRST_OTHER: tl.constexpr = NUM_GROUPS + (THIN if SIGN == 1 else 0)
    if NEED_OWN:
        if tile < wide_tiles:
            correlation_gradient(
                own, other, volume, grad_own, batch, row, tile, width, num_disparities,
                own_b, own_c, own_h, own_w, other_b, other_c, other_h, other_w,
                volume_b, volume_c, volume_d, volume_h, volume_w, grad_own_b, grad_own_c, grad_own_h, grad_own_w,
                True, NUM_GROUPS, GROUPS, K, BLOCK_K, BLOCK_N, PIXELS, SIGN, GROUP_FASTEST, INT64, SCALE, NORMALIZE,
                EPS, EPS_ADDED, UNIT_C, UNIT_W, VEC, VOLUME_VEC, ACC,
            )  # fmt: skip
        tile -= wide_tiles
    if NEED_OTHER:
        if (tile >= 0) & (tile < wide_tiles):
            correlation_gradient(
                other, own, volume, grad_other, batch, row, tile, width, num_disparities,
                other_b, other_c, other_h, other_w, own_b, own_c, own_h, own_w,
                volume_b, volume_c, volume_d, volume_h, volume_w,
                grad_other_b, grad_other_c, grad_other_h, grad_other_w,
                False, NUM_GROUPS, GROUPS, K, BLOCK_K, BLOCK_N, PIXELS, -SIGN, GROUP_FASTEST, INT64, SCALE, NORMALIZE,
                EPS, EPS_ADDED, UNIT_C, UNIT_W, VEC, VOLUME_VEC, ACC,
            )  # fmt: skip
        tile -= wide_tiles
    if NEED_OWN_THIN:
        if (tile >= 0) & (tile < thin_tiles):
            concatenation_gradient(
                volume, grad_own_thin, batch, row, tile, width, num_disparities,
                volume_b, volume_c, volume_d, volume_h, volume_w,
                grad_own_thin_b, grad_own_thin_c, grad_own_thin_h, grad_own_thin_w,
                True, FIRST_OWN, THIN, THIN_SIZE, BLOCK_N, SIGN, MASK_OWN, GROUP_FASTEST, INT64,
                THIN_UNIT_C, THIN_VEC, VOLUME_UNIT_C, VOLUME_VEC, ACC,
            )  # fmt: skip
        tile -= thin_tiles
    if NEED_OTHER_THIN:  # noqa: SIM102
        if tile >= 0:
            concatenation_gradient(
                volume, grad_other_thin, batch, row, tile, width, num_disparities,
                volume_b, volume_c, volume_d, volume_h, volume_w,
                grad_other_thin_b, grad_other_thin_c, grad_other_thin_h, grad_other_thin_w,
                False, FIRST_OTHER, THIN, THIN_SIZE, BLOCK_N, -SIGN, MASK_OWN, GROUP_FASTEST, INT64,
                THIN_UNIT_C, THIN_VEC, VOLUME_UNIT_C, VOLUME_VEC, ACC,
            )  # fmt: skip
