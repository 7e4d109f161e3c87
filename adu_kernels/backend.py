"""Which implementation of an operation runs: one rule, in one place."""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .checks import check_choice
from .derivatives import refusal

P = ParamSpec("P")
R = TypeVar("R")

BACKENDS = ("auto", "triton", "torch")
HAS_TRITON = importlib.util.find_spec("triton") is not None
_auto: ContextVar[str | None] = ContextVar("adu_kernels.auto", default=None)
_stays: list[_Stay] = []
"""Every stay within `use_backend` anywhere in the process that has not ended, in the order they began."""
_lock = threading.Lock()
_newest = "auto"
"""The last stay's. Traced code reads this one, for Dynamo looks at no context variable and guards a plain name; so do
autograd's own threads where torch does not tell them of the caller."""


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Within it "auto" means `backend`: "torch", the references, to compare with or to rule a kernel out; "triton",
    every kernel there is, on a CPU too (in Triton's interpreter). RuntimeError for "triton" where Triton is not
    installed.

    It is a context variable: it holds for this thread, or this asyncio task and those it starts, and for nobody beside
    them. A thread that is started within it begins with "auto" (unless it runs in `contextvars.copy_context()`), so do
    DataLoader's spawned workers; forked ones have what held at the fork. Autograd's own threads see what held where the
    backward was asked for, so that a checkpointed function is computed again by the same implementation; torch 2.11
    hands them nothing of that, and they take the one entered last in the process. What torch.compile has traced takes
    that one too, and is compiled anew when it changes.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "triton" and not HAS_TRITON:
        raise RuntimeError("use_backend('triton'): Triton is not installed")
    stay = _Stay(backend)
    token = _auto.set(backend)
    _note(stay, _stays.append)
    try:
        yield
    finally:
        _auto.reset(token)
        _note(stay, _stays.remove)


def auto_is(backend: str) -> AbstractContextManager[None]:
    """Deprecated: the earlier name of `use_backend`."""
    warnings.warn("auto_is is now called use_backend", DeprecationWarning, stacklevel=2)
    return use_backend(backend)


class _Stay:
    """One stay within `use_backend`, equal to no other."""

    def __init__(self, backend: str) -> None:
        self.backend = backend


def _note(stay: _Stay, change: Callable[[_Stay], None]) -> None:
    global _newest
    with _lock:
        change(stay)
        _newest = _stays[-1].backend if _stays else "auto"


def _meaning_of_auto() -> str:
    if torch.compiler.is_compiling():
        return _newest
    here = _auto.get()
    if here is None and torch._C._current_graph_task_id() != -1:  # within a backward
        if torch._C._is_key_in_tls("context"):
            here = torch._C._get_obj_in_tls("context").get(_auto)  # the context it was called from
        elif isinstance(threading.current_thread(), threading._DummyThread):  # one that Python did not start
            here = _newest
    return here or "auto"


@torch.compiler.assume_constant_result
def exporting() -> bool:
    """Whether a graph is made for another place (torch.export, torch.onnx): it must run where there is no Triton.

    Dynamo calls this and keeps the answer. Asked itself, it answers True for whatever torch 2.11 compiles.
    """
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


def dispatch(
    operation: str,
    backend: str,
    tensor: Tensor,
    *,
    torch_twin: Callable[P, R],
    triton_twin: Callable[P, R] | None = None,
) -> Callable[P, R]:
    """The implementation of `operation` to call, as `runs_kernels` says; NotImplementedError for "triton" where the
    operation has no Triton twin."""
    if triton_twin is not None:
        return triton_twin if runs_kernels(operation, backend, tensor) else torch_twin
    check_choice("backend", backend, BACKENDS)
    if backend == "triton":
        raise NotImplementedError(f"{operation} has no Triton kernel yet: use backend='auto' or backend='torch'")
    return torch_twin


def runs_kernels(operation: str, backend: str, tensor: Tensor) -> bool:
    """Whether the kernels of `operation` run for inputs that live where `tensor` lives, and not its reference.

    "torch": the plain PyTorch reference. "triton": the kernels, RuntimeError if Triton is not installed; a CPU tensor
    needs Triton's interpreter (`_triton.runtime` checks). "auto": the kernels where Triton is installed and the tensor
    is on a GPU; the reference everywhere else (unless `use_backend` says otherwise). Another name is a ValueError.

    Within torch.func's transforms and forward-mode differentiation, for which kernels have no rule, "auto" is the
    reference and "triton" a RuntimeError. What is exported is the reference whatever was asked for: it runs where there
    is no Triton.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "triton" and not HAS_TRITON:
        raise RuntimeError("backend='triton': Triton is not installed: use backend='auto' or backend='torch'")
    around = _torch_func() or ("forward-mode differentiation" if forward_ad._current_level >= 0 else "")
    if around and backend == "triton":
        raise RuntimeError(refusal(operation, f"rule for {around}"))
    if around:
        return False
    meant = _meaning_of_auto() if backend == "auto" else backend
    wanted = meant == "triton" or (meant == "auto" and tensor.is_cuda and HAS_TRITON)
    return wanted and not exporting()


@torch.compiler.assume_constant_result
def _torch_func() -> str:
    """Which of torch.func's transforms surround the call, "" for none. Dynamo asks while it traces, within the same
    transforms, and compiles anew where they change."""
    stack = torch._C._functorch.get_interpreter_stack()
    return f"torch.func ({', '.join(str(one.key()).rpartition('.')[2].lower() for one in stack)})" if stack else ""
