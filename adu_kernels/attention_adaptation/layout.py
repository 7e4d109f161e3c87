"""Memory layouts of B×heads×N×d tensors: how the kernels are told of them, and which one a result gets."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from ..precision import accumulation_dtype

WIDEST_LOAD = 16
"""Bytes; what a stride is a multiple of beyond this changes no load."""


def like(tensor: Tensor) -> Tensor:
    """Unwritten memory of the tensor's shape, dense, its axes in the tensor's own order of N, d and heads.

    So a result stands in memory as the map it came from: tokens × channels for a channels-last map, channels × tokens
    for a contiguous one, B×heads×N×d for a contiguous tensor; the convolution that reads it next needs no copy.
    """
    batch, heads, tokens, width = tensor.shape
    if tensor.stride(3) > tensor.stride(2):
        return tensor.new_empty((batch, heads, width, tokens)).transpose(2, 3)
    if tensor.stride(1) < tensor.stride(2):
        return tensor.new_empty((batch, tokens, heads, width)).transpose(1, 2)
    return tensor.new_empty((batch, heads, tokens, width))


def new_output(query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The forward's results, unwritten: the output, and two numbers per query, B×heads×N each."""
    dtype = accumulation_dtype(query)
    return like(query), query.new_empty(query.shape[:3], dtype=dtype), query.new_empty(query.shape[:3], dtype=dtype)


def run_and_strides(tensor: Tensor) -> tuple[int, list[int]]:
    """What kernels.py calls RUN, and the strides in its units (those of axes of size 1 are 0)."""
    strides = [0 if size == 1 else stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    widest = WIDEST_LOAD // tensor.element_size()
    for axis, sign in ((3, 1), (2, -1)):
        if tensor.stride(axis) == 1 or (axis == 3 and tensor.shape[axis] == 1):
            others = [stride for other, stride in enumerate(strides) if other != axis]
            unit = math.gcd(widest, *others)
            return sign * unit, [stride // unit for stride in strides]
    return 0, strides


def needs_int64(tensors: Iterable[Tensor], block: int) -> bool:
    """Whether a tile of so many tokens may reach 2³¹ elements or further from its first."""
    return any((block - 1) * t.stride(2) + (t.shape[3] - 1) * t.stride(3) >= 2**31 for t in tensors)
