"""Each check of executed PTX, with a fault that it must see: in small kernels, in their PTX, and in PTX by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adu_kernels._triton import runtime
from adu_kernels.testing.executed_ptx import Fault, TooBig, UndefinedPredicate, executed_ptx
from adu_kernels.testing.parity import nan_filled_memory
from tests.executed_ptx import handwritten, planted

BARRIER = r"\tbar\.sync[^\n]*\n"


def without(pattern: str, number: int = 0) -> Callable[[str, str], str]:
    """An edit that takes out the match of this number; IndexError where there are not as many."""

    def edit(_: str, ptx: str) -> str:
        match = list(re.finditer(pattern, ptx))[number]
        return ptx[: match.start()] + ptx[match.end() :]

    return edit


def replaced(pattern: str, by: Any, count: int = 0) -> Callable[[str, str], str]:
    def edit(_: str, ptx: str) -> str:
        changed = re.sub(pattern, by, ptx, count=count)
        assert changed != ptx, "nothing was planted"
        return changed

    return edit


def softmax() -> Tensor:
    x, y = torch.randn(3, 300), torch.full((3, 300), torch.nan)
    runtime.run(planted.softmax_rows, 3, x, y, 300, BLOCK=512, num_warps=4)
    torch.testing.assert_close(y, x.softmax(1))
    return y


@pytest.mark.parametrize("number", range(4))
def test_a_barrier_less_in_a_reduction(gpu: Any, number: int) -> None:
    softmax()
    gpu.edit = without(BARRIER, number)
    try:
        with pytest.raises(Fault, match="RACE shared memory"):
            softmax()
    except IndexError:
        assert number >= 3, "the reductions have at least three barriers"


def test_shared_memory_that_nobody_wrote(gpu: Any) -> None:
    gpu.edit = without(r"[^\n]*\bst\.shared[^\n]*\n")
    with pytest.raises(Fault, match="UNWRITTEN"):
        softmax()


@pytest.mark.parametrize(
    ("number", "what"), [(50, "nothing"), (51, "OUT OF BOUNDS load by thread 25, byte 200 of 200 of storage 0")]
)
def test_one_past_the_end(gpu: Any, number: int, what: str) -> None:
    x, y = torch.randn(50), torch.zeros(64)

    def call() -> None:
        runtime.run(planted.copy, 1, x, y, number, 1, BLOCK=64, num_warps=1)

    if what == "nothing":
        call()
        assert torch.equal(y[:50], x)
        return
    with pytest.raises(Fault, match=what):
        call()


def test_far_from_any_tensor(gpu: Any) -> None:
    with pytest.raises(Fault, match="OUT OF BOUNDS load at address"):
        runtime.run(planted.copy, 1, torch.randn(50), torch.zeros(64), 50, 2**28, BLOCK=64, num_warps=1)


def test_between_the_elements_of_a_tensor(gpu: Any) -> None:
    """Every second number of a storage is given; a stride of one reads those between."""
    x, y = torch.randn(100)[::2], torch.zeros(64)
    runtime.run(planted.copy, 1, x, y, 50, 2, BLOCK=64, num_warps=1)
    assert torch.equal(y[:50], x)
    with pytest.raises(Fault, match="BETWEEN THE ELEMENTS of tensors: a load"):
        runtime.run(planted.copy, 1, x, y, 50, 1, BLOCK=64, num_warps=1)


def test_a_misaligned_access(gpu: Any) -> None:
    """A tensor that starts 4 bytes into its storage, given to code compiled for addresses divisible by 16."""
    x, y = torch.randn(260), torch.zeros(256)

    def call(given: Tensor) -> None:
        runtime.run(planted.copy, 1, given, y, 256, 1, BLOCK=256, num_warps=1)

    wide: list[str] = []

    def kept(_: str, ptx: str) -> str:
        wide.append(ptx)
        return wide[0]

    gpu.edit = kept
    call(x[:256])
    assert torch.equal(y, x[:256])
    with pytest.raises(Fault, match="MISALIGNED load of 16 bytes"):
        call(x[1:257])


def test_a_masked_load_that_does_not_say_what_the_mask_hides(gpu: Any) -> None:
    with pytest.raises(Fault, match="what the mask hides"):
        runtime.run(planted.sum_without_other, 1, torch.randn(64), torch.zeros(1), 50, BLOCK=64, num_warps=1)


def test_a_store_read_by_another_thread_without_a_barrier(gpu: Any) -> None:
    x, y = torch.randn(256), torch.zeros(256)
    want = x.flip(0)
    runtime.run(planted.hand_over, 1, x, y, BLOCK=256, BARRIER=True, num_warps=4)
    assert torch.equal(x, want)
    with pytest.raises(Fault, match="RACE device memory: read of what another thread wrote"):
        runtime.run(planted.hand_over, 1, x, y, BLOCK=256, BARRIER=False, num_warps=4)


@pytest.mark.parametrize("together", [1, 3])
def test_two_programs_store_to_one_word(gpu: Any, together: int) -> None:
    gpu.options = replace(gpu.options, together=together)
    with pytest.raises(Fault, match=r"RACE (between programs|device memory: two lanes of one store)"):
        runtime.run(planted.in_pairs, 3, torch.randn(64), torch.zeros(128), BLOCK=64, num_warps=2)


def last_one_sums(order: str = "acq_rel") -> None:
    x, parts, out = torch.randn(5 * 128), torch.full((5 * 128,), torch.nan), torch.zeros(128)
    counter = torch.zeros(1, dtype=torch.int32)
    runtime.run(planted.last_one_sums, 5, x, parts, out, counter, BLOCK=128, ORDER=order, num_warps=4)
    torch.testing.assert_close(out, x.view(5, 128).sum(0).flip(0))


@pytest.mark.parametrize("together", [1, 2, 5])
@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_a_counter_that_acquires_and_releases_orders_programs(gpu: Any, order: Any, together: int) -> None:
    gpu.options = replace(gpu.options, order=order, together=together)
    last_one_sums()


def test_a_relaxed_counter_orders_nothing(gpu: Any) -> None:
    with pytest.raises(Fault, match="RACE between programs"):
        last_one_sums("relaxed")


def test_no_barrier_before_counting(gpu: Any) -> None:
    gpu.edit = lambda _, ptx: (
        re.sub(BARRIER, "", ptx.split("atom.global")[0]) + "atom.global" + ptx.split("atom.global")[1]
    )
    with pytest.raises(Fault, match="RACE between programs"):
        last_one_sums()


def test_no_barrier_after_counting(gpu: Any) -> None:
    gpu.edit = lambda _, ptx: (
        ptx.split("atom.global")[0] + "atom.global" + re.sub(BARRIER, "", ptx.split("atom.global")[1])
    )
    with pytest.raises(Fault, match="RACE"):
        last_one_sums()


def halves(dtype: torch.dtype = torch.float16) -> Tensor:
    a, b, c = torch.randn(64, 128).to(dtype), torch.randn(128, 64).to(dtype), torch.full((64, 64), torch.nan)
    runtime.run(planted.product, 1, a, b, c, K=128, SIZE=64, num_warps=4)
    assert (c - a.double() @ b.double()).abs().max() < 1e-4
    return c


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_pipelined_product(gpu: Any, dtype: torch.dtype) -> None:
    halves(dtype)
    assert gpu.record.counts["executed_ptx.product"].instructions["matrix"]


def test_a_wait_for_too_few_copies(gpu: Any) -> None:
    gpu.edit = replaced(r"cp\.async\.wait_group(\s+)(\d)", lambda m: f"cp.async.wait_group{m[1]}{int(m[2]) + 2}")
    with pytest.raises(Fault, match=r"cp.async still copies"):
        halves()


COPY = """
	cvt.u64.u32 %rd1, %r901;
	add.s64 %rd2, %rd900, %rd1;
	cp.async.ca.shared.global [%r901], [%rd2], 4;
	{}
	ld.shared.b32 %r1, [%r901];
	st.global.b32 [%rd2], %r1;
