"""Whole numbers as PTX defines them, on arrays of one value per thread."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any
"""One number per thread, or one for all."""


def extended(value: Array, register: str) -> Array:
    """In a register of that numpy type: with its sign if its own type has one, cut off if it is wider."""
    signed = register.replace("u", "i") if value.dtype.kind == "i" else register
    return value.astype(signed).view(register)


def shift_left(value: Array, by: Array) -> Array:
    """Shifts of the whole width and more give zero."""
    width = value.dtype.itemsize * 8
    return np.where(by >= width, value.dtype.type(0), value << np.minimum(by, width - 1).astype(value.dtype))


def shift_right(value: Array, by: Array) -> Array:
    """Shifts of the whole width and more leave the sign alone, or zero."""
    width = value.dtype.itemsize * 8
    shifted = value >> np.minimum(by, width - 1).astype(value.dtype)
    return shifted if value.dtype.kind == "i" else np.where(by >= width, value.dtype.type(0), shifted)


def quotient(a: Array, b: Array) -> Array:
    """Towards zero. By zero: the largest number, and what a device would answer is undefined."""
    by = np.where(b == 0, b.dtype.type(1), b)
    whole = a // by
    if a.dtype.kind == "i":
        whole = whole + ((a % by != 0) & ((a < 0) != (by < 0)))
    return np.where(b == 0, np.iinfo(a.dtype).max, whole).astype(a.dtype)


def remainder(a: Array, b: Array) -> Array:
    return a - quotient(a, b) * b


def high_half(a: Array, b: Array) -> Array:
    """The upper 64 of the 128 bits of a product."""
    x, y, low, half = a.view("u8"), b.view("u8"), np.uint64(0xFFFFFFFF), np.uint64(32)
    x_low, x_high, y_low, y_high = x & low, x >> half, y & low, y >> half
    middle = (x_low * y_low >> half) + (x_high * y_low & low) + x_low * y_high
    high = x_high * y_high + (x_high * y_low >> half) + (middle >> half)
    if a.dtype.kind == "i":
        high = high - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    return high


def count_ones(value: Array) -> Array:
    bytes_of = np.ascontiguousarray(value).view("u1").reshape(len(value), value.dtype.itemsize)
    return np.unpackbits(bytes_of, axis=1).sum(1, dtype="u4")


def count_leading_zeros(value: Array) -> Array:
    width = value.dtype.itemsize * 8
    left: Array = np.full(len(value), width, "u4")
    for shift in range(width):
        left = np.where((value >> value.dtype.type(shift)) != 0, np.uint32(width - 1 - shift), left)
    return left


def bit_field(value: Array, position: Array, length: Array) -> Array:
    """`bfe`: so many bits from a position on, with the sign of the highest of them for signed types."""
    bits, every = 8 * value.itemsize, ~np.uint64(0)
    position, length = (one.astype("u8") & np.uint64(255) for one in (position, length))
    whole = value.view(f"u{value.itemsize}").astype("u8")
    last = np.uint64(bits - 1)
    # Bits that there are: up to the highest of the value, beyond which its sign (or 0) goes on.
    kept = np.minimum(length, np.where(position > last, np.uint64(0), np.uint64(bits) - np.minimum(position, last)))
    mask = np.where(kept == 0, np.uint64(0), every >> (np.uint64(64) - np.maximum(kept, np.uint64(1))))
    field = (whole >> np.minimum(position, last)) & mask
    if value.dtype.kind == "i":
        top = np.minimum(position + length - np.uint64(1), last)  # of no bits: whatever, they are not negative
        negative = ((whole >> top) & np.uint64(1) == 1) & (length > 0)
        field = np.where(negative, field | ~mask, field)
    return field.astype(f"u{value.itemsize}")


def permute_bytes(a: Array, b: Array, selector: Array) -> Array:
    """`prmt`: each byte is one of the eight of a and b; bit 3 of its selector repeats that byte's sign."""
    both = a.astype("u8") | (b.astype("u8") << np.uint64(32))
    result: Array = np.zeros(np.broadcast(a, b, selector).shape, "u4")
    for number in range(4):
        chosen = (selector >> np.uint32(4 * number)) & np.uint32(15)
        byte = ((both >> ((chosen & np.uint32(7)).astype("u8") * np.uint64(8))) & np.uint64(255)).astype("u4")
        sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
        byte = np.where(chosen & np.uint32(8), sign, byte)
        result = result | (byte << np.uint32(8 * number))
    return result


def look_up_logic(a: Array, b: Array, c: Array, table: int) -> Array:
    """`lop3`: any function of three bits, by its table."""
    result: Array = np.zeros(np.broadcast(a, b, c).shape, "u4")
    for row in range(8):
        if table >> row & 1:
            result = result | ((a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c))
    return result
