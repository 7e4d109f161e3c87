"""PTX written by hand, for what no compiler would write."""

from __future__ import annotations

from typing import Any

import numpy as np

from adu_kernels.testing.executed_ptx.machine.counts import Counts
from adu_kernels.testing.executed_ptx.machine.device_memory import DeviceMemory, Placed
from adu_kernels.testing.executed_ptx.machine.launch import Launch
from adu_kernels.testing.executed_ptx.machine.options import Options
from adu_kernels.testing.executed_ptx.translation.program import Program

HEAD = """
.visible .entry written(
{parameters}
)
.reqntid {threads}
{{
{loads}
"""


def run(
    body: str, *arrays: Any, threads: int = 32, shared: int = 0, programs: int = 1, contracted: bool = False,
    **options: Any,
) -> Counts:  # fmt: skip
    """Instructions with the address of array k in %rd90k; %r900 is the thread's number, %r901 four times that. What
    the program stores stands in the arrays afterwards."""
    parameters = ",\n".join(f"\t.param .u64 .ptr .global .align 1 p{number}" for number in range(len(arrays)))
    loads = "\n".join(f"\tld.param.b64 \t%rd90{number}, [p{number}];" for number in range(len(arrays)))
    loads += "\n\tmov.u32 \t%r900, %tid.x;\n\tshl.b32 \t%r901, %r900, 2;\n"
    program = Program(
        HEAD.format(parameters=parameters, threads=threads, loads=loads) + body + "\n\tret;\n}\n", contracted=contracted
    )
    storages = [array.reshape(-1).view("u1") for array in arrays]
    placed = [Placed(k, 0, array.shape, array.strides, array.itemsize) for k, array in enumerate(arrays)]
    memory = DeviceMemory(storages, placed)
    addresses = [memory.address(number, 0) for number in range(len(arrays))]
    counts = Launch(program, memory, addresses, shared, programs, Options(contracted=contracted, **options)).run()
    memory.copy_back()
    return counts


def per_thread(instructions: str, *inputs: Any, result: str = "u4", threads: int | None = None, **options: Any) -> Any:
    """One result per thread: inputs stand in %r0, %r1, … (%rd0, … where they have eight bytes; two bytes: %rs0, …), the
    instructions leave theirs in %r10, %rd10 or %rs10."""
    threads = threads or len(inputs[0])
    size = np.dtype(result).itemsize
    prefix = {2: "%rs", 4: "%r", 8: "%rd"}
    lines = []
    for number, values in enumerate(inputs):
        width = values.dtype.itemsize
        lines += [
            f"mul.wide.u32 %rd91{number}, %r900, {width};",
            f"add.s64 %rd92{number}, %rd90{number}, %rd91{number};",
            f"ld.global.b{8 * width} {prefix[width]}{number}, [%rd92{number}];",
        ]
    last = len(inputs)
    lines += [
        instructions,
        f"mul.wide.u32 %rd930, %r900, {size};",
        f"add.s64 %rd931, %rd90{last}, %rd930;",
        f"st.global.b{8 * size} [%rd931], {prefix[size]}10;",
    ]
    output = np.zeros(threads, result)
    run("\n".join(lines), *(np.ascontiguousarray(values) for values in inputs), output, threads=threads, **options)
    return output