"""


@pytest.mark.parametrize(
    ("wait", "lands"),
    [
        ("cp.async.wait_all;", True),  # of all that was issued, in a group or not
        ("cp.async.commit_group;\n\tcp.async.wait_group 0;", True),
        ("cp.async.commit_group;\n\tcp.async.wait_all;", True),
        ("cp.async.wait_group 0;", False),
        ("cp.async.commit_group;\n\tcp.async.wait_group 1;", False),
        ("cp.async.wait_all;\n\tcp.async.ca.shared.global [%r901], [%rd2], 4;\n\tcp.async.wait_group 0;", False),
    ],
)
def test_waits_for_copies(wait: str, lands: bool) -> None:
    numbers = np.arange(32, dtype="u4")
    if lands:
        handwritten.run(COPY.format(wait), numbers, shared=128)
        assert numbers.tolist() == list(range(32))
        return
    with pytest.raises(Fault, match=r"read of bytes that cp\.async still copies"):
        handwritten.run(COPY.format(wait), numbers, shared=128)


def test_barriers_of_a_pipeline(gpu: Any) -> None:
    """Of the barriers of a pipelined product all but one are needed: that one stands between two others."""
    programs: list[str] = []
    gpu.edit = lambda _, ptx: programs.append(ptx) or ptx
    halves()
    barriers = len(re.findall(BARRIER, programs[0]))
    assert barriers >= 4
    unseen = []
    for number in range(barriers):
        gpu.edit = without(BARRIER, number)
        try:
            halves()
        except Fault:
            continue
        unseen.append(number)
    assert len(unseen) <= 1, unseen


def test_other_garbage_shows_what_was_never_written(gpu: Any) -> None:
    """A register that no instruction writes."""
    seen = []
    for seed in (1, 2):
        seen.append(handwritten.per_thread("mov.b32 %r10, %r77;", threads=32, seed=seed))
    assert (seen[0] != seen[1]).any()


def test_an_output_that_no_program_writes_is_nan(gpu: Any) -> None:
    with nan_filled_memory():
        y = torch.empty(64)
        runtime.run(planted.copy, 1, torch.randn(64), y, 50, 1, BLOCK=64, num_warps=1)
    assert y[:50].isfinite().all()
    assert y[50:].isnan().all()


def test_another_order_shows_what_hangs_on_it(gpu: Any) -> None:
    seen = []
    for order in ("forwards", "backwards"):
        gpu.options = replace(gpu.options, order=order)
        numbers, counter = torch.zeros(7, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
        runtime.run(planted.number_in_line, 7, numbers, counter, num_warps=1)
        seen.append(numbers.tolist())
    assert seen == [list(range(7)), list(range(7))[::-1]]


DIFFERENT = "RACE {}: two lanes of one store write different bits to one word"


@pytest.mark.parametrize(("value", "fault"), [("%r900", True), ("7", False)])
def test_two_lanes_that_store_different_bits_to_one_word(value: str, fault: bool) -> None:
    output, shared = np.zeros(1, "u4"), f"mov.b32 %r5, 0;\nst.shared.b32 [%r5], {value};"
    for memory, text in (("shared memory", shared), ("device memory", f"st.global.b32 [%rd900], {value};")):
        if not fault:
            handwritten.run(text, output, shared=16)
            continue
        with pytest.raises(Fault, match=DIFFERENT.format(memory)):
            handwritten.run(text, output, shared=16)


def test_a_barrier_that_some_threads_do_not_reach() -> None:
    text = "setp.lt.u32 %p1, %r900, 40;\n@%p1 bra $past;\nbar.sync 0;\n$past:"
    with pytest.raises(Fault, match="a barrier that only some threads of a program reach"):
        handwritten.run(text, np.zeros(1, "u4"), threads=64)
    handwritten.run("bar.sync 0;", np.zeros(1, "u4"), threads=64)


@pytest.mark.parametrize("early", ["bra $end;", "ret;"])
def test_a_barrier_after_some_threads_have_ended(early: str) -> None:
    """They never come, whether the block that they end in is executed before the barrier's or behind it."""
    text = f"setp.ge.u32 %p1, %r900, 32;\n@%p1 bra $on;\n{early}\n$on:\nbar.sync 0;\n$end:"
    with pytest.raises(Fault, match="a barrier that only some threads"):
        handwritten.run(text, np.zeros(1, "u4"), threads=64)


