"""What every kernel compiles to, how much of a GPU it fills, and the time its work predicts: no GPU is used."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.table import Table

from adu_depth.arguments import Argument
from adu_depth.errors import InputError
from adu_kernels._triton import runtime
from adu_kernels.testing.gpu_specs import COPY_SHARE, GPUS, MATRIX_SHARE
from adu_kernels.testing.machine_code.cases import all_operations
from adu_kernels.testing.machine_code.launches import TARGETS
from adu_kernels.testing.machine_code.table import report as measured
from adu_kernels.testing.machine_code.table import write_budgets
from bench.harness.environment import ROOT

BUDGETS = ROOT / "tests" / "machine_code" / "budgets.json"


@dataclass(frozen=True)
class MachineCodeReport:
    """Registers, spills, shared memory, occupancy, bytes, flops and predicted time of every kernel, from machine code.

    What the tests in tests/machine_code compare with their budgets. Times are predictions by the slowest peak, not
    measurements.
    """

    operation: Annotated[str, Argument(aliases=("--room",))] = ""
    """One folder of adu_kernels; empty: all of them."""
    gpu: Literal["A100", "H100", "H200", "B200", "RTX 5090", "MI300X", "all"] = "H200"
    """Whose machine code and peaks; all: what the tests compare, of every target, in plain lines."""
    as_json: Annotated[bool, Argument(name="json")] = False
    """Print one JSON object instead of tables to read."""
    update: bool = False
    """Write the figures of every target as the new budgets (tests/machine_code/budgets.json); --gpu is then all."""

    def main(self) -> None:
        """Compile, and print."""
        report = self.run()
        if self.update:
            write_budgets(report, BUDGETS)
        if self.as_json:
            json.dump(report, sys.stdout, ensure_ascii=False)
            print()
            return
        if self.targets() is TARGETS:
            _print_figures(report)
            return
        # As wide as it needs to be where it is read by a file or a pipe.
        console = Console(width=None if sys.stdout.isatty() else 160)
        for name, size in report["sizes"].items():
            console.print(self._table(report, name, size))
        console.print(self._legend(report))

    def run(self) -> dict[str, Any]:
        """What the tests read, for this GPU's target. InputError: no such operation, Triton set to interpret."""
        if runtime.interpreting():
            raise InputError(
                "TRITON_INTERPRET: expected it unset, for interpreted kernels are not compiled, got it set"
            )
        operations = all_operations()
        chosen = [operation for operation in operations if self.operation in ("", operation.name)]
        if not chosen:
            expected = ", ".join(operation.name for operation in operations)
            raise InputError(f"--operation: expected one of {expected}, got {self.operation}")
        return measured(chosen, self.targets())

    def targets(self) -> Iterable[str]:
        return TARGETS if self.update or self.gpu == "all" else [GPUS[self.gpu].target]

    def _table(self, report: dict[str, Any], operation: str, size: str) -> Table:
        target = GPUS[self.gpu].target
        table = Table(title=f"{operation} on {self.gpu} ({target}): {size}", title_justify="left")
        for heading in ("case", "kernel"):
            table.add_column(heading)
        for heading in ("regs", "spills", "shared", "warps/CU" if target.startswith("gfx") else "warps/SM"):
            table.add_column(heading, justify="right")
        table.add_column("limited by")
        for heading in ("programs", "rounds", "MB", "GFLOP", "predicted µs"):
            table.add_column(heading, justify="right")
        table.add_column("bound by")
        for name, figures in report["kernels"].items():
            of_operation, case, kernel, _ = name.split(" | ")
            if of_operation == operation:
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
            "formulas of the operation's README. Predicted, not measured: the slowest of memory "
            f"({facts.bandwidth / 1e12:.2f} TB/s, taken as {COPY_SHARE:.0%}), matrix units "
            f"({facts.matrix / 1e12:.0f} TFLOP/s, taken as {MATRIX_SHARE:.0%}), fp32 ({facts.vector / 1e12:.0f} "
            "TFLOP/s), special functions and, where the operation's README has counted them, instructions to issue."
        )


def _print_figures(report: dict[str, Any]) -> None:
    """Every figure of every target, as it stands in the budgets."""
    for number, (name, figures) in enumerate(report["kernels"].items()):
        if number % 20 == 0:
            print(f"{'':72} " + " ".join(f"{column[:9]:>9}" for column in figures))
        print(f"{name:72} " + " ".join(f"{value:9}" for value in figures.values()))
    for operation, counts in report["compilations"].items():
        print(f"compilations over image sizes, {operation}: {counts}")
