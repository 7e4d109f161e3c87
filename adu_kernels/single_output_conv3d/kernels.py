"""Triton kernels of the 3×3×3 convolution with one output channel.

Forward: a position's vector of channels is read once and multiplied with all 27 taps on matrix units; what remains is
to add 27 numbers that stand at 27 different positions. A program walks along the disparities (the first of the three
axes) with a tile of rows × columns, so that the planes are added in registers; the sums over the 3×3 neighbours are
taken once per plane, of numbers rather than vectors, which `tl.gather` moves through shared memory.
Backward: both gradients are products of the 27 neighbours of grad_output, one channel that stays in the caches, with
the weights, and with x.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .._triton.device import dtype_of, wide_index

SLOTS = tl.constexpr(32)
"""Columns of a product: forward 8 neighbours of each of three planes, and their centres; backward 27 taps."""
FORWARD_SIZES = [
    "depth", "height", "width", "planes", "rows", "columns", "halo_h", "halo_w", "tiles_d", "tiles_h", "tiles_w",
]  # fmt: skip
X_STRIDES = [f"x_{axis}" for axis in "bcdhw"]
WEIGHT_STRIDES = [f"w_{axis}" for axis in "cdhw"]
BACKWARD_SIZES = ["depth", "height", "width", "parts", "blocks"]
GRADIENT_STRIDES = [*(f"g_{axis}" for axis in "bdhw"), *(f"grad_{axis}" for axis in "bcdhw")]


class Volume(NamedTuple):
    """B×C×D×H×W; all strides but that of neighbouring channels in units of config.STRIDE_DIVISOR elements."""

    pointer: Any
    stride_b: Any
    stride_c: Any
    stride_d: Any
    stride_h: Any
    stride_w: Any


class Weight(NamedTuple):
    """1×C×3×3×3."""

    pointer: Any
    stride_c: Any
    stride_d: Any
    stride_h: Any
    stride_w: Any


class ConvConfig(NamedTuple):
    C: int
    BLOCK_C: int
    """Channels that are multiplied at a time, CHUNKS such blocks of them."""
    CHUNKS: int
    POSITIONS: int
    """Of a tile."""
    COLUMNS: int
    """Of a forward tile; 0: as the launch says, which asks nothing of the compiler where channels are neighbours."""
    CONTIGUOUS_C: bool
    CONTIGUOUS_W: bool
    STRIDE_DIVISOR: int
    """The three of x and its gradient, as in `layout.MapLayout`."""
    CONTIGUOUS_TAPS: bool
    """The channels of a tap are neighbours in the weight."""
    FLAT: bool
    """Backward: the positions of an image lie at one stride in x and its gradient, side by side in grad_output."""
    HAS_BIAS: bool
    NEEDS_X: bool
    NEEDS_WEIGHT: bool
    INT64: bool
    DOT: str
    """Type of the factors, ACC that of the sums."""
    ACC: str


@triton.jit
def channel_offsets(v, channels, config):
    return channels if config.CONTIGUOUS_C else channels * v.stride_c


@triton.jit
def column_offsets(v, columns, config):
    return columns if config.CONTIGUOUS_W else columns * config.STRIDE_DIVISOR * v.stride_w


@triton.jit
def tap_channels(w, channels, config):
    return channels if config.CONTIGUOUS_TAPS else channels * w.stride_c


@triton.jit
def weights_of_slots(w, channels, slots, config):
    """BLOCK_C × SLOTS: slot 8·i + j is neighbour j of the plane i, slot 24 + 2·i its centre, the others 0."""
    plane, j = slots // 8, slots % 8
    tap = j + (j >= 4).to(tl.int32)  # of 3×3 without the centre
    neighbour = plane < 3
    tap_d = tl.where(neighbour, plane, j // 2)
    tap_h = tl.where(neighbour, tap // 3, 1)
    tap_w = tl.where(neighbour, tap % 3, 1)
    offsets = tap_d * w.stride_d + tap_h * w.stride_h + tap_w * w.stride_w
    kept = (neighbour | ((j % 2 == 0) & (j < 6)))[None, :] & (channels < config.C)[:, None]
    o_c = tap_channels(w, channels, config)
    return tl.load(w.pointer + (o_c[:, None] + offsets[None, :]), mask=kept, other=0.0).to(dtype_of(config.DOT))


@triton.jit
def neighbour_sums(values, sources, inside, POSITIONS: tl.constexpr):
    """POSITIONS: at each position Σ_j values[position + step j, j].

    values: POSITIONS × 8. They are laid out for shared memory as [position / 8, j % 2, j / 2, position % 8], and the
    results as [position / 64, j % 2, position / 8 % 8, j / 2, position % 8]: a warp, which has four pairs of columns
    of eight positions in a product's layout, then meets no bank twice, writing or reading.
    """
    pairs = tl.permute(tl.reshape(values, [POSITIONS // 8, 8, 4, 2]), (0, 3, 2, 1))
    moved = tl.gather(tl.reshape(pairs, [POSITIONS * 8]), sources, 0)
    moved = tl.reshape(tl.where(inside, moved, 0.0), [POSITIONS // 64, 2, 8, 4, 8])
    return tl.reshape(tl.sum(tl.sum(moved, 1), 2), [POSITIONS])


@triton.jit
def neighbours(columns, POSITIONS: tl.constexpr):
    """What `neighbour_sums` takes: where each of its numbers stands, and whether that is inside of the tile."""
    number = tl.arange(0, POSITIONS * 8)
    position = number // 512 * 64 + number // 32 % 8 * 8 + number % 8
    j = number // 8 % 4 * 2 + number // 256 % 2
    tap = j + (j >= 4).to(tl.int32)
    step_h, step_w = tap // 3 - 1, tap % 3 - 1
    column = position % columns + step_w
    source = position + step_h * columns + step_w
    inside = (source >= 0) & (source < POSITIONS) & (column >= 0) & (column < columns)
    source = tl.where(inside, source, 0)
    return source // 8 * 64 + j % 2 * 32 + j // 2 * 8 + source % 8, inside


@triton.jit(do_not_specialize=[*FORWARD_SIZES, *X_STRIDES, *WEIGHT_STRIDES])
def convolution(
    x, weight, bias, y,
    depth, height, width, planes, rows, columns, halo_h, halo_w, tiles_d, tiles_h, tiles_w,
    x_b, x_c, x_d, x_h, x_w, w_c, w_d, w_h, w_w,
    config: ConvConfig,
):  # fmt: skip
    """y: B×D×H×W, contiguous. A program takes `planes` disparities of a tile of rows × columns, whose outermost rows
    (columns) are only read where the image has more of them than the tile (halo 1)."""
    POSITIONS: tl.constexpr = config.POSITIONS
    BLOCK_C: tl.constexpr = config.BLOCK_C
    INT64: tl.constexpr = config.INT64
    DIVISOR: tl.constexpr = config.STRIDE_DIVISOR
    ACC: tl.constexpr = dtype_of(config.ACC)
    DOT: tl.constexpr = dtype_of(config.DOT)
    x = Volume(x, x_b, x_c, x_d, x_h, x_w)
    w = Weight(weight, w_c, w_d, w_h, w_w)
    if config.COLUMNS > 0:
        columns = config.COLUMNS
    program = tl.program_id(0)
    tile_w, program = program % tiles_w, program // tiles_w
    tile_h, program = program % tiles_h, program // tiles_h
    tile_d, batch = program % tiles_d, wide_index(program // tiles_d, INT64)
    position = tl.arange(0, POSITIONS)
    tile_row, tile_column = position // columns, position % columns
    row = tile_h * (rows - 2 * halo_h) + tile_row - halo_h
    column = tile_w * (columns - 2 * halo_w) + tile_column - halo_w
    m_read = (tile_row < rows) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    m_write = m_read & (tile_row >= halo_h) & (tile_row < rows - halo_h)
    m_write = m_write & (tile_column >= halo_w) & (tile_column < columns - halo_w)
    row, column = wide_index(row, INT64), wide_index(column, INT64)
    p_x = x.pointer + batch * DIVISOR * x.stride_b
    o_x = row * DIVISOR * x.stride_h + column_offsets(x, column, config)
    p_y = y + batch * depth * height * width
    o_y = row * width + column
    sources, inside = neighbours(columns, POSITIONS)
    slots = tl.arange(0, SLOTS)
    plane_of_centre = tl.arange(0, 4)[None, :]
    shift = tl.zeros([], ACC)
    if config.HAS_BIAS:
        shift = tl.load(bias).to(ACC)
    # What the next two results have of the planes read so far.
    next_sums = tl.zeros([POSITIONS, 8], ACC)
    later_sums = tl.zeros([POSITIONS, 8], ACC)
    next_centres = tl.zeros([POSITIONS, 4], ACC)
    later_centres = tl.zeros([POSITIONS, 4], ACC)
    taps = weights_of_slots(w, wide_index(tl.arange(0, BLOCK_C), INT64), slots, config)
    first = tile_d * planes
    end = tl.minimum(first + planes, depth)
    for plane in range(first - 1, end + 1):
        p_plane = p_x + wide_index(plane, INT64) * DIVISOR * x.stride_d
        m_plane = tl.where((plane >= 0) & (plane < depth), m_read, False)
        products = tl.zeros([POSITIONS, SLOTS], ACC)
        for chunk in tl.static_range(config.CHUNKS):
            channels = wide_index(tl.arange(0, BLOCK_C) + chunk * BLOCK_C, INT64)
            if config.CHUNKS > 1:
                taps = weights_of_slots(w, channels, slots, config)
            m_x = m_plane[:, None] & (channels < config.C)[None, :]
            vectors = tl.load(p_plane + (o_x[:, None] + channel_offsets(x, channels, config)[None, :]), m_x, other=0.0)
            products = tl.dot(vectors.to(DOT), taps, products, input_precision="ieee", out_dtype=ACC)
        # [position, neighbour, plane in halves]
        halves = tl.permute(tl.reshape(products, [POSITIONS, 2, 2, 8]), (0, 3, 2, 1))
        low, high = tl.split(halves)
        first_plane, second_plane = tl.split(low)
        third_plane, centres = tl.split(high)
        sums, next_sums, later_sums = next_sums + third_plane, later_sums + second_plane, first_plane
        centres, _ = tl.split(tl.reshape(centres, [POSITIONS, 4, 2]))
        of_result = tl.where(plane_of_centre == 2, centres, next_centres)
        next_centres = tl.where(plane_of_centre == 1, centres, later_centres)
        later_centres = centres  # to hand a loop's own values on unchanged would keep Triton from loading ahead
        result = neighbour_sums(sums, sources, inside, POSITIONS) + tl.sum(of_result, 1) + shift
        written = plane - 1
        m_y = tl.where(written >= first, m_write, False)
        p_written = p_y + wide_index(written, INT64) * height * width
        tl.store(p_written + o_y, result.to(y.dtype.element_ty), mask=m_y)


@triton.jit
def grad_output_neighbours(g, batch, place, valid, sizes, config):
    """POSITIONS × SLOTS: grad_output at the position minus the step of tap 9·i + 3·j + k, 0 outside.

    g: its strides (b, d, h, w) behind the pointer. place: the positions' number, plane, row and column. sizes: D, H, W.
    """
    tap = tl.arange(0, SLOTS)
    step_d, step_h, step_w = tap // 9 - 1, tap // 3 % 3 - 1, tap % 3 - 1
    plane, row, column = place[1], place[2], place[3]
    # Which of the three steps stay inside, a bit for each.
    inside_d = 2 + (plane < sizes[0] - 1).to(tl.int32) + (plane > 0).to(tl.int32) * 4
    inside_h = 2 + (row < sizes[1] - 1).to(tl.int32) + (row > 0).to(tl.int32) * 4
    inside_w = 2 + (column < sizes[2] - 1).to(tl.int32) + (column > 0).to(tl.int32) * 4
    inside = (inside_d[:, None] >> (step_d + 1)[None, :]) & (inside_h[:, None] >> (step_h + 1)[None, :])
    inside = inside & (inside_w[:, None] >> (step_w + 1)[None, :]) & 1
    m_g = (inside == 1) & valid[:, None] & (tap < 27)[None, :]
    steps = wide_index(step_d, config.INT64) * g[2] + step_h * g[3]
    if config.FLAT:
        steps += step_w
        offsets = place[0]
    else:
        steps += step_w * g[4]
        offsets = plane * g[2] + row * g[3] + column * g[4]
    return tl.load(g[0] + batch * g[1] + (offsets[:, None] - steps[None, :]), mask=m_g, other=0.0)


@triton.jit
def volume_offsets(v, place, config):
    """Of positions, from the start of an image."""
    DIVISOR: tl.constexpr = config.STRIDE_DIVISOR
    if config.FLAT:
        offsets = column_offsets(v, place[0], config)
    else:
        offsets = (place[1] * v.stride_d + place[2] * v.stride_h) * DIVISOR + column_offsets(v, place[3], config)
    return offsets


@triton.jit(do_not_specialize=[*BACKWARD_SIZES, *X_STRIDES, *WEIGHT_STRIDES, *GRADIENT_STRIDES])
def convolution_backward(
    x, weight, grad_output, grad_x, partials, depth, height, width, parts, blocks,
    x_b, x_c, x_d, x_h, x_w, w_c, w_d, w_h, w_w,
    g_b, g_d, g_h, g_w, grad_b, grad_c, grad_d, grad_h, grad_w,
    config: ConvConfig,
):  # fmt: skip
    """The gradient of x, and of each of `parts` parts of an image and block of channels the sum for the weight's.

    A program takes `blocks` blocks of POSITIONS, counted through an image. partials: programs × BLOCK_C × SLOTS.
    """
    POSITIONS: tl.constexpr = config.POSITIONS
    BLOCK_C: tl.constexpr = config.BLOCK_C
    INT64: tl.constexpr = config.INT64
    DIVISOR: tl.constexpr = config.STRIDE_DIVISOR
    ACC: tl.constexpr = dtype_of(config.ACC)
    DOT: tl.constexpr = dtype_of(config.DOT)
    x = Volume(x, x_b, x_c, x_d, x_h, x_w)
    w = Weight(weight, w_c, w_d, w_h, w_w)
    grad = Volume(grad_x, grad_b, grad_c, grad_d, grad_h, grad_w)
    program = tl.program_id(0)
    chunk, part = program % config.CHUNKS, program // config.CHUNKS
    batch, part = wide_index(part // parts, INT64), part % parts
    channels = wide_index(tl.arange(0, BLOCK_C) + chunk * BLOCK_C, INT64)
    m_channels = channels < config.C
    p_x = x.pointer + batch * DIVISOR * x.stride_b
    p_grad = grad.pointer + batch * DIVISOR * grad.stride_b
    slots = tl.arange(0, SLOTS)
    if config.NEEDS_X:
        o_taps = slots // 9 * w.stride_d + slots // 3 % 3 * w.stride_h + slots % 3 * w.stride_w
        m_taps = (slots < 27)[:, None] & m_channels[None, :]
        o_taps = o_taps[:, None] + tap_channels(w, channels, config)[None, :]
        taps = tl.load(w.pointer + o_taps, mask=m_taps, other=0.0).to(DOT)
    sums = tl.zeros([BLOCK_C, SLOTS], ACC)
    size = wide_index(depth, INT64) * height * width
    for block in range(part * blocks, part * blocks + blocks):
        position = wide_index(block, INT64) * POSITIONS + tl.arange(0, POSITIONS)
        valid = position < size
        image_row = position // width
        place = (position, image_row // height, image_row % height, position % width)
        g = (grad_output, g_b, g_d, g_h, g_w)
        around = grad_output_neighbours(g, batch, place, valid, (depth, height, width), config).to(DOT)
        m_block = valid[:, None] & m_channels[None, :]
        if config.NEEDS_X:
            products = tl.dot(around, taps, input_precision="ieee", out_dtype=ACC)
            o_grad = volume_offsets(grad, place, config)[:, None] + channel_offsets(grad, channels, config)[None, :]
            tl.store(p_grad + o_grad, products.to(grad_x.dtype.element_ty), mask=m_block)
        if config.NEEDS_WEIGHT:
            o_x = volume_offsets(x, place, config)[:, None] + channel_offsets(x, channels, config)[None, :]
            vectors = tl.load(p_x + o_x, mask=m_block, other=0.0).to(DOT)
            sums = tl.dot(tl.trans(vectors), around, sums, input_precision="ieee", out_dtype=ACC)
    if config.NEEDS_WEIGHT:
        p_part = partials + wide_index(program, INT64) * BLOCK_C * SLOTS
        tl.store(p_part + tl.arange(0, BLOCK_C)[:, None] * SLOTS + slots[None, :], sums)


class SumConfig(NamedTuple):
    CHANNELS: int
    """Of a partial sum, those beyond C included."""
    PARTS: int
    """Added at once."""
    ACC: str


@triton.jit(do_not_specialize=["count", *WEIGHT_STRIDES])
def add_parts(partials, grad_weight, count, w_c, w_d, w_h, w_w, config: SumConfig):
    """The weight's gradient from count × CHANNELS × SLOTS partial sums; a program a channel."""
    channel = tl.program_id(0)
    slots = tl.arange(0, SLOTS)
    sums = tl.zeros([config.PARTS, SLOTS], dtype_of(config.ACC))
    for first in range(0, count, config.PARTS):
        part = first + tl.arange(0, config.PARTS)
        offsets = (part.to(tl.int64) * config.CHANNELS + channel) * SLOTS
        sums += tl.load(partials + offsets[:, None] + slots[None, :], mask=(part < count)[:, None], other=0.0)
    o_weight = channel * w_c + slots // 9 * w_d + slots // 3 % 3 * w_h + slots % 3 * w_w
    tl.store(grad_weight + o_weight, tl.sum(sums, 0).to(grad_weight.dtype.element_ty), mask=slots < 27)
