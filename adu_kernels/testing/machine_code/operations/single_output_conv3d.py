"""The convolution with one output channel at the size of a teacher's head."""

from __future__ import annotations

import torch
from torch import Tensor

from .... import single_output_conv3d
from ..cases import Case, OperationCases, Work

CHANNELS, DEPTH, HEIGHT, WIDTH = 32, 48, 64, 128


def both_ways(
    dtype: torch.dtype,
    channels: int = CHANNELS,
    last: bool = True,
    bias: bool = False,
    far: bool = False,
    size: tuple[int, int, int] = (DEPTH, HEIGHT, WIDTH),
) -> None:
    layout = torch.channels_last_3d if last else torch.contiguous_format
    x = _far(channels, size, dtype) if far else torch.empty(1, channels, *size, dtype=dtype).to(memory_format=layout)
    weight = torch.empty(1, channels, 3, 3, 3, dtype=dtype).to(memory_format=layout)
    inputs = [x.requires_grad_(), weight.requires_grad_()]
    if bias:
        inputs.append(torch.empty(1, dtype=dtype).requires_grad_())
    y = single_output_conv3d(*inputs, backend="triton")
    torch.autograd.grad(y, inputs, torch.empty_like(y))


def _far(channels: int, size: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Three volumes, channels-last, the third 2³¹ elements after the first. The memory between is never touched."""
    apart, (depth, height, width) = 2**30, size
    storage = torch.empty(2 * apart + channels * depth * height * width, dtype=dtype)
    strides = (apart, 1, height * width * channels, width * channels, channels)
    return torch.as_strided(storage, (3, channels, *size), strides)


def work(itemsize: int, channels: int = CHANNELS, batch: int = 1) -> dict[str, Work]:
    """ "Least work" of the operation's README."""
    positions = batch * DEPTH * HEIGHT * WIDTH
    x, y, products = itemsize * positions * channels, itemsize * positions, 2 * 27 * positions * channels
    matrix, taps = itemsize == 2, 27 * itemsize * channels
    parts = 4 * (528 if batch == 3 else 512) * channels * 32  # of the weight's gradient, one per program
    return {
        "convolution": Work(x, y, products, matrix),
        "convolution_backward": Work(x + y + taps, x + parts, 2 * products, matrix),
        "add_parts": Work(parts, taps),
    }


OPERATION = OperationCases(
    "single_output_conv3d",
    (
        Case("bfloat16", lambda: both_ways(torch.bfloat16), work=work(2)),
        Case("bfloat16, bias", lambda: both_ways(torch.bfloat16, bias=True), work=work(2)),
        Case("bfloat16, 16 channels", lambda: both_ways(torch.bfloat16, 16), work=work(2, 16)),
        Case("bfloat16, 64 channels", lambda: both_ways(torch.bfloat16, 64), work=work(2, 64)),
        Case("bfloat16 contiguous", lambda: both_ways(torch.bfloat16, last=False), work=work(2)),
        Case("bfloat16 beyond int32", lambda: both_ways(torch.bfloat16, far=True), work=work(2, batch=3)),
        Case("float32", lambda: both_ways(torch.float32), work=work(4)),
        Case("float32 contiguous", lambda: both_ways(torch.float32, last=False), work=work(4)),
        Case("float64", lambda: both_ways(torch.float64), double=True),
    ),
    lambda height, width: both_ways(torch.bfloat16, size=(12, height, width)),
    size=f"1×{CHANNELS}×{DEPTH}×{HEIGHT}×{WIDTH}",
)
