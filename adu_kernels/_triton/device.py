"""Triton functions that kernels of several operations call."""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def wide_index(index, INT64: tl.constexpr):
    """The index, in int64 where a product with a stride may pass 2³¹."""
    return tl.cast(index, tl.int64 if INT64 else tl.int32)


@triton.constexpr_function
def dtype_of(name):
    """The type of a config's field: the fields are compared as text, where a type has no form."""
    return {"fp16": tl.float16, "bf16": tl.bfloat16, "fp32": tl.float32, "fp64": tl.float64}[name]


@triton.constexpr_function
def constant(value):
    """A number of a config to calculate with: plain where interpreted, for a constexpr times a tensor is no tensor."""
    return value


@triton.jit
def parts_of(x):
    """fp32 as the sum of three numbers of bf16, which hold its 24 bits.

    By whole numbers, for a conversion to bf16 that is not one of two neighbours in a register takes the unit of
    exponentials. `high` is rounded, so that `rest` has either sign and the products that are left out cancel.
    """
    high = (x.to(tl.uint32, bitcast=True) + 0x8000) & 0xFFFF0000
    rest = x - high.to(tl.float32, bitcast=True)
    middle = rest.to(tl.uint32, bitcast=True) & 0xFFFF0000
    low = (rest - middle.to(tl.float32, bitcast=True)).to(tl.uint32, bitcast=True)
    return upper_half(high), upper_half(middle), upper_half(low)


@triton.jit
def upper_half(bits):
    """Of fp32 the number of bf16 that it is cut to."""
    return (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def add_product(a, b, sums, IN_PARTS: tl.constexpr):
    """sums + a·b. IN_PARTS (`dtypes.in_parts`): the six products of parts that fp32 would not round away."""
    if IN_PARTS:
        a_high, a_middle, a_low = parts_of(a)
        b_high, b_middle, b_low = parts_of(b)
        added = tl.dot(a_middle, b_middle)
        added = tl.dot(a_high, b_low, added)
        added = tl.dot(a_low, b_high, added)
        added = tl.dot(a_high, b_middle, added)
        added = tl.dot(a_middle, b_high, added)
        sums += tl.dot(a_high, b_high, added)
    else:
        sums = tl.dot(a, b, sums, input_precision="ieee", out_dtype=sums.dtype)
    return sums
