"""What an operation says of itself to the machine-code gate."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

IMAGE_SIZES = ((64, 128), (60, 100), (96, 312), (33, 47), (17, 160), (48, 80))
"""Sizes of a map, rows × columns, that one training run may meet: odd, prime and divisible by 16."""


@dataclass(frozen=True)
class Work:
    """What one launch of a kernel has to do at the size of its case, by the formulas of the operation's README."""

    read: int
    """Bytes from device memory at the least: each input once."""
    written: int
    """Bytes to device memory: each output once, scratch memory too."""
    flops: int = 0
    """Floating-point operations the result needs; a multiply-add counts two."""
    matrix: bool = False
    """Whether they run on matrix units."""
    special: int = 0
    """Exponentials, logarithms, reciprocals, roots."""
    instructions: int = 0
    """Instructions of single threads, all threads together, where the README counted them in the machine code of sm_90;
    0: not counted."""


def in_parts(work: dict[str, Work]) -> dict[str, Work]:
    """The same where fp32 is multiplied as three parts in bf16 on matrix units: six products for each."""
    return {kernel: replace(one, flops=6 * one.flops, matrix=one.flops > 0) for kernel, one in work.items()}


@dataclass(frozen=True)
class Case:
    """One way to call the operation, at a size a user would have."""

    name: str
    """Dtype and options: "float32 ×4"."""
    call: Callable[[], object]
    """Calls the public operation with backend="triton" on CPU tensors, forward and backward. No kernel really runs:
    launches are caught, and results are whatever memory held."""
    double: bool = False
    """Whether the kernels may calculate in fp64."""
    may_spill: str = ""
    """Why this case's kernels may spill, up to their budgets; empty: they may not. For what is correct and rare."""
    work: Mapping[str, Work] = field(default_factory=dict)
    """What is predicted of each kernel (README of this folder), by its name, or "kernel target" where one target's
    differs. fp64 cases need none."""


@dataclass(frozen=True)
class OperationCases:
    name: str
    """The operation in adu_kernels."""
    cases: tuple[Case, ...]
    at_size: Callable[[int, int], object]
    """Calls the operation, forward and backward, on maps of so many rows and columns: run at every IMAGE_SIZES, it may
    compile each kernel at most twice."""
    counting: tuple[str, ...] = ()
    """Kernels whose programs count themselves, so that the last one can sum up: they may have one integer atomic."""
    size: str = ""
    """The size of the cases in words: "1×320×64×128, D 48"."""


def beyond_int32(count: int, channels: int, height: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    """Maps 3×C×H×W, channels-last, whose third image starts 2³¹ elements after the first: offsets need 64 bits.

    The memory between the images is reserved and never touched.
    """
    apart, image = 2**30, channels * height * width
    storage = torch.empty(2 * apart + count * image, dtype=dtype)
    strides = (apart, 1, width * channels, channels)
    views = (torch.as_strided(storage, (3, channels, height, width), strides, n * image) for n in range(count))
    return [view.requires_grad_() for view in views]


def all_operations() -> list[OperationCases]:
    from . import operations

    names = sorted(module.name for module in pkgutil.iter_modules(operations.__path__))
    return [importlib.import_module(f"{operations.__name__}.{name}").OPERATION for name in names]
