"""Who runs in a case: the reference, the reference compiled, ours, and peers by name."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import torch

from adu_depth.errors import InputError
from adu_kernels._triton import runtime
from bench.harness.case import Call, Case
from bench.harness.parity import bound

OURS, EAGER, COMPILED = "ours", "eager reference", "compiled reference"
COMPILE_MODES = ("default", "max-autotune")


class Absent(Exception):
    """There is no such implementation here; the message says why."""


def kernels_run_on(device: torch.device) -> bool:
    return device.type == "cuda" or runtime.interpreting()


def implementations(
    case: Case, device: torch.device, compile_modes: tuple[str, ...], peers: dict[str, Call]
) -> dict[str, Callable[[], Call]]:
    """Functions that give each implementation as a call on tensors alone; they raise Absent where there is none."""
    found: dict[str, Callable[[], Call]] = {}
    if case.one_form:
        found[OURS] = lambda: bound(case.kernel, case)
    elif kernels_run_on(device):
        found[OURS] = lambda: bound(case.kernel, case, backend="triton")
    found[EAGER] = lambda: bound(case.reference, case)
    for mode in compile_modes:
        name = COMPILED if mode == "default" else f"{COMPILED}, {mode}"
        found[name] = partial(compiled, bound(case.reference, case), mode)
    if case.one_form and compile_modes:
        found["ours, compiled"] = lambda: compiled(bound(case.kernel, case), "default")
    for name, call in {**case.peers, **peers}.items():
        found[name] = partial(bound, call, case)
    return found


def compiled(call: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """`call` by torch.compile. CUDA graphs are left to the harness, which gives them to every row alike."""
    name = {"default": "default", "max-autotune": "max-autotune-no-cudagraphs"}[mode]
    return torch.compile(call, mode=name, dynamic=False)


def load_peer(text: str) -> Call:
    """The function that "module:function" names."""
    module_name, colon, function_name = text.partition(":")
    if not colon or not module_name or not function_name:
        raise InputError(f"--peer {text}: expected module:function")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"--peer {text}: cannot import {module_name}: {error}") from error
    call = getattr(module, function_name, None)
    if not callable(call):
        raise InputError(f"--peer {text}: {module_name} has no function {function_name}")
    return call  # type: ignore[no-any-return]


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """TimeoutError after so many seconds, where the platform can (main thread, Unix); 0 sets no limit."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"{what} took longer than {seconds:.0f} s")

    if seconds <= 0 or not hasattr(signal, "SIGALRM"):
        yield
        return
    try:
        before = signal.signal(signal.SIGALRM, ring)
    except ValueError:  # not in the main thread
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
