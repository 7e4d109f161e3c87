"""Executes the PTX of a case's kernels, unwatched but counted, and makes figures of the counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import triton

from adu_kernels.testing.executed_ptx import Counts, executed_ptx
from bench.kernel_counts.cases import CountCase
from bench.kernel_counts.pipes import SECTOR, floor_bytes, instructions, seconds


@dataclass(frozen=True)
class Figures:
    """Of one kernel in one case."""

    programs: int
    warp_instructions: int
    floor_bytes: int
    instructions_per_word: float
    """Thread-instructions per 4 bytes of the floor."""
    load_efficiency: float
    """Bytes that lanes wanted over bytes of the sectors that were moved for them."""
    store_efficiency: float
    sectors_over_floor: float
    """Bytes of all sectors asked of L2 over the floor."""
    bank_factor: float
    """Wavefronts of shared memory over the fewest possible; 1.0: no conflicts."""
    slowest: str
    over_dram: float
    """Time of the slowest unit over that of the floor's bytes from DRAM."""
    second: str
    second_over_dram: float

    @staticmethod
    def of(counts: Counts) -> Figures:
        memory, floor, busy = counts.memory, floor_bytes(counts), seconds(counts)
        slowest, second = sorted(busy, key=lambda unit: busy[unit], reverse=True)[:2]
        sectors = {kind: SECTOR * memory[f"{kind} sectors"] for kind in ("load", "store")}
        return Figures(
            programs=memory["programs"],
            warp_instructions=instructions(counts),
            floor_bytes=floor,
            instructions_per_word=round(32 * instructions(counts) / (floor / 4), 1),
            load_efficiency=round(memory["load bytes"] / max(sectors["load"], 1), 3),
            store_efficiency=round(memory["store bytes"] / max(sectors["store"], 1), 3),
            sectors_over_floor=round(sum(sectors.values()) / floor, 2),
            bank_factor=round(memory["shared wavefronts"] / max(memory["shared wavefronts at least"], 1), 2),
            slowest=slowest,
            over_dram=round(busy[slowest] / busy["DRAM"], 2),
            second=second,
            second_over_dram=round(busy[second] / busy["DRAM"], 2),
        )


def measure(cases: Iterable[CountCase]) -> dict[str, Any]:
    """{"triton": version, "kernels": {"cost_volume groupwise bf16 channels-last | volume_forward": figures}}.

    RuntimeError where kernels are interpreted.
    """
    kernels: dict[str, dict[str, Any]] = {}
    for case in cases:
        torch.manual_seed(0)
        with executed_ptx(80, checked=False, counted=True, together=8) as gpu:
            case.call()
        for kernel, counts in gpu.record.counts.items():
            kernels[f"{case.title} | {kernel.split('.')[-1]}"] = asdict(Figures.of(counts))
    return {"triton": triton.__version__, "kernels": kernels}
