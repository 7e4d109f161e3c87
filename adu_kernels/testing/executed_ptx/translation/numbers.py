"""Floating-point numbers as PTX defines them, on arrays of one value per thread."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any
"""One number per thread, or one for all."""
QUIET_NAN = np.uint16(0x7FFF)
SMALLEST_NORMAL = 2.0**-126
"""Of fp32."""


def flush(x: Array) -> Array:
    """`.ftz`: what is too small for a normal fp32 number becomes a zero of its sign."""
    return np.where(np.abs(x) < np.float32(SMALLEST_NORMAL), np.copysign(np.float32(0), x), x)


def _to_odd(near: Array, error: Array) -> Array:
    """What was rounded to `near` with this error, as the neighbour whose last bit is odd: rounded again, to two digits
    fewer at least, it is what rounding once would have made (Boldo and Melquiond, "Emulation of a FMA", 2008)."""
    even = (near.view(f"u{near.dtype.itemsize}") & 1) == 0
    beyond = np.nextafter(near, np.copysign(np.inf, error).astype(near.dtype))
    return np.where(even & (error != 0) & np.isfinite(error), beyond, near)


def _error_of_sum(a: Array, b: Array, total: Array) -> Array:
    """(a + b) − total, exactly (Knuth)."""
    back = total - a
    return (a - (total - back)) + (b - back)


def fused_f32(a: Array, b: Array, c: Array) -> Array:
    """a · b + c rounded once. In double precision the product is exact and the sum is rounded, which may decide wrongly
    where that lands in the middle between two fp32 numbers. Below the normal ones the middle is anywhere."""
    product = np.multiply(a, b, dtype="f8")
    total = product + c
    middle = (total.view("u8") & np.uint64(0x1FFFFFFF)) == np.uint64(0x10000000)
    if (middle | (np.abs(total) < SMALLEST_NORMAL)).any():
        total = _to_odd(total, _error_of_sum(product, c, total))
    return total.astype("f4")


def fused_half(a: Array, b: Array, c: Array) -> Array:
    """a · b + c of fp16 or bfloat16 numbers in double precision, such that rounding it to their type rounds once."""
    product = a * b
    total = product + c
    return _to_odd(total, _error_of_sum(product, c, total))


def fused_f64(a: Array, b: Array, c: Array) -> Array:
    """a · b + c with the product's error carried along (Dekker, Knuth): to within a rounding of a rounding."""
    product, split = a * b, 134217729.0
    a_high, b_high = a * split, b * split
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    total = product + c
    back = total - product
    exact = total + (((product - (total - back)) + (c - back)) + lost)
    return np.where(np.isfinite(exact) & np.isfinite(lost), exact, total)


def maximum_number(a: Array, b: Array) -> Array:
    """A NaN loses."""
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, np.maximum(a, b)))


def minimum_number(a: Array, b: Array) -> Array:
    """A NaN loses."""
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, np.minimum(a, b)))


def rough_reciprocal(x: Array) -> Array:
    """`rcp.approx.ftz.f64`: the upper half of the bits of 1/x, the lower half zero."""
    flushed = np.where(np.abs(x) < 2.0**-1022, np.copysign(0.0, x), x)
    return (1.0 / flushed).view("u8") & np.uint64(0xFFFFFFFF00000000)


def to_bf16(x: Array) -> Array:
    """The bits of the nearest bfloat16, ties to even. x: fp32, or what was calculated in double precision."""
    near = x.astype("f4")
    if x.dtype.itemsize > 4:
        near = _to_odd(near, x - near)
    whole = near.view("u4")
    odd = (whole >> np.uint32(16)) & np.uint32(1)
    rounded = ((whole + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype("u2")
    return np.where(np.isnan(x), QUIET_NAN, rounded)


def to_f16(x: Array) -> Array:
    """The bits of the nearest fp16, ties to even."""
    return np.where(np.isnan(x), QUIET_NAN, x.astype("f2").view("u2"))


def from_bf16(bits: Array) -> Array:
    return (bits.astype("u4") << np.uint32(16)).view("f4")


def truncated(x: Array, kind: str) -> Array:
    """`cvt.rzi`: towards zero and no further than the type goes. NaN becomes zero, but to or from 64 bits the highest
    bit alone."""
    limits = np.iinfo(kind)
    whole = np.trunc(np.where(np.isnan(x), 0, x).astype("f8"))
    inside = np.where((whole >= float(limits.max)) | (whole <= float(limits.min)), 0, whole).astype(kind)
    above = np.where(whole >= float(limits.max), limits.max, inside)
    clamped = np.where(whole <= float(limits.min), limits.min, above).astype(kind)
    if x.dtype.itemsize < 8 and limits.bits < 64:
        return clamped
    return np.where(np.isnan(x), np.array(1 << limits.bits - 1, f"u{limits.bits // 8}").view(kind), clamped)
