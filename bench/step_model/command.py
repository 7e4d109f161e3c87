"""`python -m bench step-model`: what a training step launches and keeps, and how long a GPU would take: modelled."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from adu_depth.errors import InputError
from adu_depth.files import write_json
from adu_kernels.testing.fake_cuda.build import DoesNotCompile, Unavailable
from adu_kernels.testing.fake_cuda.process import FakeCudaProcess
from adu_kernels.testing.gpu_specs import GPUS
from bench.step_model import budgets
from bench.step_model.cases import cases
from bench.step_model.steps import Implementation, Precision, trace_replay, trace_step
from bench.step_model.summary import counts, groups, host_with_graph_ms, ours_ms, volumes

MODEL = (
    "Modelled, not measured: each operation of one training step, recorded on fake CUDA tensors, takes the longer of "
    "its bytes at a device copy's rate and its operations at a matrix product's; `likely` adds known losses. Launches "
    "are the host's, at the stated time each; by graph: those around a replayed step, the host's own operations and "
    "two replays. Host and device overlap, so a step takes the longer of the two at least."
)
SHOWN = (
    "teacher 96×320", "teacher 256×512 D192", "student 256×512", "teacher gwc-sized 256×512",
    "kitti-eigen-teacher", "kitti-eigen-resnet50", "kitti-eigen-resnet50 cached", "kitti-eigen-swin-large",
)  # fmt: skip
"""Cases that are modelled where none is named."""
PRECISIONS: tuple[Precision, ...] = ("bf16",)
IMPLEMENTATIONS: tuple[Implementation, ...] = ("references", "kernels")


@dataclass(frozen=True)
class StepModelReport:
    """What a training step launches, copies and keeps, and the time that a roofline gives it. No GPU is used."""

    gpu: Literal["A100", "H100", "H200", "B200", "MI300X"] = "H200"
    """Whose rates."""
    case: tuple[str, ...] = ()
    """Cases whose name holds one of these; none: the defaults and the KITTI presets. "all": every case there is."""
    precision: tuple[Precision, ...] = ()
    """None: bf16."""
    implementation: tuple[Implementation, ...] = ()
    """None: references and kernels."""
    host_us: float = 7.5
    """Microseconds the host takes for a launch."""
    output: Path | None = None
    """A JSON file for the numbers. It says of itself that they are modelled."""
    update: bool = False
    """Write the counts as the new budgets (bench/step_model/budgets.json), say what changed, and stop."""

    def main(self) -> None:
        try:
            process = FakeCudaProcess()
        except (Unavailable, DoesNotCompile) as error:
            raise InputError(str(error)) from error
        console = Console(width=None if sys.stdout.isatty() else 190)
        with process:
            if self.update:
                for line in budgets.update(process):
                    console.print(line, highlight=False)
                return
            report = self.run(process)
        for table in self.tables(report):
            console.print(table)
        console.print(MODEL, highlight=False)
        if self.output is not None:
            write_json(self.output, report)

    def run(self, process: FakeCudaProcess) -> dict[str, Any]:
        """The numbers as JSON values. InputError for a case that there is none of."""
        gpu, rows = GPUS[self.gpu], []
        for case in self._chosen():
            for precision in self.precision or PRECISIONS:
                for implementation in self.implementation or IMPLEMENTATIONS:
                    trace = process.call(trace_step, case, precision, implementation)
                    counted, parts = counts(trace), groups(trace, gpu)
                    likely = sum(part.likely for part in parts.values())
                    by_graph = None
                    if implementation == "kernels":
                        replayed = process.call(trace_replay, case, precision)
                        by_graph = host_with_graph_ms(replayed, self.host_us)
                    rows.append(
                        {
                            "case": case.name,
                            "precision": precision,
                            "implementation": implementation,
                            "batch": case.batch,
                            "least_ms": sum(part.least for part in parts.values()),
                            "likely_ms": likely,
                            "ours_ms": ours_ms(trace, gpu),
                            "teacher_ms": sum(p.likely for name, p in parts.items() if name.startswith("teacher ")),
                            "host_ms": counted.launches * self.host_us / 1e3,
                            "host_with_graph_ms": by_graph,
                            "volumes": volumes(trace),
                            "counts": asdict(counted),
                            "groups": {name: asdict(part) for name, part in parts.items()},
                        }
                    )
        return {"modelled": True, "model": MODEL, "gpu": self.gpu, "host_us": self.host_us, "steps": rows}

    def _chosen(self) -> list[Any]:
        known = cases()
        if not self.case:
            return [known[name] for name in SHOWN]
        chosen = [c for name, c in known.items() if "all" in self.case or any(part in name for part in self.case)]
        if not chosen:
            raise InputError(f"--case: expected part of one of {', '.join(known)}; got {' '.join(self.case)}")
        return chosen

    def tables(self, report: dict[str, Any]) -> list[Table]:
        found = [self._overview(report)]
        if self.case:
            found += [self._parts(row) for row in report["steps"]]
        return found

    def _overview(self, report: dict[str, Any]) -> Table:
        title = (
            f"One training step on {self.gpu}, modelled; {self.host_us:g} µs of the host a launch; kept: of an image"
        )
        table = Table(title=title, title_justify="left")
        for heading in ("training", "with"):
            table.add_column(heading, no_wrap=True)
        for heading in ("least ms", "likely ms", "ours", "teacher", "launches", "host ms", "by graph", "layouts",
                        "copies", "casts", "kept MB"):  # fmt: skip
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("volumes written", no_wrap=True)
        for row in report["steps"]:
            counted = row["counts"]
            table.add_row(
                row["case"], f"{row['precision']} {row['implementation']}",
                f"{row['least_ms']:.1f}", f"{row['likely_ms']:.1f}",
                f"{row['ours_ms'] / row['likely_ms']:.1%}", f"{row['teacher_ms'] / row['likely_ms']:.0%}",
                str(counted["launches"]), f"{row['host_ms']:.1f}",
                "–" if row["host_with_graph_ms"] is None else f"{row['host_with_graph_ms']:.2f}",
                str(counted["layouts"]), str(counted["copies"]), str(counted["casts"]),
                f"{counted['saved_bytes'] / 1e6 / row['batch']:.0f}", row["volumes"],
            )  # fmt: skip
        return table

    def _parts(self, row: dict[str, Any]) -> Table:
        title = f"{row['case']}, {row['precision']}, {row['implementation']}: by part, forward and backward"
        table = Table(title=title, title_justify="left")
        table.add_column("part")
        for heading in ("least ms", "likely ms", "share", "launches"):
            table.add_column(heading, justify="right")
        for name, part in row["groups"].items():
            share = part["likely"] / row["likely_ms"]
            table.add_row(
                name, f"{part['least']:.2f}", f"{part['likely']:.2f}", f"{share:.1%}", str(part["launches"])
            )  # fmt: skip
        return table
