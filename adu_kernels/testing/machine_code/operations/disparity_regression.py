"""The regression head at the size of a training crop, forward and backward."""

from __future__ import annotations

import torch

from .... import disparity_regression
from ..cases import Case, OperationCases, Work

CANDIDATES, HEIGHT, WIDTH = 48, 64, 128


def _train(scale: int, dtype: torch.dtype, height: int = HEIGHT, width: int = WIDTH) -> None:
    logits = torch.empty(1, CANDIDATES, height, width, dtype=dtype, requires_grad=True)
    disparity, variance = disparity_regression(logits, scale, backend="triton")
    torch.autograd.grad((disparity, variance), logits, (torch.empty_like(disparity), torch.empty_like(variance)))


def work(scale: int, itemsize: int) -> dict[str, Work]:
    """ "Least work" of the operation's README, with its exponentials; instructions as counted there for ×4.

    The other scales are not counted: what is predicted of them leaves out the arithmetic, which decides.
    """
    cells, corners = HEIGHT * WIDTH, 16 * (HEIGHT + 1) * (WIDTH + 1) * CANDIDATES
    pixels, logits = scale**2 * cells, itemsize * cells * CANDIDATES
    counted = pixels * CANDIDATES if scale == 4 else 0
    seen_twice = 17 / 16  # backward: 16 candidates per program, and the one before them
    return {
        "forward": Work(
            logits,
            16 * pixels,
            special=(1 + -(-scale // 2)) * pixels * CANDIDATES,
            instructions=round(43.6 * counted),
        ),
        "backward": Work(
            logits + 24 * pixels,
            corners,
            special=scale * pixels * CANDIDATES,
            instructions=round(42.8 * seen_twice * counted),
        ),
        "gather": Work(corners + logits, logits),
    }


OPERATION = OperationCases(
    name="disparity_regression",
    cases=(
        *(Case(f"float32 ×{s}", lambda s=s: _train(s, torch.float32), work=work(s, 4)) for s in (1, 2, 4, 8)),
        Case("bfloat16 ×4", lambda: _train(4, torch.bfloat16), work=work(4, 2)),
        Case("float64 ×1", lambda: _train(1, torch.float64), double=True),
    ),
    at_size=lambda height, width: _train(4, torch.float32, height, width),
    size=f"1×{CANDIDATES}×{HEIGHT}×{WIDTH} logits",
)
