"""Which implementation of an operation runs: one rule, in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch import Tensor

from adu_kernels.checks import check_choice

P = ParamSpec("P")
R = TypeVar("R")

BACKENDS = ("auto", "triton", "torch")


def choose(
    operation: str,
    backend: str,
    tensor: Tensor,
    *,
    torch_twin: Callable[P, R],
    triton_twin: Callable[P, R] | None = None,
) -> Callable[P, R]:
    """The implementation of `operation` to call for inputs that live where `tensor` lives.

    "torch": the plain PyTorch reference. "triton": the Triton twin, NotImplementedError if the operation has none.
    "auto": the Triton twin where there is one and the tensor is on a GPU, the reference everywhere else.
    Another name is a ValueError.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "triton" and triton_twin is None:
        raise NotImplementedError(f"{operation} has no Triton kernel yet: use backend='auto' or backend='torch'")
    if triton_twin is not None and (backend == "triton" or (backend == "auto" and tensor.is_cuda)):
        return triton_twin
    return torch_twin
