"""What `cases.py` covers: every kernel that the package starts, in every dtype and layout. That each case launches the
kernels it names, and no others, is asserted where it runs (checks.py)."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import adu_kernels
from tests.executed_ptx.cases import CASES, DTYPES, LAYOUTS

PACKAGE = Path(adu_kernels.__file__).parent
WITHOUT_KERNELS = {"ConcatFreeConv3d"}
"""A module of PyTorch's own convolutions and of concatenation's definition: it starts no kernel."""
ONE_CHANNEL = {"pooled_guide"}
"""Operations on maps of one channel that are taken as they come: a layout would be a name for the same strides."""


def started() -> set[str]:
    """Kernels that `runtime.run` is called with anywhere in the package, as `Record` names them."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "runtime.run":
                kernel = node.args[0]
                assert isinstance(kernel, ast.Attribute), f"{path}: {ast.unparse(kernel)}"
                found.add(f"{path.parent.name}.{kernel.attr}")
    return found


def test_every_kernel_is_executed() -> None:
    kernels = started()
    assert len(kernels) >= 19, kernels
    assert kernels == set().union(*(case.kernels for case in CASES))


def test_every_operation_is_executed() -> None:
    functions = {name for name in adu_kernels.__all__ if inspect.isfunction(getattr(adu_kernels, name))}
    single = {"feature_distillation_loss"}  # feature_distillation_losses with one level
    assert functions - single - WITHOUT_KERNELS == {case.operation for case in CASES}


@pytest.mark.parametrize("kernel", sorted(started()))
def test_every_kernel_in_every_dtype_and_layout(kernel: str) -> None:
    executed = {(case.dtype, case.layout) for case in CASES if kernel in case.kernels}
    layouts = LAYOUTS if not all(c.operation in ONE_CHANNEL for c in CASES if kernel in c.kernels) else ["contiguous"]
    assert executed == {(dtype, layout) for dtype in DTYPES for layout in layouts}


@pytest.mark.parametrize("operation", sorted({case.operation for case in CASES}))
def test_every_operation_in_an_odd_size_and_in_one_that_allows_wide_loads(operation: str) -> None:
    sizes = {case.size for case in CASES if case.operation == operation}
    assert sizes >= ({"any", "nested"} if operation == "pooled_guide" else {"odd", "aligned"})


def test_names_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
