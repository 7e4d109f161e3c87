"""`python -m bench kernel-counts`: what the compiled kernels execute, counted on the CPU. No GPU is used."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from adu_depth.errors import InputError
from adu_kernels._triton import runtime
from bench.kernel_counts import budgets
from bench.kernel_counts.cases import CASES
from bench.kernel_counts.measure import measure

LEGEND = (
    "Counted while the PTX that Triton {triton} compiles for sm_80 was executed on the CPU; no time was measured. "
    "instr/4 B: thread-instructions per 4 bytes of the floor, which is every byte read once and every byte written "
    "once. loads, stores: bytes wanted over bytes of the sectors moved. sectors: their bytes over the floor. banks: "
    "wavefronts of shared memory over the fewest possible. slowest: the unit of an A100 that is busy longest, and its "
    "time over that of the floor from DRAM (modelled: bench/kernel_counts/pipes.py)."
)


@dataclass(frozen=True)
class KernelCounts:
    """Instructions, sectors and bank conflicts of every kernel, executed as PTX on the CPU."""

    operation: str = ""
    """One folder of adu_kernels; empty: all of them."""
    case: str = ""
    """Only cases whose name has this in it, such as "groupwise bf16"."""
    output: Path | None = None
    """Write the figures as JSON too."""
    update: bool = False
    """Write them as the new budgets, which the tests compare with (all cases; bench/kernel_counts/budgets.json)."""

    def main(self) -> None:
        """Count, and print."""
        report = self.run()
        if self.output:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        if self.update:
            budgets.write(report)
        console = Console(width=None if sys.stdout.isatty() else 190)
        console.print(_table(report["kernels"]))
        console.print(LEGEND.format(triton=report["triton"]))

    def run(self) -> dict[str, Any]:
        """InputError: kernels are interpreted; no such case; a part of the cases as budgets."""
        if runtime.interpreting():
            raise InputError("TRITON_INTERPRET: expected it unset, for interpreted kernels have no PTX, got it set")
        chosen = [c for c in CASES if self.operation in ("", c.operation) and self.case in c.name]
        if not chosen:
            operations = ", ".join(sorted({c.operation for c in CASES}))
            raise InputError(f"expected an operation of {operations}, got {self.operation!r} with {self.case!r}")
        if self.update and len(chosen) < len(CASES):
            raise InputError("--update: expected all cases, for budgets are written whole, got a part of them")
        return measure(chosen)


def _table(kernels: dict[str, dict[str, Any]]) -> Table:
    table = Table()
    for heading in ("case", "kernel"):
        table.add_column(heading, no_wrap=True)
    for heading in (
        "programs",
        "instr/4 B",
        "loads",
        "stores",
        "sectors",
        "banks",
        "slowest",
        "÷ DRAM",
        "second",
        "÷ DRAM",
    ):
        table.add_column(heading, justify="left" if heading in ("slowest", "second") else "right")
    for name, of in kernels.items():
        case, kernel = name.split(" | ")
        figures = ("programs", "instructions_per_word", "load_efficiency", "store_efficiency", "sectors_over_floor")
        rest = ("bank_factor", "slowest", "over_dram", "second", "second_over_dram")
        table.add_row(case, kernel, *(str(of[figure]) for figure in (*figures, *rest)))
    return table
