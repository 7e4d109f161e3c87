"""Every operation, forward and backward, on the compiled PTX of sm_80; with `-m slow` on that of sm_90, wgmma too."""

from __future__ import annotations

from typing import Any

import pytest
import triton

from adu_kernels.testing.executed_ptx import executed_ptx
from tests.executed_ptx.cases import CASES, Case
from tests.executed_ptx.checks import check

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
FENCES_COPIES = tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 7)
"""Triton 3.6 moves the proxy fence after `cp.async` in front of the loop that waits for the copies."""


@every_case
def test_on_sm_80(case: Case, gpu: Any) -> None:
    check(gpu, case)


@pytest.mark.slow
@every_case
def test_on_sm_90(case: Case) -> None:
    with executed_ptx(90, copies_need_fences=FENCES_COPIES) as gpu:
        check(gpu, case)
