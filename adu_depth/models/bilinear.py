"""Bilinear upsampling whose gradient is the same bits every time, on CUDA too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import interpolate

from adu_kernels.precision import accumulation_dtype


def bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """`interpolate(x, size, mode="bilinear", align_corners=True)` of B×C×H×W.

    The gradient is two products with the weights of rows and of columns: PyTorch's own adds up on CUDA in the order in
    which its threads come, and a resumed run would not be the one that was never stopped.
    """
    found: Tensor = _Bilinear.apply(x, tuple(size))
    return found


class _Bilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.size = (x.shape[-2], x.shape[-1])
        return interpolate(x, size, mode="bilinear", align_corners=True)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        grad = grad_output.permute(0, 2, 3, 1)
        batch, height, _, channels = grad.shape
        rows, columns = (_weights(n, m, grad) for n, m in zip(ctx.size, grad_output.shape[-2:], strict=True))
        grad = torch.matmul(columns, grad)
        grad = torch.matmul(rows, grad.reshape(batch, height, -1)).reshape(batch, *ctx.size, channels)
        return grad.permute(0, 3, 1, 2), None


def _weights(inputs: int, outputs: int, like: Tensor) -> Tensor:
    """inputs×outputs: what each value of a row is in each of the row it is drawn out to."""
    dtype = accumulation_dtype(like)
    place = torch.arange(outputs, device=like.device, dtype=dtype) * ((inputs - 1) / max(outputs - 1, 1))
    distance = place - torch.arange(inputs, device=like.device, dtype=dtype)[:, None]
    return (1 - distance.abs()).clamp(min=0).to(like.dtype)
