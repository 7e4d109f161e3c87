"""What a launch must hand to the driver, worked out from the call alone: by Triton's documented rules, not its code."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import triton.language as tl
from torch import Tensor

from tests.stub_driver.gpu import STREAM, Launched

SCRATCH = 2
"""Parameters of Triton's own behind the kernel's: scratch memory of the program and of the profiler. Null here."""


@dataclass
class Call:
    """One call of `adu_kernels._triton.runtime.run`."""

    kernel: Any
    programs: int
    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def values(self) -> list[Any]:
        """What reaches the kernel at run time, in order: no constants, no None, no 1 that Triton specialises on."""
        given = dict(zip(self.kernel.arg_names, self.arguments, strict=False)) | self.options
        found: list[Any] = []
        for parameter in self.kernel.params:
            if not parameter.is_constexpr and parameter.name != "config":  # a config holds constants alone
                found += _reaching(given[parameter.name], parameter.do_not_specialize)
        return found


def _reaching(value: Any, keep_ones: bool) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for one in value:
            yield from _reaching(one, False)
    elif isinstance(value, tl.constexpr | tl.dtype) or value is None:
        return
    elif isinstance(value, bool | float | Tensor) or value != 1 or keep_ones:
        yield value


def faults(call: Call, launched: Launched) -> list[str]:
    """In which ways the driver was not given what was called for; empty when it was."""
    found = []

    def same(what: str, got: object, want: object) -> None:
        if got != want:
            found.append(f"{launched.kernel}: {what}: expected {want}, got {got}")

    same("kernel", launched.kernel, call.kernel.__name__)
    same("grid", launched.grid, (call.programs, 1, 1))
    same("block", launched.block, (32 * call.options.get("num_warps", 4), 1, 1))
    same("stream", launched.stream, STREAM)
    values = call.values()
    same("parameters", len(launched.parameters), len(values) + SCRATCH)
    for number, (value, parameter) in enumerate(zip(values, launched.parameters, strict=False)):
        want = value.data_ptr() if isinstance(value, Tensor) else value
        same(f"parameter {number}", read(parameter.value, value), want)
    for parameter in launched.parameters[len(values) :]:
        same("scratch memory", parameter.value, bytes(8))
    return found


def read(value: bytes, like: Any) -> Any:
    """A parameter as the kind of value that was passed; its bytes where their number is wrong."""
    if isinstance(like, Tensor):
        return int.from_bytes(value, "little") if len(value) == 8 else value
    if isinstance(like, float):
        if len(value) != 4:  # arguments are fp32, fp64 kernels take numbers as constants
            return value
        (found,) = struct.unpack("<f", value)
        return like if struct.pack("<f", like) == value else found
    if isinstance(like, bool):
        return bool(value[0]) if len(value) == 1 else value
    wide = not -(2**31) <= like < 2**31
    return int.from_bytes(value, "little", signed=True) if len(value) == (8 if wide else 4) else value
