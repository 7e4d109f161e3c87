"""The regression head at the size of a training crop, forward and backward."""

from __future__ import annotations

import torch

from adu_kernels import disparity_regression
from tests.machine_code.room import Case, Room


def _train(scale: int, dtype: torch.dtype, height: int = 64, width: int = 128) -> None:
    logits = torch.empty(1, 48, height, width, dtype=dtype, requires_grad=True)
    disparity, variance = disparity_regression(logits, scale, backend="triton")
    torch.autograd.grad((disparity, variance), logits, (disparity, variance))


ROOM = Room(
    name="disparity_regression",
    cases=(
        *(Case(f"float32 ×{s}", lambda s=s: _train(s, torch.float32)) for s in (1, 4, 8)),
        Case("bfloat16 ×4", lambda: _train(4, torch.bfloat16)),
        Case("float64 ×1", lambda: _train(1, torch.float64), double=True),
    ),
    at_size=lambda height, width: _train(4, torch.float32, height, width),
)