def test_a_program_that_ends_before_another_ones_barrier() -> None:
    text = "mov.u32 %r5, %ctaid.x;\nsetp.eq.u32 %p1, %r5, 0;\n@%p1 bra $on;\nret;\n$on:\nbar.sync 0;"
    handwritten.run(text, np.zeros(1, "u4"), threads=64, programs=3)


def test_a_shuffle_that_a_part_of_a_warp_reaches() -> None:
    text = "setp.lt.u32 %p1, %r900, 5;\n@%p1 bra $past;\nshfl.sync.bfly.b32 %r1, %r900, 1, 31, -1;\n$past:"
    with pytest.raises(Fault, match="whole warps"):
        handwritten.run(text, np.zeros(1, "u4"))


def test_a_warp_needs_a_barrier_too() -> None:
    """Lanes of one warp run in no fixed order: what one stores another may read after a barrier of the warp."""
    text = "st.shared.b32 [%r901], %r900;\n{}\nxor.b32 %r5, %r901, 4;\nld.shared.b32 %r6, [%r5];"
    handwritten.run(text.format("bar.warp.sync -1;"), np.zeros(1, "u4"), shared=128)
    with pytest.raises(Fault, match=r"RACE shared memory: read of what another thread wrote.*in one warp"):
        handwritten.run(text.format(""), np.zeros(1, "u4"), shared=128)


