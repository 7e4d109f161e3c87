"""What Triton's interpreter refuses: masks that are no booleans (from 3.9 on), a numpy newer than its own version."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import triton
import triton.language as tl

from adu_kernels._triton import runtime

pytestmark = pytest.mark.skipif(not runtime.interpreting(), reason="a rule of the interpreter")
LANES = 8


@triton.jit
def copied(source, target, width, row, rows, BY_WHERE: tl.constexpr, LANES: tl.constexpr):
    lanes = tl.arange(0, LANES)
    mask = lanes < width
    if BY_WHERE:
        mask = tl.where(row < rows, mask, False)
    else:
        mask = mask & (row < rows)
    tl.store(target + lanes, tl.load(source + lanes, mask=mask, other=0.0), mask=mask)


def copy(row: int, by_where: bool) -> torch.Tensor:
    target = torch.zeros(LANES)
    copied[(1,)](torch.arange(1.0, LANES + 1), target, 5, row, 3, BY_WHERE=by_where, LANES=LANES)
    return target


def test_a_scalar_comparison_is_no_mask():
    with pytest.raises(Exception, match="expected booleans, got int32"):
        copy(row=1, by_where=False)


def test_chosen_by_where_it_is():
    assert copy(row=1, by_where=True).tolist() == [1, 2, 3, 4, 5, 0, 0, 0]
    assert copy(row=3, by_where=True).tolist() == [0] * LANES


@pytest.mark.parametrize(
    ("triton_version", "numpy_version", "works"),
    [("3.6.0", "2.3.5", True), ("3.6.0", "2.4.0", False), ("3.6.0+git1", "2.10.1", False), ("3.7.0", "2.4.6", True)],
)
def test_which_numpy_the_interpreter_takes(triton_version: str, numpy_version: str, works: bool):
    """As seen: 3.6.0 with 2.4.6 raises "only 0-dimensional arrays can be converted", 3.7.0 and 3.9.0 do not."""
    assert (runtime.interpreter_fault(triton_version, numpy_version) == "") is works


def test_a_numpy_that_the_interpreter_does_not_take_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("triton.__version__", "3.6.0")
    monkeypatch.setattr("numpy.__version__", "2.5.1")
    runtime.check_interpreter.cache_clear()
    with pytest.raises(RuntimeError, match=r"Triton 3\.6\.0 .* got 2\.5\.1\. Install numpy below 2\.4, or Triton 3\.7"):
        runtime.run(copied, 1, torch.zeros(1))


def test_a_config_that_is_known_keeps_its_kind() -> None:
    """What kernels are compiled for is made once per value; two operations' configs may be equal as tuples."""

    class One(NamedTuple):
        WIDTH: int

    class Other(NamedTuple):
        HEIGHT: int

    first = runtime.constexprs(One(4))
    assert runtime.constexprs(One(4)) is first
    other = runtime.constexprs(Other(4))
    assert type(other) is Other
    assert other.HEIGHT.value == 4
