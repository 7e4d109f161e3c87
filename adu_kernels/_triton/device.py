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
