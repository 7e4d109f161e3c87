"""What only sm_90 has, each with a fault that executed PTX must see: wgmma of four warps, its waits and fences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import triton

from adu_kernels._triton import runtime
from adu_kernels.testing.executed_ptx import Fault, UnfencedRegisters, UsedTooEarly, executed_ptx
from tests.executed_ptx import planted
from tests.executed_ptx.test_operations import FENCES_COPIES
from tests.executed_ptx.test_planted_faults import BARRIER, replaced, without

FENCE, WAIT = r"[^\n]*fence\.proxy\.async[^\n]*\n", r"[^\n]*wgmma\.wait_group[^\n]*\n"


@pytest.fixture
def gpu_90() -> Iterator[Any]:
    with executed_ptx(90, copies_need_fences=FENCES_COPIES) as gpu:
        yield gpu


def pipelined(dtype: torch.dtype = torch.float16, k: int = 128, size: int = 64, warps: int = 4) -> None:
    a, b, c = torch.randn(size, k).to(dtype), torch.randn(k, size).to(dtype), torch.full((size, size), torch.nan)
    runtime.run(planted.product, 1, a, b, c, K=k, SIZE=size, num_warps=warps)
    assert (c - a.double() @ b.double()).abs().max() < 1e-4


def chained(dtype: torch.dtype = torch.float16) -> None:
    a, b, c = torch.randn(64, 64).to(dtype), torch.randn(64, 64).to(dtype), torch.full((64, 64), torch.nan)
    runtime.run(planted.two_products, 1, a, b, c, SIZE=64, num_warps=4)
    once = (a.double() @ b.double()).to(dtype)
    torch.testing.assert_close(c.double(), once.double() @ b.double(), rtol=2**-7, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("call", [pipelined, chained])
def test_groups_of_warps_multiply(gpu_90: Any, call: Any, dtype: torch.dtype) -> None:
    call(dtype)
    (counts,) = gpu_90.record.counts.values()
    assert counts.events["wgmma"] >= 4


@pytest.mark.parametrize("call", [pipelined, chained])
def test_no_fence_before_a_product_of_what_was_stored(gpu_90: Any, call: Any) -> None:
    if call is pipelined and not FENCES_COPIES:
        pytest.skip(f"Triton {triton.__version__} sets no fence between asynchronous copies and a product")
    gpu_90.edit = replaced(FENCE, "")
    with pytest.raises(Fault, match=r"without fence\.proxy\.async since"):
        call()


@pytest.mark.parametrize("call", [pipelined, chained])
def test_no_fence_before_a_product_of_registers(gpu_90: Any, call: Any) -> None:
    gpu_90.edit = replaced(r"[^\n]*wgmma\.fence[^\n]*\n", "")
    with pytest.raises(UnfencedRegisters, match=r"no wgmma\.fence since"):
        call()


def test_sums_that_are_not_waited_for(gpu_90: Any) -> None:
    gpu_90.edit = replaced(WAIT, "")
    with pytest.raises(UsedTooEarly, match="sums of a wgmma used before they are waited for"):
        chained()


def test_memory_written_under_a_running_product(gpu_90: Any) -> None:
    """The last wait stays, so that the sums are right; those in the loop leave one group more in flight."""

    def edit(_: str, ptx: str) -> str:
        waits = list(re.finditer(WAIT, ptx))
        assert len(waits) >= 2
        return re.sub(r"(wgmma\.wait_group\S*\s+)\d", r"\g<1>7", ptx[: waits[-1].start()]) + ptx[waits[-1].start() :]

    gpu_90.edit = edit
    with pytest.raises((Fault, UsedTooEarly), match=r"that a wgmma still reads|before they are waited for"):
        pipelined()


def seen_without_each_barrier(gpu: Any, call: Callable[[], None]) -> list[str]:
    """What is told of the kernel without its first barrier, without its second, …; empty where nothing is."""
    programs: list[str] = []
    gpu.edit = lambda _, ptx: programs.append(ptx) or ptx
    call()
    seen = []
    for number in range(len(re.findall(BARRIER, programs[0]))):
        gpu.edit = without(BARRIER, number)
        try:
            call()
        except Fault as fault:
            seen.append(str(fault))
        else:
            seen.append("")
    return seen


@pytest.mark.parametrize("call", [pipelined, chained])
def test_no_barrier_before_a_product_of_what_was_stored(gpu_90: Any, call: Any) -> None:
    seen = seen_without_each_barrier(gpu_90, call)
    assert any("a wgmma reads what was written since the last barrier" in fault for fault in seen), seen


@pytest.mark.parametrize(("size", "warps"), [(64, 4), (128, 8)])
def test_barriers_of_a_pipeline(gpu_90: Any, size: int, warps: int) -> None:
    """All but one are needed: the first, which the loop's own follows. Another stands between a wait for what a product
    reads and the next copy there: other warps may still be waiting."""
    seen = seen_without_each_barrier(gpu_90, lambda: pipelined(k=256, size=size, warps=warps))
    assert len(seen) >= 4
    assert sum(not fault for fault in seen) <= 1, seen
    assert any("write of what another thread read since the last barrier" in fault for fault in seen), seen