def test_a_barrier_of_one_warp_does_not_order_two() -> None:
    text = "st.shared.b32 [%r901], %r900;\nbar.warp.sync -1;\nxor.b32 %r5, %r901, 128;\nld.shared.b32 %r6, [%r5];"
    with pytest.raises(Fault, match=r"RACE shared memory.*in two warps"):
        handwritten.run(text, np.zeros(1, "u4"), shared=256, threads=64)


def test_an_overwritten_value_that_another_thread_has_read() -> None:
    """Written after a barrier, read by all lanes, overwritten by one without another."""
    text = """
	st.shared.b32 [%r901], %r900;
	bar.sync 0;
	mov.b32 %r5, 0;
	ld.shared.b32 %r6, [%r5];
	{}
	setp.eq.u32 %p1, %r900, 0;
	@%p1 st.shared.b32 [%r5], 99;
"""
    handwritten.run(text.format("bar.sync 0;"), np.zeros(1, "u4"), shared=128)
    with pytest.raises(Fault, match="RACE shared memory: write of what another thread read"):
        handwritten.run(text.format(""), np.zeros(1, "u4"), shared=128)


def test_shared_memory_ends() -> None:
    with pytest.raises(Fault, match="OUT OF BOUNDS: bytes 0 to 128 of 112 of shared memory"):
        handwritten.run("st.shared.b32 [%r901], %r900;", np.zeros(1, "u4"), shared=100)


def test_a_load_whose_predicate_nothing_sets() -> None:
    """LLVM leaves it so where it takes the predicate for undefined; a GPU then reads anywhere, or does not."""
    with pytest.raises(UndefinedPredicate, match=r"nothing sets the predicate of @%p5 ld\.global"):
        handwritten.run("@%p5 ld.global.b32 %r1, [%rd900];", np.zeros(1, "u4"))
    handwritten.run("setp.eq.u32 %p5, %r900, 0;\n@%p5 ld.global.b32 %r1, [%rd900];", np.zeros(1, "u4"))


def test_a_counter_that_is_also_stored_to() -> None:
    text = """
	setp.eq.u32 %p1, %r900, 0;
	@%p1 st.global.b32 [%rd900], 5;
	@%p1 atom.global.gpu.acq_rel.add.u32 %r1, [%rd900], 1;
"""
    with pytest.raises(Fault, match="an atomic on a word that this launch also stores to"):
        handwritten.run(text, np.zeros(1, "u4"))


@pytest.mark.parametrize(
    ("instruction", "units"),
    [("ex2.approx.ftz.f32 %r10, %r0;", 2), ("rcp.approx.ftz.f32 %r10, %r0;", 1), ("div.full.f32 %r10, %r0, %r1;", 2)],
)
def test_the_worst_approximation_is_as_far_off_as_the_isa_allows(instruction: str, units: int) -> None:
    x, y = (np.linspace(1.1, 1.9, 512, dtype="f4") + k for k in (0, 1))
    exact = handwritten.per_thread(instruction, x, y, result="f4")
    worst = handwritten.per_thread(instruction, x, y, result="f4", worst_approximations=True)
    off = np.round((worst.astype("f8") - exact) / np.spacing(exact))
    assert set(off.tolist()) == {-units, units}


def test_the_worst_logarithm_near_one_is_off_by_an_absolute_error() -> None:
    x = np.linspace(0.9, 1.1, 512, dtype="f4")
    exact = handwritten.per_thread("lg2.approx.ftz.f32 %r10, %r0;", x, result="f4")
    worst = handwritten.per_thread("lg2.approx.ftz.f32 %r10, %r0;", x, result="f4", worst_approximations=True)
    assert 0.9 * 2**-22 < np.abs(worst.astype("f8") - exact).max() <= 1.1 * 2**-22


def test_a_kernel_compiled_before_runs_on_the_gpu_of_now(gpu: Any) -> None:
    """Triton keeps compiled kernels with their launchers; another switch has its own record, options and edits."""
    softmax()
    with executed_ptx(80, seed=3) as other:
        softmax()
        assert other.record.launches == {"executed_ptx.softmax_rows": 1}
    softmax()
    assert gpu.record.launches == {"executed_ptx.softmax_rows": 2}


def test_a_launch_on_too_much_memory_is_refused(gpu: Any) -> None:
    with pytest.raises(TooBig, match=r"executed_ptx.copy: expected at most 48 MB of tensors, got 80 MB"):
        runtime.run(planted.copy, 1, torch.zeros(20_000_000), torch.zeros(64), 50, 1, BLOCK=64, num_warps=1)
