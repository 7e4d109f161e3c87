"""Floating-point numbers as PTX defines them, on arrays of one value per thread."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any
"""One number per thread, or one for all."""
QUIET_NAN = np.uint16(0x7FFF)


def flush(x: Array) -> Array:
    """`.ftz`: what is too small for a normal fp32 number becomes a zero of its sign."""
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def fused_f32(a: Array, b: Array, c: Array) -> Array:
    """a · b + c rounded once. In double precision the product is exact and the sum is rounded, which decides wrongly
    where that lands in the middle between two normal fp32 numbers: there it is moved by its own error first."""
    product = np.multiply(a, b, dtype="f8")
    total = product + c
    middle = (total.view("u8") & np.uint64(0x1FFFFFFF)) == np.uint64(0x10000000)
    if middle.any():
        back = total - product
        error = (product - (total - back)) + (c - back)
        beyond = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
        total = np.where(middle & np.isfinite(error) & (error != 0), beyond, total)
    return total.astype("f4")


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
    """The bits of the nearest bfloat16, ties to even."""
    whole = x.astype("f4").view("u4")
    odd = (whole >> np.uint32(16)) & np.uint32(1)
    rounded = ((whole + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype("u2")
    return np.where(np.isnan(x), QUIET_NAN, rounded)


def to_f16(x: Array) -> Array:
    """The bits of the nearest fp16, ties to even."""
    return np.where(np.isnan(x), QUIET_NAN, x.astype("f2").view("u2"))


def from_bf16(bits: Array) -> Array:
    return (bits.astype("u4") << np.uint32(16)).view("f4")


def truncated(x: Array, kind: str) -> Array:
    """`cvt.rzi`: towards zero, NaN to zero, and no further than the type goes."""
    limits = np.iinfo(kind)
    whole = np.trunc(np.where(np.isnan(x), 0, x).astype("f8"))
    inside = np.where((whole >= float(limits.max)) | (whole <= float(limits.min)), 0, whole).astype(kind)
    above = np.where(whole >= float(limits.max), limits.max, inside)
    return np.where(whole <= float(limits.min), limits.min, above).astype(kind)
