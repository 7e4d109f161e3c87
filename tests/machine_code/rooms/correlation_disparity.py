"""Correlation disparity at the size of a teacher's crop."""

from __future__ import annotations

import torch

from adu_kernels import correlation_disparity
from tests.machine_code.room import Case, Room


def both_ways(
    dtype: torch.dtype, height: int = 64, width: int = 128, last: bool = True, zero_fill: bool = False
) -> None:
    layout = torch.channels_last if last else torch.contiguous_format
    empty = (torch.empty(1, 320, height, width, dtype=dtype).to(memory_format=layout) for _ in range(2))
    maps = [m.requires_grad_() for m in empty]
    mean, variance = correlation_disparity(*maps, 48, zero_fill=zero_fill, backend="triton")
    torch.autograd.grad((mean, variance), maps, (torch.empty_like(mean), torch.empty_like(variance)))


ROOM = Room(
    "correlation_disparity",
    (
        Case("bfloat16", lambda: both_ways(torch.bfloat16)),
        Case("bfloat16 zero fill", lambda: both_ways(torch.bfloat16, zero_fill=True)),
        Case("bfloat16 contiguous", lambda: both_ways(torch.bfloat16, last=False)),
        Case("float32", lambda: both_ways(torch.float32)),
    ),
    lambda height, width: both_ways(torch.bfloat16, height, width),
)
