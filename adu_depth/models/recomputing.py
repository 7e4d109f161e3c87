"""Recompute in the backward what a module made in the forward, instead of keeping it (1604.06174)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """module(x), of which x alone is kept for the backward. Same value and gradients, to the bit: it is run once more.

    module draws no random numbers: their generator is not set back, for which a GPU would be waited for.
    """
    result: Tensor = checkpoint(
        module,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), statistics_kept(module)),
    )
    return result


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norms normalise by the batch, and their running statistics stay: they have seen it once."""
    before: list[tuple[Any, float | None, Tensor | None]] = []
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            before.append((norm, norm.momentum, norm.num_batches_tracked))
            norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, tracked in before:
            norm.momentum, norm.num_batches_tracked = momentum, tracked
