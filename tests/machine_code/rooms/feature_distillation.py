"""The feature losses of three levels, as the trainer calls them, and the guide's pooling to their sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from adu_kernels import feature_distillation_losses, pooled_guide
from tests.machine_code.room import Case, Room

CHANNELS = (64, 96, 128)
HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64


def _map(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> Tensor:
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype).to(memory_format=layout)


def losses(
    dtype: torch.dtype, teacher: torch.dtype | None = None, last: bool = True, weighted: bool = True,
    height: int = 40, width: int = 152, channels: tuple[int, ...] = CHANNELS,
) -> None:  # fmt: skip
    shapes = [(2, c, -(-height // 2**i), -(-width // 2**i)) for i, c in enumerate(channels)]
    adapted = [_map(shape, dtype, last).requires_grad_() for shape in shapes]
    taught = [_map(shape, teacher or dtype, last) for shape in shapes]
    weights = [torch.empty(b, 1, h, w) for b, _, h, w in shapes] if weighted else None
    found = feature_distillation_losses(adapted, taught, weights, backend="triton")
    torch.autograd.grad(found, adapted, torch.empty_like(found))


def pooled(height: int = 320, width: int = 1216) -> None:
    sizes = [(-(-height // k), -(-width // k)) for k in (8, 16, 32)]
    pooled_guide(torch.empty(2, 1, height, width), sizes, backend="triton")


def at_size(height: int, width: int) -> None:
    losses(HALF, height=height, width=width)
    losses(SINGLE, last=False, height=height, width=width)
    pooled(8 * height, 8 * width)


ROOM = Room(
    "feature_distillation",
    (
        Case("bfloat16", lambda: losses(HALF)),
        Case("bfloat16 one level", lambda: losses(HALF, channels=(128,))),
        Case("bfloat16 unweighted", lambda: losses(HALF, weighted=False)),
        Case("bfloat16 contiguous", lambda: losses(HALF, last=False)),
        Case("bfloat16, teacher float32", lambda: losses(HALF, SINGLE)),
        Case("float32", lambda: losses(SINGLE)),
        Case("float32 contiguous", lambda: losses(SINGLE, last=False)),
        Case("float64", lambda: losses(DOUBLE, channels=(64,)), double=True),
        Case("pooled guide", pooled),
        Case("pooled guide, any cells", lambda: pooled(375, 1242)),
    ),
    at_size,
)
