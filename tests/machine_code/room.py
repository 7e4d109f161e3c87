"""What a room says of itself to the machine-code gate."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

IMAGE_SIZES = ((64, 128), (60, 100), (96, 312), (33, 47), (17, 160), (48, 80))
"""Sizes of a map, rows × columns, that one training run may meet: odd, prime and divisible by 16."""


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


@dataclass(frozen=True)
class Room:
    name: str
    """The room in adu_kernels."""
    cases: tuple[Case, ...]
    at_size: Callable[[int, int], object]
    """Calls the operation, forward and backward, on maps of so many rows and columns: run at every IMAGE_SIZES, it may
    compile each kernel at most twice."""


def all_rooms() -> list[Room]:
    from tests.machine_code import rooms

    names = sorted(module.name for module in pkgutil.iter_modules(rooms.__path__))
    return [importlib.import_module(f"{rooms.__name__}.{name}").ROOM for name in names]
