"""What `kernels.py` does to a row of pixels, to a Sobel window, and to a logarithm."""

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005  Triton adds tuples, it does not unpack them

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .._triton.device import constant, dtype_of

LN2 = tl.constexpr(0.6931471805599453)


class Image(NamedTuple):
    """An image of both maps; which of its targets are valid, and what stands for one that is not."""

    depth: tl.tensor
    target: tl.tensor
    depth_h: tl.tensor
    depth_w: tl.tensor
    target_h: tl.tensor
    target_w: tl.tensor
    height: tl.tensor
    min_depth: tl.tensor
    max_depth: tl.tensor


@triton.jit
def number(value, ACC: tl.constexpr):
    """A number handed to a kernel: fp32, or in fp64 a constant."""
    return tl.full([], value, ACC)


@triton.jit
def image_of(
    depth, target, batch, depth_b, depth_h, depth_w, target_b, target_h, target_w, height, numbers, config,
):  # fmt: skip
    ACC: tl.constexpr = dtype_of(config.ACC)
    DIVISOR: tl.constexpr = constant(config.COLUMNS if config.WIDE else 1)
    return Image(
        depth + batch * depth_b * DIVISOR, target + batch * target_b * DIVISOR,
        depth_h, depth_w, target_h, target_w, height,
        number(numbers.min_depth, ACC), number(numbers.max_depth, ACC),
    )  # fmt: skip


@triton.jit
def columns_inside(columns, width, HALO: tl.constexpr, config):
    """Which of a thread's columns, HALO more on each side, lie in the image: one answer each."""
    COLUMNS: tl.constexpr = constant(config.COLUMNS)
    inside = ()
    for j in tl.static_range(COLUMNS + 2 * HALO):
        column = columns + (j - HALO)
        inside = inside + ((column >= 0) & (column < width),)
    return inside


@triton.jit
def one_by_one(values, config):
    """lanes × COLUMNS → COLUMNS of lanes, in their order."""
    LANES: tl.constexpr = constant(config.LANES)
    even, odd = tl.split(tl.reshape(values, [LANES, 2, 2]))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def row_of_map(p_row, step, columns, inside, in_rows, HALO: tl.constexpr, config):
    """Of one row a thread's columns with HALO more on each side; 0 outside of the image."""
    COLUMNS: tl.constexpr = constant(config.COLUMNS)
    if config.WIDE:
        own = columns[:, None] + tl.arange(0, COLUMNS)[None, :]
        m_left = inside[0] & in_rows
        m_own = inside[HALO] & in_rows
        m_right = inside[COLUMNS + HALO] & in_rows
        values = one_by_one(tl.load(p_row + own, mask=m_own[:, None], other=0.0), config)
        if HALO == 1:
            left = (tl.load(p_row + (columns - 1), mask=m_left, other=0.0),)
            right = (tl.load(p_row + (columns + COLUMNS), mask=m_right, other=0.0),)
        else:
            pair = columns[:, None] + tl.arange(0, 2)[None, :]
            left = tl.split(tl.load(p_row + (pair - 2), mask=m_left[:, None], other=0.0))
            right = tl.split(tl.load(p_row + (pair + COLUMNS), mask=m_right[:, None], other=0.0))
        values = left + values + right
    else:
        values = ()
        for j in tl.static_range(COLUMNS + 2 * HALO):
            o_column = columns + (j - HALO)
            if not config.CONTIGUOUS_W:
                o_column = o_column * step
            values = values + (tl.load(p_row + o_column, mask=inside[j] & in_rows, other=0.0),)
    return values


