"""Each step is traced once for all tests of a file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adu_kernels.testing.fake_cuda.process import FakeCudaProcess
from bench.step_model.cases import cases
from bench.step_model.steps import Implementation, Precision, StepTrace, trace_step

Traced = Callable[..., StepTrace]


@pytest.fixture(scope="module")
def traced(fake_cuda: FakeCudaProcess) -> Traced:
    """The trace of a case by name."""
    known, found = cases(), {}

    def trace(name: str, precision: Precision = "bf16", implementation: Implementation = "kernels") -> StepTrace:
        key = (name, precision, implementation)
        if key not in found:
            found[key] = fake_cuda.call(trace_step, known[name], precision, implementation)
        return found[key]

    return trace
