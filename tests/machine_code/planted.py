"""Kernels with a fault each, and a sound one: what the gate must see, tried every time the tests run.

`python -m tests.machine_code.planted` compiles them for every target and prints their figures as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from adu_kernels._triton import runtime
from adu_kernels.testing.machine_code.assembly import read
from adu_kernels.testing.machine_code.launches import TARGETS, caught


@triton.jit
def sound(source, target, N: tl.constexpr):
    """16-byte loads and stores, nothing else."""
    offsets = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(target + offsets, tl.load(source + offsets) * 0.1)


@triton.jit
def fp64_constant(source, target, N: tl.constexpr):
    """A tenth in double precision: every product is one too."""
    offsets = tl.program_id(0) * N + tl.arange(0, N)
    tenth = tl.full([], 0.1, tl.float64)
    tl.store(target + offsets, (tl.load(source + offsets) * tenth).to(tl.float32))


@triton.jit
def narrow(source, target, stride, N: tl.constexpr):
    """A stride that need not be 1: one element a load."""
    offsets = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(target + offsets * stride, tl.load(source + offsets * stride) * 0.1)


@triton.jit
def float_atomic(source, target, N: tl.constexpr):
    """A sum whose order the hardware chooses."""
    offsets = tl.program_id(0) * N + tl.arange(0, N)
    tl.atomic_add(target, tl.sum(tl.load(source + offsets)))


@triton.jit
def spill(source, target, N: tl.constexpr):
    """More values of a row than its threads have registers, all needed again after the row's largest is known."""
    offsets = tl.program_id(0) * N + tl.arange(0, N)
    values = tl.load(source + offsets)
    tl.store(target + offsets, tl.exp(values - tl.max(values)))


@triton.jit
def lane_sum(source, target, N: tl.constexpr):
    """A sum of squares across lanes, one a lane: fused, a lane rounds its neighbour's square and not its own."""
    offsets = tl.program_id(0) * N + tl.arange(0, N)
    values = tl.load(source + offsets)
    tl.store(target + offsets, values / tl.sum(values * values))


@triton.jit
def product(source, target, N: tl.constexpr):
    """Matrix units, as promised for 2-byte types."""
    square = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    values = tl.load(source + square)
    tl.store(target + square, tl.dot(values, values))


def _run(
    kernel: Any, size: int, *more: int, dtype: torch.dtype = torch.float32, num_warps: int = 4, **options: Any
) -> None:
    source, target = torch.empty(4096, dtype=dtype), torch.empty(4096)
    runtime.run(kernel, 4, source, target, *more, N=size, num_warps=num_warps, **options)


def _unaligned(kernel: Any) -> None:
    """A view that starts in the middle of 16 bytes, as a slice of a map may."""
    source: Tensor = torch.empty(4097)[1:]
    runtime.run(kernel, 4, source, torch.empty(4096), N=1024, num_warps=4)


CALLS: dict[str, Callable[[], None]] = {
    "sound": lambda: _run(sound, 1024),
    "unaligned": lambda: _unaligned(sound),
    "fp64 constant": lambda: _run(fp64_constant, 1024),
    "narrow": lambda: _run(narrow, 1024, 3),
    "float atomic": lambda: _run(float_atomic, 1024),
    "spill": lambda: _run(spill, 2**17, num_warps=16),
    "fused lane sum": lambda: _run(lane_sum, 128),
    "lane sum": lambda: _run(lane_sum, 128, enable_fp_fusion=False),
    "product": lambda: _run(product, 32, dtype=torch.bfloat16),
}


def _figures(name_and_target: tuple[str, str]) -> dict[str, int]:
    name, target = name_and_target
    (found,) = caught(CALLS[name], target)
    return read(found.compile(target)).as_dict()


def main() -> None:
    pairs = [(name, target) for target in TARGETS for name in CALLS]
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        figures = pool.map(_figures, pairs)
        json.dump({" | ".join(pair): row for pair, row in zip(pairs, figures, strict=True)}, sys.stdout)


if __name__ == "__main__":
    main()
