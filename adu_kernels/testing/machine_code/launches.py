"""Catches what an operation launches, as Triton itself would see it on a GPU that is not here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import triton
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver

from ..._triton import runtime
from ..absent_gpu import AbsentGpu

COMPILED_FOR = ("num_warps", "num_stages", "maxnreg", "enable_fp_fusion")
"""Options of a launch that change what is compiled."""
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


@dataclass(frozen=True)
class Launch:
    """One specialisation of one kernel: everything Triton compiles it from."""

    kernel: str
    key: str
    """Triton's own cache key: two launches with one key share a compilation."""
    source: ASTSource
    options: dict[str, Any]
    programs: int
    """How many programs are started."""
    tensor_bytes: int
    """Of all tensors handed to the kernel, each counted once."""

    def compile(self, target: str) -> Any:
        return triton.compile(self.source, target=TARGETS[target], options=self.options)


def _tensors(arguments: Iterable[object]) -> Iterator[Tensor]:
    """Those among the arguments and in tuples of them."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, tuple | list):
            yield from _tensors(argument)


@contextmanager
def _installed(target: GPUTarget, hook: Callable[..., bool], starting: list[tuple[int, int]]) -> Iterator[None]:
    """`starting` always holds programs and tensor bytes of the launch that the hook is told of."""
    started, allowed, warp_size = runtime.run, runtime.check_device, runtime.WARP_SIZE

    def run(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
        starting[:] = [(programs, sum({(t.data_ptr(), t.nbytes): t.nbytes for t in _tensors(arguments)}.values()))]
        started(kernel, programs, *arguments, **options)

    runtime.run, runtime.check_device, runtime.WARP_SIZE = run, lambda tensor: None, target.warp_size
    driver.set_active(AbsentGpu(target))  # and stays: such a process does nothing else
    knobs.runtime.jit_cache_hook = hook
    try:
        yield
    finally:
        runtime.run, runtime.check_device, runtime.WARP_SIZE = started, allowed, warp_size
        knobs.runtime.jit_cache_hook = None


def caught(call: Callable[[], object], target: str) -> list[Launch]:
    """What `call` launches on `target`, each specialisation once, in order. Nothing is run."""
    if runtime.interpreting():
        raise RuntimeError("kernels are interpreted here and cannot be compiled: unset TRITON_INTERPRET")
    launches: dict[tuple[str, str], Launch] = {}
    starting = [(0, 0)]

    def hook(*, key: str, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        source = ASTSource(fn.jit_function, compile["signature"], compile["constants"], compile["configs"][0])
        given = json.loads(compile["specialization_data"])["options"]
        options = {name: given[name] for name in COMPILED_FOR if given.get(name) is not None}
        launches.setdefault((fn.name, key), Launch(fn.name, key, source, options, *starting[0]))
        return True  # "handled": Triton neither compiles nor launches

    with _installed(TARGETS[target], hook, starting):
        call()
    return list(launches.values())
