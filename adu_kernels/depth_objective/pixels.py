"""What `kernels.py` does to one pixel, and to one sum. Blocks are LANES × V: V neighbouring pixels a thread.

All of them keep a NaN: the reference tells of a NaN that was predicted at a valid pixel, and so do these.
"""

# mypy: disable-error-code="assignment,no-untyped-def"

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .._triton.device import LOG2E
from . import reference

SCALE_LOW, SCALE_HIGH = (tl.constexpr(end) for end in reference.LOG_SCALE_RANGE)
GUIDE_LOW, GUIDE_HIGH = (tl.constexpr(end) for end in reference.GUIDE_RANGE)
SERIES_BELOW = tl.constexpr(0.125)


class Map(NamedTuple):
    """A B×1×H×W map; no strides (None) where all maps lie in a row, nothing at all where it is not given."""

    start: tl.tensor
    stride_b: tl.tensor
    stride_h: tl.tensor
    stride_w: tl.tensor


@triton.jit
def number(value, ACC: tl.constexpr):
    """A number handed to a kernel: fp32, or in fp64 a constant."""
    return tl.full([], value, ACC)


@triton.jit
def guide_strength(strength, numbers, ACC: tl.constexpr):
    """ρ from memory where it lives there, else as a number."""
    if strength is None:
        rho = number(numbers.strength, ACC)
    else:
        rho = tl.load(strength).to(ACC)
    return rho


@triton.jit
def first_pixel(segment, length, ALIGNED: tl.constexpr):
    start = segment * length.to(tl.int64)
    if ALIGNED:
        start = tl.multiple_of(start, 16)
    return start


@triton.jit
def block_of(block, start, length, height, width, LANES: tl.constexpr, V: tl.constexpr, ALIGNED: tl.constexpr,
             FLAT: tl.constexpr):  # fmt: skip
    """Which pixels are block number `block` of the `length` from `start` on: the first, those after it, which exist,
    and, unless FLAT, the image, row and column of each. Nothing passes 2³¹ in 32 bits."""
    lane = tl.arange(0, LANES)[:, None] * V + tl.arange(0, V)[None, :]
    before = tl.cast(block, tl.int64) * (LANES * V)
    left = tl.minimum(length - before, LANES * V).to(tl.int32)
    if ALIGNED:  # only then does the mask cut no 16 bytes apart
        left = tl.multiple_of(left, 16)
    first = start + before
    image, row, column = lane, lane, lane
    if not FLAT:
        rows_before = first // width
        column = lane + (first - rows_before * width).to(tl.int32)
        row = column // width
        column = column - row * width
        images_before = rows_before // height
        row = row + (rows_before - images_before * height).to(tl.int32)
        image = row // height
        row = row - image * height
        image = images_before + image
    return first, lane, lane < left, image, row, column


@triton.jit
def load(m, place, other: tl.constexpr, ACC: tl.constexpr):
    """The block's pixels of a `Map`: in a row where it has no strides, else wherever the strides lead."""
    first, lane, exists, image, row, column = place
    if m.stride_w is None:
        values = tl.load(m.start + first + lane, mask=exists, other=other)
    else:
        offset = image * m.stride_b.to(tl.int64) + row * m.stride_h.to(tl.int64) + column * m.stride_w.to(tl.int64)
        values = tl.load(m.start + offset, mask=exists, other=other)
    return values.to(ACC)


@triton.jit
def clip(values, low, high):
    above = tl.maximum(values, low, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(above, high, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def has_target(target, min_depth, max_depth):
    return (target >= min_depth) & (target <= max_depth)


@triton.jit
def has_teacher(teacher):
    return (teacher > 0) & (teacher < float("inf"))


@triton.jit
def log_ratio(inverse, other):
    """ln depth − ln other, of the depth's inverse: one logarithm of a quotient is closer than two, and cheaper."""
    return -tl.log(other * inverse)


@triton.jit
def with_sign(values, depth, other):
    """values · sign(depth − other): exactly 0 where they are equal, which a rounded quotient need not show."""
    return tl.where(depth > other, values, tl.where(depth < other, -values, 0.0))


@triton.jit
def exponential(values, factor):
    """exp(values · factor), the factor a number."""
    return tl.exp2(values * (factor * LOG2E))


@triton.jit
def guide_weight(scale, known, mean, rho):
    """The guide from `scale`, exp(±s); `mean` is that over the known pixels. 1 where not known."""
    return tl.where(known, clip((1.0 - rho) + scale * (rho / mean), GUIDE_LOW, GUIDE_HIGH), 1.0)


@triton.jit
def gate_weight(teacher, target, both, sharpness):
    """1 unless both are there."""
    apart = tl.abs(teacher - target) / tl.where(both, teacher + target, 1.0)
    return tl.where(both, exponential(apart, -sharpness), 1.0)


@triton.jit
def focus(error, beta):
    """t = tanh(β·error/2), and 1 − t²."""
    u = exponential(error, -beta)
    inverse = 1.0 / (1.0 + u)
    t = (1.0 - u) * inverse
    if error.dtype == tl.float32:  # 1 − u keeps few digits of a small t
        z = error * (0.5 * beta)
        zz = z * z
        t = tl.where(z < SERIES_BELOW, z - z * zz * (1 / 3 - zz * (2 / 15 - zz * (17 / 315))), t)
    return t, 4.0 * u * inverse * inverse


@triton.jit
def power(t, exponent):
    return tl.exp2(exponent * tl.log2(tl.maximum(t, 1e-30, propagate_nan=tl.PropagateNan.ALL)))


@triton.jit
def add(total, compensation, value):
    """total + value; what the rounded sum leaves out joins `compensation` (Knuth's two-sum, Ogita, Rump and Oishi
    2005)."""
    new = total + value
    back = new - total
    return new, compensation + ((total - (new - back)) + (value - back))


@triton.jit
def add_moments(count, mean, mean_compensation, m2, m2_compensation, values, mask, ACC: tl.constexpr):
    """Takes the V values of each lane that the mask has into the lane's count, mean and m2 = Σ(value − mean)², both
    with what their rounding leaves out: two sets become one (Chan, Golub, LeVeque 1979), and no two large numbers are
    subtracted."""
    added = tl.sum(mask.to(ACC), 1)
    centre = tl.sum(values, 1) / tl.maximum(added, 1.0)
    away = tl.where(mask, values - centre[:, None], 0.0)
    step = (centre - mean) - mean_compensation
    both = count + added
    share = added / tl.maximum(both, 1.0)
    mean, mean_compensation = add(mean, mean_compensation, step * share)
    m2, m2_compensation = add(m2, m2_compensation, tl.sum(away * away, 1) + step * step * (count * share))
    return both, mean, mean_compensation, m2, m2_compensation


@triton.jit
def merge(count, mean, m2):
    """Mean and Σ(value − mean)² of all sets together; 0 where all are empty. Equal means come out as they are."""
    filled = count > 0
    all_of_them = tl.sum(count, 0)
    anchor = tl.max(tl.where(filled, mean, float("-inf")), 0)
    anchor = tl.where(all_of_them > 0, anchor, 0.0)
    shift = tl.sum(tl.where(filled, count * (mean - anchor), 0.0), 0) / tl.maximum(all_of_them, 1.0)
    centre = anchor + shift
    away = tl.where(filled, mean - centre, 0.0)
    return centre, tl.sum(m2 + count * (away * away), 0)
