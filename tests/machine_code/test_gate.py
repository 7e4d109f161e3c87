"""The gate itself: it sees planted faults, says them in words, and its arithmetic is that of the vendors' tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adu_kernels.cost_volume import table
from adu_kernels.testing.machine_code import launch_tables
from adu_kernels.testing.machine_code.cases import Work
from adu_kernels.testing.machine_code.prediction import Occupancy, occupancy, predict
from adu_kernels.testing.machine_code.rounding import fused_lane_sums
from adu_kernels.testing.machine_code.table import breaks
from adu_kernels.testing.machine_code.undecided import undecided

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")
every_target = pytest.mark.parametrize("target", TARGETS)
Planted = dict[str, dict[str, int]]


@pytest.fixture(scope="module")
def planted() -> Planted:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.machine_code.planted"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@every_target
def test_a_sound_kernel_has_no_fault(planted: Planted, target: str) -> None:
    figures = planted[f"sound | {target}"]
    assert {name: figures[name] for name in ("spills", "fp64", "atomics", "tensor_core")} == dict.fromkeys(
        ("spills", "fp64", "atomics", "tensor_core"), 0
    )
    assert figures["loads"] == figures["wide_loads"] >= 1
    assert figures["wide_stores"] >= 1
    assert breaks(figures, figures) == []


@every_target
@pytest.mark.parametrize(
    ("kernel", "figure"),
    [("spill", "spills"), ("fp64 constant", "fp64"), ("float atomic", "atomics"), ("float atomic", "float_atomics")],
)
def test_what_no_kernel_may_have_is_seen(planted: Planted, kernel: str, figure: str, target: str) -> None:
    """A spill, an fp64 constant, an atomic sum: each in the kernel it was planted in, and nowhere else."""
    having = {name.split(" | ")[0] for name, row in planted.items() if row[figure] and name.endswith(f"| {target}")}
    assert having == {kernel}


@pytest.mark.parametrize("target", TARGETS[:-1])
def test_lanes_that_round_one_number_differently_are_seen(planted: Planted, target: str) -> None:
    found = {name: row["fused_lane_sums"] for name, row in planted.items() if row["fused_lane_sums"]}
    assert found[f"fused lane sum | {target}"] >= 1
    assert {name.split(" | ")[0] for name in found} == {"fused lane sum"}


@every_target
def test_exchanges_between_lanes_are_seen(planted: Planted, target: str) -> None:
    assert planted[f"lane sum | {target}"]["lane_exchanges"] >= 5
    assert planted[f"sound | {target}"]["lane_exchanges"] == 0


SENT = "shfl.sync.bfly.b32 %r2|%p1, %r1, 16, 31, -1;\n"
HALVES = "shfl.sync.bfly.b32 %r4|%p1, %r2, 16, 31, -1;\nmov.b64 %rd2, {%r3, %r4};\nmov.b64 %fd3, %rd2;\n"


@pytest.mark.parametrize(
    ("ptx", "count"),
    [
        (SENT + "fma.rn.f32 %r5, %r3, %r4, %r2;", 1),
        (SENT + "mov.b32 %f1, %r2;\n@%p2 fma.rn.f32 %f2, %f3, %f4, %f1;", 1),
        (SENT + "fma.rn.f32 %r5, %r2, %r3, %r4;", 0),  # what was sent is multiplied, the same in every lane
        (SENT + "add.rn.f32 %r5, %r1, %r2;\nfma.rn.f32 %r6, %r3, %r4, %r5;", 0),  # the sum is complete
        (SENT + "mul.f32 %r1, %r3, %r4;\nadd.f32 %r5, %r1, %r2;", 1),  # ptxas may fuse these
        (SENT + "mul.rn.f32 %r1, %r3, %r4;\nadd.rn.f32 %r5, %r1, %r2;", 0),
        (SENT + HALVES + "fma.rn.f64 %fd4, %fd1, %fd2, %fd3;", 1),
    ],
)
def test_which_sums_across_lanes_count(ptx: str, count: int) -> None:
    assert fused_lane_sums(ptx) == count


@pytest.mark.parametrize(
    ("ptx", "count"),
    [
        ("@%p1 ld.global.b32 { %r1 }, [ %rd1 + 0 ];", 1),
        ("setp.lt.s32 \t%p1, %r1, %r2;\n@%p1 ld.global.b32 { %r1 }, [ %rd1 + 0 ];", 0),
        ("@!%p2 st.global.v2.b32 [ %rd1 + 0 ], { %r1, %r2 };\nand.pred \t%p3, %p1, %p2;", 1),
        (
            "shfl.sync.bfly.b32 %r2|%p4, %r1, 16, 31, -1;\n@%p4 cp.async.cg.shared.global [ %r1 ], [ %rd1 ], 16;",
            0,
        ),
    ],
)
def test_what_nothing_decides_is_counted(ptx: str, count: int) -> None:
    assert undecided(ptx) == count


@every_target
def test_narrow_loads_and_stores_are_seen(planted: Planted, target: str) -> None:
    sound, narrow = planted[f"sound | {target}"], planted[f"narrow | {target}"]
    worse = "; ".join(breaks(sound, narrow))
    assert f"wide_loads: 0, the budget is {sound['wide_loads']} at least" in worse
    assert f"wide_stores: 0, the budget is {sound['wide_stores']} at least" in worse


@pytest.mark.parametrize("target", TARGETS[:-1])
def test_alignment_is_what_the_tensors_have(planted: Planted, target: str) -> None:
    """A view from the middle of 16 bytes is compiled as one: nothing is assumed of a pointer."""
    assert planted[f"unaligned | {target}"]["wide_loads"] == 0
    assert planted[f"sound | {target}"]["wide_loads"] >= 1


@every_target
def test_matrix_units_are_seen(planted: Planted, target: str) -> None:
    product, sound = planted[f"product | {target}"], planted[f"sound | {target}"]
    assert product["tensor_core"] > 0
    assert any(line.startswith("tensor_core: 0 instructions, the budget has") for line in breaks(product, sound))


def test_a_broken_budget_is_said_in_words() -> None:
    budget = {"registers": 80, "spills": 0, "shared": 1024, "instructions": 900}
    budget |= {"wide_loads": 4, "wide_stores": 2, "tensor_core": 8}
    changed = {"registers": 83, "spills": 8, "shared": 2048, "instructions": 901, "wide_stores": 0}
    assert breaks(budget, budget | changed) == [
        "registers: 83, the budget is 80 at most",
        "spills: 8, the budget is 0 at most",
        "shared: 2048, the budget is 1024 at most",
        "instructions: 901, the budget is 900 at most",
        "wide_stores: 0, the budget is 2 at least",
    ]
    assert breaks(budget, budget | {"registers": 70, "wide_loads": 5, "tensor_core": 2}) == []


@pytest.mark.parametrize(
    ("target", "registers", "shared", "num_warps", "programs", "share", "limit"),
    [
        ("sm_80", 64, 0, 8, 4, 0.5, "registers"),
        ("sm_90", 255, 0, 4, 2, 0.125, "registers"),
        ("sm_90", 168, 0, 8, 1, 0.125, "registers"),  # 12 warps fit: one program of 8
        ("sm_80", 32, 0, 4, 16, 1.0, "warps"),
        ("sm_90", 32, 100 * 1024, 4, 2, 0.125, "shared memory"),
        ("sm_80", 32, 164 * 1024, 4, 0, 0.0, "shared memory"),  # one KiB is the system's: 163 at most
        ("sm_90", 16, 0, 1, 32, 0.5, "programs"),
        ("gfx942", 128, 0, 4, 4, 0.5, "registers"),
        ("gfx942", 64, 0, 4, 8, 1.0, "warps"),
        ("gfx942", 64, 33 * 1024, 4, 1, 0.125, "shared memory"),
    ],
)
def test_occupancy(
    target: str, registers: int, shared: int, num_warps: int, programs: int, share: float, limit: str
) -> None:
    """By hand from the tables of the CUDA programming guide and AMD's instruction-set guide."""
    assert occupancy(target, registers, shared, num_warps) == Occupancy(programs, share, limit)


