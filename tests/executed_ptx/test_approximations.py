"""The error budgets hold however badly a GPU approximates, as long as it keeps what the ISA promises; and however ptxas
fuses products with sums that the compiler left apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.executed_ptx.cases import CASES, Case
from tests.executed_ptx.checks import check

APPROXIMATED = [
    case
    for case in CASES
    if case.dtype in ("fp32", "bf16") and case.size in ("odd", "any") and case.layout == "contiguous"
]
"""fp64 has no approximate instruction but in its divisions, which are refined; layouts and sizes change none."""


@pytest.mark.parametrize("case", APPROXIMATED, ids=lambda case: case.name)
def test_the_worst_that_the_isa_allows(case: Case, gpu: Any) -> None:
    gpu.options = replace(gpu.options, worst_approximations=True, checked=False)
    check(gpu, case)


@pytest.mark.parametrize("case", [c for c in APPROXIMATED if c.dtype == "fp32"], ids=lambda case: case.name)
def test_products_fused_with_sums(case: Case, gpu: Any) -> None:
    gpu.options = replace(gpu.options, contracted=True, checked=False)
    check(gpu, case)
