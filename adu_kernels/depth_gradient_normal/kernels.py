"""Triton kernels of the depth, gradient and normal loss: `sums` and `finish` forward, `gradient` backward.

A program owns a tile of columns of ROWS rows of an image, a thread COLUMNS neighbours of it. It walks down the rows: of
each row it keeps what the Sobel windows above and below need, so that a row is loaded once, and what two windows of a
thread share is made once. Columns beside a thread's own it loads, from the cache, where another would exchange them.

A hole in the target is a NaN there, and so is each sum that has it: which windows are whole needs no mask of its own.
"""

# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
# ruff: noqa: RUF005  Triton adds tuples, it does not unpack them

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .._triton.device import constant, dtype_of, wide_index
from . import windows

SIZES = ["height", "width", "strips", "tiles"]
STRIDES = [f"{name}_{axis}" for name in ("depth", "target") for axis in "bhw"]


class GradientNormalConfig(NamedTuple):
    """What a kernel is compiled for."""

    LANES: int
    """Threads."""
    COLUMNS: int
    """Of a thread, side by side: four, as `one_by_one` and `store_row` have them."""
    ROWS: int
    WIDE: bool
    """A thread's columns are loaded as one: width and strides, but that of neighbours, are multiples of COLUMNS, and
    arrive divided by it."""
    CONTIGUOUS_W: bool
    INT64: bool
    PER_IMAGE: bool
    ACC: str
    SEGMENTS: int
    """`finish` takes so many segments at a time, and of each so many PARTS."""
    PARTS: int


