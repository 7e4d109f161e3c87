"""That a mask which Triton 3.9's interpreter refuses is seen with every version."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from adu_kernels import launch

pytestmark = pytest.mark.skipif(not launch.interpreting(), reason="a rule of the interpreter")
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
