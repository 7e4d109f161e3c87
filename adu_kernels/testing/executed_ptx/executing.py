"""The switch: within it, kernels that are launched on CPU tensors run as PTX."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import triton
from triton.runtime import driver

from ..._triton import runtime
from .compiler import stopping_at_ptx
from .launcher import ExecutingDriver, Record
from .machine.options import Options


@contextmanager
def executed_ptx(capability: int = 80, **options: Any) -> Iterator[ExecutingDriver]:
    """capability: 80 or 90. options: those of `Options`; they may be changed on the way (`gpu.options = …`).

    RuntimeError where kernels were decorated to be interpreted: TRITON_INTERPRET must be unset or 0 when Python starts.
    """
    if runtime.interpreting() or triton.knobs.runtime.interpret:
        raise RuntimeError(
            "kernels are interpreted here and are not compiled: set TRITON_INTERPRET=0 before Python starts"
        )
    gpu = ExecutingDriver(capability, Options(**options), Record())
    active, check = driver._active, runtime.check_device
    driver.set_active(gpu)
    runtime.check_device = lambda tensor: None
    try:
        with stopping_at_ptx():
            yield gpu
    finally:
        driver._active, runtime.check_device = active, check
