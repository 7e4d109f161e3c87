"""How Triton kernels are started: one way for all of them, so that device, grid and interpreter are handled once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

LARGEST_GRID = 2**31 - 1
WARP_SIZE = 64 if torch.version.hip else 32
"""Threads that run in step: num_warps = threads // WARP_SIZE."""


def interpreting() -> bool:
    """Whether Triton's interpreter runs the kernels on the CPU (TRITON_INTERPRET=1 since before their first use)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def products_from_shared_memory() -> bool:
    """Whether matrix units take factors from shared memory, as NVIDIA's of capability 9 to 11 do: registers are left
    for what a program keeps. Those of 8 and 12 (consumer Blackwell) take them from registers. False where kernels are
    interpreted.
    """
    return 90 <= _nvidia_arch() < 120


def before_hopper() -> bool:
    """Whether kernels are compiled for an NVIDIA GPU below capability 9.0; False where they are interpreted."""
    return 0 < _nvidia_arch() < 90


def _nvidia_arch() -> int:
    """90 for capability 9.0; 0 on other vendors' GPUs and where kernels are interpreted."""
    if interpreting():
        return 0
    from triton.runtime import driver

    target = driver.active.get_current_target()
    return int(target.arch) if target.backend == "cuda" else 0


def interpreter_fault(triton: str, numpy: str) -> str:
    """Why this version of Triton cannot interpret kernels with this one of numpy; empty where it can."""
    if _numbers(triton) >= (3, 7) or _numbers(numpy) < (2, 4):
        return ""
    return (
        f"TRITON_INTERPRET=1: the interpreter of Triton {triton} makes numbers of arrays with one element, which numpy "
        f"ended in 2.4, got {numpy}. Install numpy below 2.4, or Triton 3.7 or newer; on a GPU both work together"
    )


def _numbers(text: str) -> tuple[int, ...]:
    """Major and minor version."""
    return tuple(int(part) for part in text.split(".")[:2])


@cache
def check_interpreter() -> None:
    """RuntimeError where the interpreter of the installed Triton cannot run with the installed numpy."""
    import numpy
    import triton

    fault = interpreter_fault(triton.__version__, numpy.__version__)
    if fault:
        raise RuntimeError(fault)


def check_device(tensor: Tensor) -> None:
    """RuntimeError unless Triton can run where `tensor` lives."""
    if not tensor.is_cuda and not interpreting():
        raise RuntimeError(
            f"backend='triton': expected tensors on a GPU, got {tensor.device}. Use backend='torch' or 'auto'; to run "
            "the kernels slowly on the CPU, set TRITON_INTERPRET=1 before Python starts"
        )


def run(kernel: Any, programs: int, tensor: Tensor, *arguments: Any, config: Any = None, **options: Any) -> None:
    """Start `programs` programs of a `triton.jit` kernel on the device of `tensor`, the kernel's first argument.

    config: what the kernel is compiled for, a NamedTuple of plain values; the kernel finds each as a constexpr, `None`
    where it takes none. options: other constexpr arguments by name, num_warps, num_stages. The grid is one-dimensional:
    its other axes end at 65535.
    """
    check_device(tensor)
    interpreted = interpreting()
    if interpreted:
        check_interpreter()
    if programs > LARGEST_GRID:
        raise ValueError(f"the tensors are too large for one launch: {programs} programs, at most {LARGEST_GRID}")
    given = (tensor, *arguments)
    start = _interpret if interpreted else _start
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        with torch.cuda.device(tensor.device):
            start(kernel, programs, given, config, options)
    else:
        start(kernel, programs, given, config, options)


def _interpret(kernel: Any, programs: int, given: tuple[Any, ...], config: Any, options: dict[str, Any]) -> None:
    kernel[(programs,)](*given, **_with_constants(config, options))


def _with_constants(config: Any, options: dict[str, Any]) -> dict[str, Any]:
    return options if config is None else {**options, "config": constexprs(config)}


