"""Correlation disparity at the size of a teacher's crop."""

from __future__ import annotations

import torch

from .... import correlation_disparity
from ..cases import Case, OperationCases, Work, beyond_int32, in_parts

CHANNELS, HEIGHT, WIDTH, DISPARITIES = 320, 64, 128, 48


def both_ways(
    dtype: torch.dtype,
    height: int = HEIGHT,
    width: int = WIDTH,
    last: bool = True,
    zero_fill: bool = False,
    far: bool = False,
) -> None:
    layout = torch.channels_last if last else torch.contiguous_format
    empty = (torch.empty(1, CHANNELS, height, width, dtype=dtype).to(memory_format=layout) for _ in range(2))
    maps = beyond_int32(2, CHANNELS, height, width, dtype) if far else [m.requires_grad_() for m in empty]
    mean, variance = correlation_disparity(*maps, DISPARITIES, zero_fill=zero_fill, backend="triton")
    torch.autograd.grad((mean, variance), maps, (torch.empty_like(mean), torch.empty_like(variance)))


def work(itemsize: int, batch: int = 1) -> dict[str, Work]:
    """ "Least work" of the operation's README, and one exponential per score."""
    pixels = batch * HEIGHT * WIDTH
    maps, products = 2 * itemsize * pixels * CHANNELS, CHANNELS * pixels * DISPARITIES
    matrix, scores = itemsize == 2, pixels * DISPARITIES
    return {
        "expectation": Work(maps, 12 * pixels, 2 * products, matrix, scores),
        "expectation_backward": Work(maps + 20 * pixels, maps, 8 * products, matrix, scores),
    }


OPERATION = OperationCases(
    "correlation_disparity",
    (
        Case("bfloat16", lambda: both_ways(torch.bfloat16), work=work(2)),
        Case("bfloat16 zero fill", lambda: both_ways(torch.bfloat16, zero_fill=True), work=work(2)),
        Case("bfloat16 contiguous", lambda: both_ways(torch.bfloat16, last=False), work=work(2)),
        Case("bfloat16 beyond int32", lambda: both_ways(torch.bfloat16, far=True), work=work(2, batch=3)),
        Case("float32", lambda: both_ways(torch.float32), work=in_parts(work(4))),
    ),
    lambda height, width: both_ways(torch.bfloat16, height, width),
    size=f"1×{CHANNELS}×{HEIGHT}×{WIDTH}, D {DISPARITIES}",
)
