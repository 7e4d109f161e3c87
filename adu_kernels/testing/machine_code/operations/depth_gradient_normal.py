"""The depth, gradient and normal loss at the size of a student's crop, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from .... import depth_gradient_normal_loss
from ..cases import Case, OperationCases, Work

BATCH, HEIGHT, WIDTH = 2, 352, 1216


def both_ways(
    dtype: torch.dtype,
    height: int = HEIGHT,
    width: int = WIDTH,
    normalize: str = "batch",
    transposed: bool = False,
    far: bool = False,
) -> None:
    depth = _far(height, width, dtype) if far else torch.empty(BATCH, 1, height, width, dtype=dtype)
    target = torch.empty(depth.shape, dtype=dtype)
    if transposed:
        target = torch.empty(BATCH, 1, width, height, dtype=dtype).mT
    terms = depth_gradient_normal_loss(depth.requires_grad_(), target, normalize=normalize, backend="triton")
    torch.autograd.grad(terms.total, depth)


def _far(height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Columns so far apart that the last lies 2³¹ elements after the first. The memory between is never touched."""
    apart = 2**31 // (width - 1) + 1
    storage = torch.empty(apart * (width - 1) + BATCH * height, dtype=dtype)
    return torch.as_strided(storage, (BATCH, 1, height, width), (height, height, 1, apart))


def work(itemsize: int, segments: int = 1) -> dict[str, Work]:
    """ "Least work" of the operation's README: 24 bytes of partial sums a program of 8×128 pixels, of 8×256
    where a warp has 64 threads."""
    pixels = BATCH * HEIGHT * WIDTH
    scratch, on_amd = (24 * BATCH * (HEIGHT // 8) * -(-WIDTH // columns) for columns in (128, 256))
    results = 4 * (5 + 2 * segments)
    issued = {"sums": 111, "gradient": 221} if itemsize == 4 else {"sums": 0, "gradient": 0}
    return {
        "sums": Work(2 * itemsize * pixels, scratch, 45 * pixels, False, 2 * pixels, issued["sums"] * pixels),
        "finish": Work(scratch, results),
        "finish gfx942": Work(on_amd, results),
        "gradient": Work(
            2 * itemsize * pixels + 4 + 8 * segments, itemsize * pixels, 60 * pixels,
            False, 5 * pixels, issued["gradient"] * pixels,
        ),
    }  # fmt: skip


OPERATION = OperationCases(
    "depth_gradient_normal",
    (
        Case("float32", lambda: both_ways(torch.float32), work=work(4)),
        Case("bfloat16", lambda: both_ways(torch.bfloat16), work=work(2)),
        Case("float32 per image", lambda: both_ways(torch.float32, normalize="image"), work=work(4, BATCH)),
        Case("float32 any strides", lambda: both_ways(torch.float32, transposed=True), work=work(4)),
        Case("bfloat16 beyond int32", lambda: both_ways(torch.bfloat16, far=True), work=work(2)),
        Case("float64", lambda: both_ways(torch.float64), double=True),
    ),
    lambda height, width: both_ways(torch.float32, height, width, normalize="image"),
    size=f"{BATCH}×1×{HEIGHT}×{WIDTH}",
)
