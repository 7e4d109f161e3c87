"""Which implementation of an operation runs: one rule, in one place."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from adu_kernels.checks import check_choice

P = ParamSpec("P")
R = TypeVar("R")

BACKENDS = ("auto", "triton", "torch")
HAS_TRITON = importlib.util.find_spec("triton") is not None
_auto = "auto"


@contextmanager
def auto_is(backend: str) -> Iterator[None]:
    """Within it "auto" means `backend`: "torch", the references, to compare with or to rule a kernel out; "triton",
    every kernel there is, on a CPU too (in Triton's interpreter). It holds for the whole process, not for one thread.
    RuntimeError for "triton" where Triton is not installed.
    """
    global _auto
    check_choice("backend", backend, BACKENDS)
    if backend == "triton" and not HAS_TRITON:
        raise RuntimeError("auto_is('triton'): Triton is not installed")
    before, _auto = _auto, backend
    try:
        yield
    finally:
        _auto = before


@torch.compiler.assume_constant_result
def exporting() -> bool:
    """Whether a graph is made for another place (torch.export, torch.onnx): it must run where there is no Triton.

    Dynamo calls this and keeps the answer. Asked itself, it answers True for whatever torch 2.11 compiles.
    """
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


def choose(
    operation: str,
    backend: str,
    tensor: Tensor,
    *,
    torch_twin: Callable[P, R],
    triton_twin: Callable[P, R] | None = None,
) -> Callable[P, R]:
    """The implementation of `operation` to call for inputs that live where `tensor` lives.

    "torch": the plain PyTorch reference. "triton": the Triton twin, NotImplementedError if the operation has none,
    RuntimeError if Triton is not installed; a CPU tensor needs Triton's interpreter (`adu_kernels.launch` checks).
    "auto": the Triton twin where there is one, Triton is installed and the tensor is on a GPU; the reference everywhere
    else (unless `auto_is` says otherwise). Another name is a ValueError.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "triton" and triton_twin is None:
        raise NotImplementedError(f"{operation} has no Triton kernel yet: use backend='auto' or backend='torch'")
    if backend == "triton" and not HAS_TRITON:
        raise RuntimeError("backend='triton': Triton is not installed: use backend='auto' or backend='torch'")
    meant = _auto if backend == "auto" else backend
    if triton_twin is not None and (meant == "triton" or (meant == "auto" and tensor.is_cuda and HAS_TRITON)):
        return triton_twin
    return torch_twin
