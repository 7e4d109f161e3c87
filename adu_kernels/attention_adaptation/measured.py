"""Where torch's own attention was measured to be faster: then backend="auto" takes it.

torch's `scaled_dot_product_attention` knows no bias per key without an N×M mask, so only calls without a bias can go
there. A row is written from a result of `python -m bench attention-adaptation` and names it; nothing is guessed from
one device, dtype or size to another. The table is empty: torch's attention has not been timed without a bias yet, and
the kernel runs everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LibraryFaster:
    """One class of calls without a bias for which the library's median was below ours."""

    device: str
    """As `torch.cuda.get_device_name` gives it."""
    dtype: torch.dtype
    width: int
    """Channels per head."""
    queries: tuple[int, int]
    """Fewest and most tokens, both measured, between which it holds."""
    keys: tuple[int, int]
    gradients: bool
    """Measured forward and backward together (True), or the forward alone."""
    ours: float
    """Median, µs."""
    library: float
    """Median, µs; below `ours`."""
    result: str
    """The file in bench/results that holds both."""


LIBRARY_FASTER: tuple[LibraryFaster, ...] = ()


def library_is_faster(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether a row of the table says so for this call.

    Never where `torch.use_deterministic_algorithms` is on: the kernel's gradients repeat to the bit, and the library's
    depend on which of its backends runs.
    """
    if not LIBRARY_FASTER or torch.are_deterministic_algorithms_enabled():
        return False
    name = device_name(query.device)
    gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    return any(
        row.device == name
        and row.dtype == query.dtype
        and row.width == query.shape[3]
        and row.gradients == gradients
        and row.queries[0] <= query.shape[2] <= row.queries[1]
        and row.keys[0] <= key.shape[2] <= row.keys[1]
        and row.library < row.ours
        for row in LIBRARY_FASTER
    )


@torch.compiler.assume_constant_result
def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