@triton.jit(do_not_specialize=[*SIZES, *STRIDES])
def sums(
    partial_sums, partial_counts, depth, target,
    depth_b, depth_h, depth_w, target_b, target_h, target_w, height, width, strips, tiles, numbers,
    config: GradientNormalConfig,
):  # fmt: skip
    """Of each program: four sums, the terms' (4 × programs); how many pixels and windows they are of (2 × programs).

    A sum of logarithms is that of a product: a thread has one logarithm a term, not one a pixel.
    """
    ACC: tl.constexpr = dtype_of(config.ACC)
    LANES: tl.constexpr = constant(config.LANES)
    COLUMNS: tl.constexpr = constant(config.COLUMNS)
    DIVISOR: tl.constexpr = constant(config.COLUMNS if config.WIDE else 1)
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    strip = program // tiles % strips
    batch = (program // tiles // strips).to(tl.int64)
    image = windows.image_of(
        depth, target, batch, depth_b, depth_h, depth_w, target_b, target_h, target_w, height, numbers, config
    )
    columns = wide_index((program % tiles * LANES + tl.arange(0, LANES)) * COLUMNS, config.INT64)
    inside = windows.columns_inside(columns, width * DIVISOR, 1, config)
    offset = windows.number(numbers.offset, ACC)
    first = strip * config.ROWS
    last = tl.minimum(first + config.ROWS, height)
    of_depth = tl.full([LANES], 1.0, ACC)
    of_x = tl.full([LANES], 1.0, ACC)
    of_y = tl.full([LANES], 1.0, ACC)
    power_depth = tl.zeros([LANES], tl.int32)
    power_x = tl.zeros([LANES], tl.int32)
    power_y = tl.zeros([LANES], tl.int32)
    sum_normal = tl.zeros([LANES], ACC)
    count = tl.zeros([LANES], tl.int32)
    whole_windows = tl.zeros([LANES], tl.int32)
    above, _, _ = windows.row_of(image, first - 1, columns, inside, 1, config)
    here, errors, valid = windows.row_of(image, first, columns, inside, 1, config)
    for row in range(first, last):
        below, next_errors, next_valid = windows.row_of(image, row + 1, columns, inside, 1, config)
        for j in tl.static_range(COLUMNS):
            error_x, error_y, true_x, true_y, whole = windows.in_window(above[j], here[j], below[j], valid[j + 1])
            factor = tl.where(valid[j + 1], tl.abs(errors[j + 1]) + offset, 1.0)
            of_depth, power_depth = windows.times(of_depth, power_depth, factor)
            of_x, power_x = windows.times(of_x, power_x, tl.where(whole, tl.abs(error_x) + offset, 1.0))
            of_y, power_y = windows.times(of_y, power_y, tl.where(whole, tl.abs(error_y) + offset, 1.0))
            # ½|a − b|² of unit normals is 1 − cos, and keeps its digits where they are nearly the same.
            predicted_x, predicted_y = true_x + error_x, true_y + error_y
            predicted_z = windows.inverse_length(predicted_x, predicted_y)
            true_z = windows.inverse_length(true_x, true_y)
            apart_x = predicted_x * predicted_z - true_x * true_z
            apart_y = predicted_y * predicted_z - true_y * true_z
            apart_z = predicted_z - true_z
            squared = tl.fma(apart_x, apart_x, tl.fma(apart_y, apart_y, apart_z * apart_z))
            sum_normal += tl.where(whole, squared, 0.0)
            count += valid[j + 1].to(tl.int32)
            whole_windows += whole.to(tl.int32)
        above = here
        here = below
        errors = next_errors
        valid = next_valid
    factors = (last - first) * COLUMNS
    tl.store(partial_sums + program, tl.sum(windows.log_of(of_depth, power_depth, factors), 0))
    tl.store(partial_sums + programs + program, tl.sum(windows.log_of(of_x, power_x, factors), 0))
    tl.store(partial_sums + 2 * programs + program, tl.sum(windows.log_of(of_y, power_y, factors), 0))
    tl.store(partial_sums + 3 * programs + program, 0.5 * tl.sum(sum_normal, 0))
    tl.store(partial_counts + program, tl.sum(count, 0))
    tl.store(partial_counts + programs + program, tl.sum(whole_windows, 0))


@triton.jit(do_not_specialize=["segments", "parts"])
def finish(
    total, terms, divisors, partial_sums, partial_counts, segments, parts, numbers, config: GradientNormalConfig
):
    """One program: total, the four terms, and what each segment's sums are divided by (2 × segments). In one order."""
    ACC: tl.constexpr = dtype_of(config.ACC)
    SEGMENTS: tl.constexpr = config.SEGMENTS
    PARTS: tl.constexpr = config.PARTS
    programs = segments * parts
    of_depth = tl.zeros([SEGMENTS], ACC)
    of_x = tl.zeros([SEGMENTS], ACC)
    of_y = tl.zeros([SEGMENTS], ACC)
    of_normal = tl.zeros([SEGMENTS], ACC)
    for first in range(0, segments, SEGMENTS):
        segment = first + tl.arange(0, SEGMENTS)
        exists = segment < segments
        sum_depth = tl.zeros([SEGMENTS, PARTS], ACC)
        sum_x = tl.zeros([SEGMENTS, PARTS], ACC)
        sum_y = tl.zeros([SEGMENTS, PARTS], ACC)
        sum_normal = tl.zeros([SEGMENTS, PARTS], ACC)
        count = tl.zeros([SEGMENTS, PARTS], tl.int64)
        whole_windows = tl.zeros([SEGMENTS, PARTS], tl.int64)
        for first_part in range(0, parts, PARTS):
            part = first_part + tl.arange(0, PARTS)
            each = exists[:, None] & (part < parts)[None, :]
            place = segment[:, None] * parts + part[None, :]
            sum_depth += tl.load(partial_sums + place, mask=each, other=0.0)
            sum_x += tl.load(partial_sums + programs + place, mask=each, other=0.0)
            sum_y += tl.load(partial_sums + 2 * programs + place, mask=each, other=0.0)
            sum_normal += tl.load(partial_sums + 3 * programs + place, mask=each, other=0.0)
            count += tl.load(partial_counts + place, mask=each, other=0)
            whole_windows += tl.load(partial_counts + programs + place, mask=each, other=0)
        pixels_divisor = tl.maximum(tl.sum(count, 1), 1).to(ACC)
        windows_divisor = tl.maximum(tl.sum(whole_windows, 1), 1).to(ACC)
        tl.store(divisors + segment, pixels_divisor, mask=exists)
        tl.store(divisors + segments + segment, windows_divisor, mask=exists)
        of_depth += tl.sum(sum_depth, 1) / pixels_divisor
        of_x += tl.sum(sum_x, 1) / windows_divisor
        of_y += tl.sum(sum_y, 1) / windows_divisor
        of_normal += tl.sum(sum_normal, 1) / windows_divisor
    term_depth = tl.sum(of_depth, 0) / segments
    term_x = tl.sum(of_x, 0) / segments
    term_y = tl.sum(of_y, 0) / segments
    term_normal = tl.sum(of_normal, 0) / segments
    tl.store(terms, term_depth)
    tl.store(terms + 1, term_x)
    tl.store(terms + 2, term_y)
    tl.store(terms + 3, term_normal)
    whole = windows.number(numbers.depth, ACC) * term_depth + windows.number(numbers.gradient_x, ACC) * term_x
    whole += windows.number(numbers.gradient_y, ACC) * term_y + windows.number(numbers.normal, ACC) * term_normal
    tl.store(total, whole)


@triton.jit
def store_row(p_row, columns, values, inside, written, config):
    """A thread's columns of the gradient, which lies in a row."""
    LANES: tl.constexpr = constant(config.LANES)
    COLUMNS: tl.constexpr = constant(config.COLUMNS)
    kind: tl.constexpr = p_row.dtype.element_ty
    if config.WIDE:
        joined = tl.join(tl.join(values[0], values[2]), tl.join(values[1], values[3]))
        joined = tl.reshape(joined, [LANES, COLUMNS])
        own = columns[:, None] + tl.arange(0, COLUMNS)[None, :]
        tl.store(p_row + own, joined.to(kind), mask=(inside[2] & written)[:, None])
    else:
        for j in tl.static_range(COLUMNS):
            tl.store(p_row + (columns + j), values[j].to(kind), mask=inside[j + 2] & written)


@triton.jit(do_not_specialize=[*SIZES, *STRIDES, "segments"])
def gradient(
    grad_depth, grad_total, divisors, depth, target,
    depth_b, depth_h, depth_w, target_b, target_h, target_w, height, width, strips, tiles, segments, numbers,
    config: GradientNormalConfig,
):  # fmt: skip
    """The gradient in depth, in a row. A pixel gathers from the nine windows it is in."""
    ACC: tl.constexpr = dtype_of(config.ACC)
    LANES: tl.constexpr = constant(config.LANES)
    COLUMNS: tl.constexpr = constant(config.COLUMNS)
    DIVISOR: tl.constexpr = constant(config.COLUMNS if config.WIDE else 1)
    program = tl.program_id(0)
    strip = program // tiles % strips
    batch = (program // tiles // strips).to(tl.int64)
    image = windows.image_of(
        depth, target, batch, depth_b, depth_h, depth_w, target_b, target_h, target_w, height, numbers, config
    )
    segment = 0
    if config.PER_IMAGE:
        segment = batch
    incoming = tl.load(grad_total).to(ACC) / segments
    of_pixels = incoming / tl.load(divisors + segment)
    of_windows = incoming / tl.load(divisors + segments + segment)
    factors = windows.Factors(
        of_pixels * windows.number(numbers.depth, ACC), of_windows * windows.number(numbers.gradient_x, ACC),
        of_windows * windows.number(numbers.gradient_y, ACC), of_windows * windows.number(numbers.normal, ACC),
        windows.number(numbers.offset, ACC),
    )  # fmt: skip
    columns = wide_index((program % tiles * LANES + tl.arange(0, LANES)) * COLUMNS, config.INT64)
    inside = windows.columns_inside(columns, width * DIVISOR, 2, config)
    first = strip * config.ROWS
    last = tl.minimum(first + config.ROWS, height)
    row_length = width.to(tl.int64) * DIVISOR
    p_grad = grad_depth + batch * height * row_length
    above, _, _ = windows.row_of(image, first - 2, columns, inside, 2, config)
    here, _, valid = windows.row_of(image, first - 1, columns, inside, 2, config)
    # What the windows seen so far give to the next row that is written, and to the one after it.
    next_slopes = ()
    later_slopes = ()
    for _ in tl.static_range(COLUMNS):
        next_slopes = next_slopes + (tl.zeros([LANES], ACC),)
        later_slopes = later_slopes + (tl.zeros([LANES], ACC),)
    for window_row in range(first - 1, last + 1):
        row = tl.cast(window_row, tl.int32)
        below, errors, below_valid = windows.row_of(image, row + 1, columns, inside, 2, config)
        slopes = ()
        for j in tl.static_range(COLUMNS + 2):
            slopes = slopes + (windows.window_slopes(above[j], here[j], below[j], valid[j + 1], factors),)
        written = ()
        following = ()
        last_of_all = ()
        for j in tl.static_range(COLUMNS):
            across = slopes[j][0] - slopes[j + 2][0]
            down = tl.fma(slopes[j + 1][1], 2.0, slopes[j][1] + slopes[j + 2][1])
            # 0 where the target is not valid: so is the error.
            own = windows.slope_of_log(errors[j + 2], factors.offset, factors.depth)
            written = written + (next_slopes[j] + (across - down),)
            following = following + (tl.fma(across, 2.0, later_slopes[j]),)
            last_of_all = last_of_all + (own + (across + down),)
        next_slopes = following
        later_slopes = last_of_all
        m_rows = tl.full([LANES], row, tl.int32) > first
        store_row(p_grad + (row - 1).to(tl.int64) * row_length, columns, written, inside, m_rows, config)
        above = here
        here = below
        valid = below_valid
