"""The feature losses of three levels, as the trainer calls them, and the guide's pooling to their sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from .... import feature_distillation_losses, pooled_guide
from ..cases import Case, OperationCases, Work

BATCH, CHANNELS, HEIGHT, WIDTH = 2, (64, 96, 128), 40, 152
IMAGE, ANY_IMAGE = (320, 1216), (375, 1242)
HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64


def _shapes(channels: tuple[int, ...], height: int, width: int) -> list[tuple[int, ...]]:
    return [(BATCH, c, -(-height // 2**i), -(-width // 2**i)) for i, c in enumerate(channels)]


def _map(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> Tensor:
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype).to(memory_format=layout)


def losses(
    dtype: torch.dtype, teacher: torch.dtype | None = None, last: bool = True, weighted: bool = True,
    height: int = HEIGHT, width: int = WIDTH, channels: tuple[int, ...] = CHANNELS,
) -> None:  # fmt: skip
    shapes = _shapes(channels, height, width)
    adapted = [_map(shape, dtype, last).requires_grad_() for shape in shapes]
    taught = [_map(shape, teacher or dtype, last) for shape in shapes]
    weights = [torch.empty(b, 1, h, w) for b, _, h, w in shapes] if weighted else None
    found = feature_distillation_losses(adapted, taught, weights, backend="triton")
    torch.autograd.grad(found, adapted, torch.empty_like(found))


def pooled(height: int, width: int) -> None:
    pooled_guide(torch.empty(BATCH, 1, height, width), _sizes(height, width), backend="triton")


def _sizes(height: int, width: int) -> list[tuple[int, int]]:
    return [(-(-height // k), -(-width // k)) for k in (8, 16, 32)]


def at_size(height: int, width: int) -> None:
    losses(HALF, height=height, width=width)
    losses(SINGLE, last=False, height=height, width=width)
    pooled(8 * height, 8 * width)


def work(
    mine: int, theirs: int, weighted: bool = True, last: bool = True, channels: tuple[int, ...] = CHANNELS,
    instructions: tuple[int, int] = (0, 0),
) -> dict[str, Work]:  # fmt: skip
    """ "Least bytes and flops" of the operation's README; bytes per element of either map.

    instructions: per vector, forward and backward, counted there."""
    vector, elements, positions, programs = 16 // max(mine, theirs), 0, 0, 0
    for batch, count, height, width in _shapes(channels, HEIGHT, WIDTH):
        positions += (here := batch * height * width)
        elements += here * count
        programs += -(-here * count // vector // 2048) if last else -(-here // (128 * vector)) * -(-count // 16)
    read = (mine + theirs) * elements + 4 * positions * weighted
    per_vector = [count * elements // vector for count in instructions]
    return {
        "sums": Work(read, 8 * programs, flops=5 * elements, instructions=per_vector[0]),
        "finish": Work(8 * programs, 8 * len(channels)),
        "gradients": Work(read + 8 * len(channels), mine * elements, flops=3 * elements, instructions=per_vector[1]),
    }


def pooling(kernel: str, image: tuple[int, int]) -> dict[str, Work]:
    pixels = BATCH * image[0] * image[1]
    return {kernel: Work(4 * pixels, 4 * BATCH * sum(h * w for h, w in _sizes(*image)), flops=pixels)}


COUNTED = (75, 76)
OPERATION = OperationCases(
    "feature_distillation",
    (
        Case("bfloat16", lambda: losses(HALF), work=work(2, 2, instructions=COUNTED)),
        Case(
            "bfloat16 one level",
            lambda: losses(HALF, channels=(128,)),
            work=work(2, 2, channels=(128,), instructions=COUNTED),
        ),
        Case("bfloat16 unweighted", lambda: losses(HALF, weighted=False), work=work(2, 2, weighted=False)),
        Case("bfloat16 contiguous", lambda: losses(HALF, last=False), work=work(2, 2, last=False)),
        Case("bfloat16, teacher float32", lambda: losses(HALF, SINGLE), work=work(2, 4)),
        Case("float32", lambda: losses(SINGLE), work=work(4, 4)),
        Case("float32 contiguous", lambda: losses(SINGLE, last=False), work=work(4, 4, last=False)),
        Case("float64", lambda: losses(DOUBLE, channels=(64,)), double=True),
        Case("pooled guide", lambda: pooled(*IMAGE), work=pooling("nested", IMAGE)),
        Case("pooled guide, any cells", lambda: pooled(*ANY_IMAGE), work=pooling("windows", ANY_IMAGE)),
    ),
    at_size,
    size=f"{BATCH}×{CHANNELS}×{HEIGHT}×{WIDTH} and its halves, guide {IMAGE[0]}×{IMAGE[1]}",
)
