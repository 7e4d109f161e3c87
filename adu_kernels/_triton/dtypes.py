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


def factor(tensor: Tensor) -> Any:
    """The tensor's own type, but that Triton's interpreter would multiply the bit patterns of bfloat16."""
    import triton.language as tl

    if tensor.dtype == torch.bfloat16:
        return tl.float32 if runtime.interpreting() else tl.bfloat16
    return {torch.float16: tl.float16, torch.float32: tl.float32, torch.float64: tl.float64}[tensor.dtype]
