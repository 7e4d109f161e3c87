"""What an operation launches: written down beside the launch, or compiled in its place, where no GPU need be."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from adu_kernels._triton import runtime
from adu_kernels.testing.absent_gpu import AbsentGpu
from bench.harness.case import Call, Case, Item, differentiable, outputs_of

Target = tuple[str, Any, int]
"""Backend, architecture and threads of a warp, as Triton names them."""
H100: Target = ("cuda", 90, 32)


@dataclass(frozen=True)
class Compiled:
    """What one kernel takes of a multiprocessor."""

    kernel: str
    registers: int | None
    """Per thread; None where it cannot be read (not NVIDIA)."""
    spills: int | None
    """Bytes of local memory a thread."""
    shared: int
    """Bytes of shared memory a program."""


@contextmanager
def _instead(run: Callable[..., None]) -> Iterator[None]:
    before = runtime.run
    runtime.run = run
    try:
        yield
    finally:
        runtime.run = before


@contextmanager
def noted(really: bool = True) -> Iterator[list[tuple[Any, ...]]]:
    """Programs and options of every launch, in order: two calls that give the same launch the same. really: start
    them too."""
    found: list[tuple[Any, ...]] = []
    start = runtime.run

    def run(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
        found.append((getattr(kernel, "__name__", str(kernel)), programs, sorted(options.items(), key=str)))
        if really:
            start(kernel, programs, *arguments, **options)

    with _instead(run):
        yield found


def both_ways(case: Case, call: Call, item: Item) -> None:
    """Forward and backward, what comes in as it came out."""
    outputs = differentiable(outputs_of(call(*item.tensors)))
    if item.leaves:
        torch.autograd.grad(outputs, item.leaves, [torch.empty_like(o) for o in outputs])


def unwritten_item(case: Case) -> Item:
    """Inputs of the case's shapes, types and strides on the CPU, whatever memory holds: they take no time to make."""
    drawn = case.draw(torch.device("meta"))
    tensors = tuple(torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for t in drawn)
    return Item(tensors, tuple(t.requires_grad_() for t in tensors[: case.gradients]))


@contextmanager
def anywhere(target: Target = H100) -> Iterator[None]:
    """Launches may be asked for on CPU tensors, as if there were that GPU: nothing starts them."""
    before, active = runtime.check_device, driver._active
    runtime.check_device = _any_device
    driver.set_active(AbsentGpu(GPUTarget(*target)))
    try:
        yield
    finally:
        runtime.check_device, driver._active = before, active


def _any_device(tensor: Tensor) -> None:
    pass


def compiled(case: Case, call: Call, item: Item, target: Target) -> list[Compiled]:
    """Compiles every kernel of a call, forward and backward, into Triton's cache."""
    found: list[Compiled] = []

    def run(kernel: Any, programs: int, *arguments: Any, config: Any = None, **options: Any) -> None:
        if config is not None:
            options["config"] = runtime.constexprs(config)
        made = kernel.warmup(*arguments, grid=(programs,), **options)
        registers, spills = _resources(made.asm.get("cubin"))
        found.append(Compiled(kernel.__name__, registers, spills, made.metadata.shared))

    with _instead(run), anywhere(target):
        both_ways(case, call, item)
    return found


def _resources(cubin: bytes | None) -> tuple[int | None, int | None]:
    """Registers and bytes of local memory a thread, as NVIDIA's own tool in Triton's wheel reads them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if cubin is None or not tool.exists():
        return None, None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True).stdout
    usage = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return usage.get("REG"), usage.get("STACK", 0) + usage.get("LOCAL", 0) if usage else None