def test_the_slowest_kind_of_work_decides() -> None:
    copy = predict("H200", Work(read=2_160_000_000, written=2_160_000_000))
    assert copy.bound == "memory"
    assert copy.microseconds == pytest.approx(1000)  # at 0.9 · 4.8 TB/s
    assert predict("H200", Work(0, 0, flops=67_000_000)).microseconds == pytest.approx(1)
    product = predict("A100", Work(8, 8, flops=249_600_000, matrix=True))
    assert (product.bound, product.microseconds) == ("matrix", pytest.approx(1))  # at 0.8 · 312 TFLOP/s
    assert predict("H200", Work(8, 8, special=10**9)).bound == "special"
    assert predict("H200", Work(8, 8, flops=10**6, special=10**6, instructions=10**8)).bound == "issue"


def test_rows_of_launch_tables_are_found_and_seen_to_be_taken() -> None:
    rows = launch_tables.rows("cost_volume")
    assert rows["table.BAND"] is table.BAND
    assert "launch.LAUNCH_SHAPES[2]" in launch_tables.rows("disparity_regression")
    with launch_tables.taken(rows) as seen:
        table.slide_tile(8, 40, True, dtype=torch.bfloat16, backward=False, concat=False, before_hopper=False)
        assert seen == {"table.SLIDE_CHANNELS_LAST"}
        table.slide_tile(320, 1, True, dtype=torch.bfloat16, backward=False, concat=False, before_hopper=False)
        assert seen == {"table.SLIDE_CHANNELS_LAST", "table.SLIDE_MANY_CHANNELS"}
    _ = table.BAND.num_warps
    assert "table.BAND" not in seen
