"""Masks of loads and stores in the interpreter: booleans, which Triton takes to be so from 3.9 on.

The interpreter keeps what two scalars compare to as integers; where that meets a block (`mask & (row < rows)`) the mask
becomes one of integers. Up to 3.8 they were cast, 3.9 raises "mask has unsupported dtype". `tl.where(row < rows, mask,
False)` is the same machine code and stays a mask. Here every version is as strict as 3.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from triton.runtime.interpreter import InterpreterBuilder

MASK_OF = {"create_masked_load": 1, "create_masked_store": 2}
"""Which argument of the interpreter's methods, `self` not counted, the mask is."""


@contextmanager
def boolean_masks() -> Iterator[None]:
    """TypeError inside a kernel whose load or store has a mask of other numbers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, place in MASK_OF.items():
            patch.setattr(InterpreterBuilder, name, _strict(getattr(InterpreterBuilder, name), place))
        yield


def _strict(method: Any, place: int) -> Any:
    def checked(self: Any, *arguments: Any) -> Any:
        dtype = arguments[place].data.dtype
        if dtype != np.bool_:
            raise TypeError(f"mask: expected booleans, got {dtype}: a scalar comparison met a block")
        return method(self, *arguments)

    return checked