def _start(kernel: Any, programs: int, given: tuple[Any, ...], config: Any, options: dict[str, Any]) -> None:
    """Triton's own way from arguments to a compiled kernel costs the host several times the launch itself. So a kernel
    is kept with all that Triton chose it by, and started again where all of that is the same."""
    known, key = {}, None
    if not kernel.pre_run_hooks:
        known = _kept_kernels.setdefault((kernel, _driver().active, given[0].device), {})
        knobs = _knobs()
        key = _chosen_by(_is_plain(kernel), given, config, options)
        if key is not None:  # what Triton reads anew for every call: set later, another kernel is compiled
            key = (*key, knobs.runtime.debug, knobs.compilation.instrumentation_mode)
        found = known.get(key) if key is not None else None
        if found is not None and not _watched(knobs.runtime):
            compiled, rest = found
            compiled[(programs, 1, 1)](*given, *rest)
            return
    options = _with_constants(config, options)
    compiled = kernel[(programs,)](*given, **options)
    if key is not None and hasattr(compiled, "_init_handles"):  # compiled, and not only asked for or noted
        known[key] = compiled, tuple(options[name] for name in kernel.arg_names[len(given) :])


_kept_kernels: dict[tuple[Any, Any, torch.device], dict[Any, tuple[Any, tuple[Any, ...]]]] = {}
"""By kernel, Triton's driver and device, then by what Triton chose it by: the compiled kernel, and its arguments that
are constants."""


@cache
def _knobs() -> Any:
    from triton import knobs

    return knobs


def _watched(runtime: Any) -> bool:
    """Whether somebody is to be told how a kernel is chosen, or has a say in how it is compiled."""
    return runtime.jit_cache_hook is not None or getattr(runtime, "add_stages_inspection_hook", None) is not None


@cache
def _driver() -> Any:
    from triton.runtime import driver

    return driver


@cache
def _is_plain(kernel: Any) -> tuple[bool, ...]:
    """Of each parameter, whether a number given for it is not specialised: its type alone counts."""
    return tuple(parameter.do_not_specialize for parameter in kernel.params)


def _chosen_by(plain: Sequence[bool], given: Sequence[Any], config: Any, options: dict[str, Any]) -> Any:
    """What Triton chooses a compiled kernel by; None where that is not known here."""
    facts: list[Any] = [config, *options.items()]
    for value, unspecialised in zip(given, plain, strict=False):
        kind = type(value)
        if kind is int:
            facts.append(_INT32 if unspecialised and -INT32 <= value < INT32 else _number(value, unspecialised))
        elif isinstance(value, Tensor):  # a Parameter too: Triton tells tensors apart by no more than this
            facts.append((value.dtype, value.data_ptr() % 16 == 0))
        elif kind is float or value is None:
            facts.append(kind)
        elif isinstance(value, tuple):
            inner = _chosen_by([False] * len(value), value, None, {})
            if inner is None:
                return None
            facts.append((kind, inner))
        else:
            return None
    return tuple(facts)


INT32, INT64 = 2**31, 2**63
_INT32 = "i32"


def _number(value: int, unspecialised: bool) -> Any:
    kind = _INT32 if -INT32 <= value < INT32 else "i64" if -INT64 <= value < INT64 else "u64"
    return kind if unspecialised else (kind, value == 1, value % 16 == 0)


@lru_cache(maxsize=1024, typed=True)  # typed: NamedTuples of two kinds are equal where their values are
def constexprs(config: NamedTuple) -> NamedTuple:
    """The same with every value, those in tuples too, a `tl.constexpr`: in a tuple Triton refuses strings and types
    otherwise, and passes numbers as arguments."""
    import triton.language as tl

    def constant(value: Any) -> Any:
        if hasattr(value, "_fields"):  # a NamedTuple among the fields keeps its names
            return type(value)(*map(constant, value))
        return tuple(map(constant, value)) if isinstance(value, tuple) else tl.constexpr(value)

    return constant(config)
