"""Triton's names of the types that a launch multiplies and adds in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..precision import accumulation_dtype
from . import runtime


def accumulator(*tensors: Tensor | None) -> Any:
    """`tl.float64` if any of the tensors is float64, else `tl.float32`."""
    import triton.language as tl  # here and below: needed only where a kernel runs

    return tl.float64 if accumulation_dtype(*tensors) == torch.float64 else tl.float32


def in_parts(tensor: Tensor) -> bool:
    """Whether products of factors of the tensor's type are those of three parts in bf16 of each: fp32 on NVIDIA.

    True fp32 products share their factors through shared memory, which took 4 to 95 times as long as their bytes
    (bench/LOG.md). AMD has matrix units for them. The interpreter takes the same tiles and multiplies fp32.
    Parts hold every bit of numbers from 2⁻¹¹⁰ on, below to within 2⁻¹³³. Of infinity, and of finite numbers from
    2¹²⁸ − 2¹¹⁹ on, which round to it, one part is NaN: so is a product with one, where fp32's may be infinite.
    """
    return tensor.dtype == torch.float32 and runtime.WARP_SIZE == 32


def factor(tensor: Tensor) -> Any:
    """The tensor's own type, but that Triton's interpreter would multiply the bit patterns of bfloat16."""
    import triton.language as tl

    if tensor.dtype == torch.bfloat16:
        return tl.float32 if runtime.interpreting() else tl.bfloat16
    return {torch.float16: tl.float16, torch.float32: tl.float32, torch.float64: tl.float64}[tensor.dtype]
