"""How long each unit of an A100 is kept busy by what was counted: a model, not a measurement."""

from __future__ import annotations

from collections.abc import Mapping

from adu_kernels.testing.executed_ptx import Counts
from adu_kernels.testing.gpu_specs import COPY_SHARE, GPUS

GPU = GPUS["A100"]
WARP_INSTRUCTIONS: Mapping[str, float] = {
    "issue": 4.0,
    "fp32": 2.0,
    "integer": 2.0,
    "special": 0.5,
    "fp64": 1.0,
    "shared memory": 1.0,
}
"""Of one multiprocessor per clock (CUDA C++ programming guide, throughput of native instructions, compute capability
8.0): four schedulers issue, 64 lanes each for fp32, for whole numbers; 16 for special functions and for conversions; 32
for fp64; one request or wavefront of shared memory, where shuffles go too."""
INTEGER_DIVISION = 20
"""Instructions that ptxas makes of a division by a number it does not know."""
PRODUCT = 16 * 8 * 16
"""Multiply-adds of an m16n8k16 product."""
MATRIX_PER_CLOCK = 1024
"""Multiply-adds in bf16 and fp16 of one multiprocessor."""
SECTOR, SECTOR_BYTES_PER_CLOCK = 32, 64
"""Bytes of a sector; what L2 gives one multiprocessor."""


def instructions(counts: Counts) -> int:
    """Of whole warps, moves left out: ptxas gives most of them none."""
    return sum(number for kind, number in counts.instructions.items() if kind != "move")


def floor_bytes(counts: Counts) -> int:
    """Bytes read at least once and bytes written at least once."""
    return counts.memory["load floor"] + counts.memory["store floor"]


def seconds(counts: Counts) -> dict[str, float]:
    """By unit; "DRAM" for the floor alone."""
    of, memory = counts.instructions, counts.memory
    divisions = INTEGER_DIVISION * of["integer_division"]
    sectors = memory["load sectors"] + memory["store sectors"]
    clocks = {
        "issue": (instructions(counts) + divisions) / WARP_INSTRUCTIONS["issue"],
        "fp32": of["fp32"] / WARP_INSTRUCTIONS["fp32"],
        "integer": (of["integer"] + divisions) / WARP_INSTRUCTIONS["integer"],
        "special": (of["special"] + of["conversion"]) / WARP_INSTRUCTIONS["special"],
        "fp64": of["fp64"] / WARP_INSTRUCTIONS["fp64"],
        "shared memory": (memory["shared wavefronts"] + of["shuffle"]) / WARP_INSTRUCTIONS["shared memory"],
        "L2": SECTOR * sectors / SECTOR_BYTES_PER_CLOCK,
        "matrix": of["matrix"] * PRODUCT / MATRIX_PER_CLOCK,
    }
    busy = {unit: number / GPU.multiprocessors / GPU.clock for unit, number in clocks.items()}
    return busy | {"DRAM": floor_bytes(counts) / (GPU.bandwidth * COPY_SHARE)}
