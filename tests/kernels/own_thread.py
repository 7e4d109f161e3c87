"""A backward in a thread of autograd's own, on the CPU and with numbers: as every backward on a GPU is.

Such a thread has none of the caller's thread-local state but what torch hands over. On the CPU a backward runs in the
caller's thread; only one within sixty others, each asked for in the backward of the last, goes to a thread of a pool,
so that no stack overflows (`MAX_DEPTH` in torch/csrc/autograd/engine.h). So sixty are what the caller is put into.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MAX_DEPTH = 60


def with_backwards_in_another_thread(function: Callable[[], None]) -> None:
    """Calls the function, in this thread: every backward within it runs in another."""
    _Within.apply(torch.zeros((), device="cpu", requires_grad=True), MAX_DEPTH, function).backward()


class _Within(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, depth: int, function: Callable[[], None]) -> Tensor:
        ctx.depth, ctx.function = depth, function
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        with torch.enable_grad():
            if ctx.depth:
                value = torch.zeros((), device="cpu", requires_grad=True)
                _Within.apply(value, ctx.depth - 1, ctx.function).backward()
            else:
                ctx.function()
        return upstream, None, None
