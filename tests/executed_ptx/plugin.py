"""`pytest -p tests.executed_ptx.plugin`: the kernel tests on executed PTX, in place of Triton's interpreter.

EXECUTED_PTX=90 chooses sm_90, otherwise sm_80. For machines without a GPU. Tests that run programs in another order get
other garbage and another interleaving with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from adu_kernels.testing import parity
from adu_kernels.testing.executed_ptx import executed_ptx

ORDERS = {"_forwards": ("forwards", 1), "_backwards": ("backwards", 16), "_shuffled": ("shuffled", 5)}
"""Of the parity kit: the order here, and programs that run in step."""


@pytest.fixture(autouse=True, scope="session")
def _executed_ptx() -> Iterator[None]:
    with executed_ptx(int(os.environ.get("EXECUTED_PTX", "80"))) as gpu:

        @contextmanager
        def program_order(order: Callable[[int], Sequence[int]]) -> Iterator[None]:
            before = gpu.options
            name, together = ORDERS[order.__name__]
            gpu.options = replace(before, order=name, together=together, seed=together, checked=name == "forwards")
            try:
                yield
            finally:
                gpu.options = before

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parity, "program_order", program_order)
            yield
