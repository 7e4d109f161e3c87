"""What every kernel compiles to, how much of a GPU it fills, and the time its work predicts: no GPU is used."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from adu_depth.errors import InputError
from adu_kernels._triton import runtime
from bench.machine_facts import COPY_SHARE, GPUS, MATRIX_SHARE


@dataclass(frozen=True)
class MachineCodeReport:
    """Registers, spills, shared memory, occupancy, bytes, flops and predicted time of every kernel, from machine code.

    The same code as the tests' gate (tests/machine_code). Times are predictions by the slowest roof, not measurements.
    """

    room: str = ""
    """One room of adu_kernels; empty: all of them."""
    gpu: Literal["A100", "H100", "H200", "B200", "RTX 5090", "MI300X"] = "H200"
    """Whose machine code and roofs."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object instead of tables to read."""

    def main(self) -> None:
        """Compile, and print."""
        report = self.run()
        if self.as_json:
            json.dump(report, sys.stdout, ensure_ascii=False)
            print()
            return
        # As wide as it needs to be where it is read by a file or a pipe.
        console = Console(width=None if sys.stdout.isatty() else 160)
        for name, size in report["sizes"].items():
            console.print(self._table(report, name, size))
        console.print(self._legend(report))

    def run(self) -> dict[str, Any]:
        """The gate's report for this GPU's target. InputError: a room without kernels, Triton set to interpret."""
        if runtime.interpreting():
            raise InputError(
                "TRITON_INTERPRET: expected it unset, for interpreted kernels are not compiled, got it set"
            )
        from tests.machine_code.room import all_rooms
        from tests.machine_code.table import report

        rooms = all_rooms()
        chosen = [room for room in rooms if self.room in ("", room.name)]
        if not chosen:
            expected = ", ".join(room.name for room in rooms)
            raise InputError(f"--room: expected one of {expected}, got {self.room}")
        return report(chosen, [GPUS[self.gpu].target])

    def _table(self, report: dict[str, Any], room: str, size: str) -> Table:
        target = GPUS[self.gpu].target
        table = Table(title=f"{room} on {self.gpu} ({target}): {size}", title_justify="left")
        for heading in ("case", "kernel"):
            table.add_column(heading)
        for heading in ("regs", "spills", "shared", "warps/CU" if target.startswith("gfx") else "warps/SM"):
            table.add_column(heading, justify="right")
        table.add_column("limited by")
        for heading in ("programs", "rounds", "MB", "GFLOP", "predicted µs"):
            table.add_column(heading, justify="right")
        table.add_column("bound by")
        for name, figures in report["kernels"].items():
            of_room, case, kernel, _ = name.split(" | ")
            if of_room == room:
                table.add_row(case, kernel, *self._cells(figures, report["launches"][name]))
        return table

    def _cells(self, figures: dict[str, int], started: dict[str, Any]) -> list[str]:
        """Of one row, from the registers on."""
        occupancy, work = started["occupancy"], started["work"]
        predicted = started["predictions"].get(self.gpu)
        cells = [str(figures[name]) for name in ("registers", "spills", "shared")]
        cells += [f"{occupancy['share']:.0%}", occupancy["limit"], str(started["programs"])]
        if predicted is None:
            return [*cells, "", "", "", "", ""]
        moved, flops = (work["read"] + work["written"]) / 1e6, work["flops"] / 1e9
        cells += [f"{predicted['rounds']:.1f}", f"{moved:.1f}", f"{flops:.2f}" if flops else "–"]
        return [*cells, f"{predicted['microseconds']:.1f}", predicted["bound"]]

    def _legend(self, report: dict[str, Any]) -> str:
        facts = GPUS[self.gpu]
        return (
            f"Triton {report['triton']}. Registers per thread; spills and shared memory in bytes; warps that stand on "
            "a multiprocessor, of those that could; rounds: programs over those that run at once. MB and GFLOP by the "
            "formulas of the room's README. Predicted, not measured: the slowest of memory "
            f"({facts.bandwidth / 1e12:.2f} TB/s, taken as {COPY_SHARE:.0%}), matrix units "
            f"({facts.matrix / 1e12:.0f} TFLOP/s, taken as {MATRIX_SHARE:.0%}), fp32 ({facts.vector / 1e12:.0f} "
            "TFLOP/s), special functions and, where the room has counted them, instructions to issue."
        )