@triton.jit
def row_of(image, row, columns, inside, HALO: tl.constexpr, config):
    """Of one row: what the windows of all columns but the outermost need of it (`in_row`); the errors, 0 where the
    target is not valid, and where it is."""
    ACC: tl.constexpr = dtype_of(config.ACC)
    LANES: tl.constexpr = constant(config.LANES)
    COLUMNS: tl.constexpr = constant(config.COLUMNS)
    DIVISOR: tl.constexpr = constant(config.COLUMNS if config.WIDE else 1)
    row = tl.cast(row, tl.int32)  # a loop's number is a plain one where interpreted
    rows = tl.full([LANES], row, tl.int32)  # as many as lanes: interpreted, a number's comparison is no mask
    in_rows = (rows >= 0) & (rows < image.height)
    wide_row = row.to(tl.int64) * DIVISOR
    depth = row_of_map(image.depth + wide_row * image.depth_h, image.depth_w, columns, inside, in_rows, HALO, config)
    target = row_of_map(
        image.target + wide_row * image.target_h, image.target_w, columns, inside, in_rows, HALO, config
    )
    errors = ()
    targets = ()
    valid = ()
    for j in tl.static_range(COLUMNS + 2 * HALO):
        there = inside[j] & in_rows
        true = target[j].to(ACC)
        known = there & (true >= image.min_depth) & (true <= image.max_depth)
        errors = errors + (tl.where(known, depth[j].to(ACC) - true, 0.0),)
        targets = targets + (tl.where(known, true, tl.where(there, float("nan"), 0.0)),)
        valid = valid + (known,)
    shared = ()
    for j in tl.static_range(COLUMNS + 2 * HALO - 2):
        of_error = in_row(errors[j], errors[j + 1], errors[j + 2])
        shared = shared + (of_error + in_row(targets[j], targets[j + 1], targets[j + 2]),)
    return shared, errors, valid


@triton.jit
def in_row(left, middle, right):
    """Of three neighbours the smooth sum and the difference. Twice a number is exact: fused or not, the same bits."""
    return tl.fma(middle, 2.0, left + right), right - left


@triton.jit
def in_window(above, here, below, valid):
    """∂x and ∂y of the error, then of the target, from three rows' `in_row`; whether all nine are there."""
    true_x = tl.fma(here[3], 2.0, above[3] + below[3])
    true_y = below[2] - above[2]
    whole = valid & (true_x == true_x) & (true_y == true_y)  # no sum of a NaN; the middle is in neither
    return tl.fma(here[1], 2.0, above[1] + below[1]), below[0] - above[0], true_x, true_y, whole


@triton.jit
def inverse_length(x, y):
    """Of the normal (−x, −y, 1). NVIDIA's reciprocal root in fp64 is approximate."""
    squared = tl.fma(x, x, tl.fma(y, y, 1.0))
    if squared.dtype == tl.float64:
        length = 1.0 / tl.sqrt(squared)
    else:
        length = tl.rsqrt(squared)
    return length


@triton.jit
def times(product, exponent, factor):
    """product · factor with the factor's power of two taken out, which joins `exponent` (with its bias)."""
    if factor.dtype == tl.float64:
        power = factor.to(tl.int64, bitcast=True) & 0x7FF0000000000000
        scale = (0x7FE0000000000000 - power).to(tl.float64, bitcast=True)
        exponent += (power >> 52).to(tl.int32)
    else:
        power = factor.to(tl.int32, bitcast=True) & 0x7F800000
        scale = (0x7F000000 - power).to(tl.float32, bitcast=True)
        exponent += power >> 23
    return product * (factor * scale), exponent


@triton.jit
def log_of(product, exponent, factors):
    """ln of what `times` has multiplied, so many factors."""
    BIAS: tl.constexpr = 1023 if product.dtype == tl.float64 else 127
    return tl.log(product) + (exponent - BIAS * factors).to(product.dtype) * LN2


class Factors(NamedTuple):
    """Of the terms in the gradient: incoming gradient · weight / how many are meant."""

    depth: tl.tensor
    gradient_x: tl.tensor
    gradient_y: tl.tensor
    normal: tl.tensor
    offset: tl.tensor


@triton.jit
def slope_of_log(error, offset, factor):
    """factor · d ln(|error| + offset); 0 at 0."""
    signed = tl.where(error == 0, 0.0, tl.where(error < 0, -factor, factor))
    return signed / (tl.abs(error) + offset)


@triton.jit
def window_slopes(above, here, below, valid, factors):
    """The total's slope in ∂x and ∂y of the depth, at the window's middle."""
    error_x, error_y, true_x, true_y, whole = in_window(above, here, below, valid)
    x, y = true_x + error_x, true_y + error_y
    z = inverse_length(x, y)
    # The slope of −cos without a difference of large numbers: it is exactly 0 where the normals are the same.
    turn = error_x * true_y - error_y * true_x
    steep = factors.normal * (z * z * z) * inverse_length(true_x, true_y)
    slope_x = slope_of_log(error_x, factors.offset, factors.gradient_x)
    slope_y = slope_of_log(error_y, factors.offset, factors.gradient_y)
    slope_x = tl.fma(steep, tl.fma(y, turn, error_x), slope_x)
    slope_y = tl.fma(steep, error_y - x * turn, slope_y)
    return tl.where(whole, slope_x, 0.0), tl.where(whole, slope_y, 0.0)
