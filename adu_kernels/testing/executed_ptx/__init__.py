"""The compiled PTX of Triton kernels, executed on the CPU and watched while it runs.

    with executed_ptx(90) as gpu:
        volume = groupwise_correlation_volume(left, right, 48, 8, backend="triton")    # tensors on the CPU
    print(gpu.record.launches)

Triton compiles for the GPU named, as it would there, and stops at PTX; each launch runs that PTX. `Fault` for what a
GPU would not forgive or would answer with anything (README.md lists it), `Unsupported` for PTX that is not known here.
"""

from __future__ import annotations

from .executing import executed_ptx
from .launcher import ExecutingDriver, Record, TooBig
from .machine.counts import Counts
from .machine.faults import Fault
from .machine.options import Options
from .ptx.group_fences import UnfencedRegisters
from .ptx.group_results import UsedTooEarly
from .ptx.instructions import Unsupported
from .ptx.undefined import UndefinedPredicate

__all__ = [
    "Counts",
    "ExecutingDriver",
    "Fault",
    "Options",
    "Record",
    "TooBig",
    "UndefinedPredicate",
    "UnfencedRegisters",
    "Unsupported",
    "UsedTooEarly",
    "executed_ptx",
]
