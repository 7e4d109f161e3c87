"""Tables and pictures from results that were measured before, by nothing but their JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from adu_depth.arguments import Positional
from adu_depth.errors import InputError
from adu_depth.files import replacing
from bench.harness.result import Result, read_result
from bench.harness.table import join_tables
from bench.plots import MISSING, memory_bars, roofline, save, speed_bars

PICTURES = {"roofline": roofline, "speed": speed_bars, "memory": memory_bars}
CAPTIONS = {
    "roofline": "Under the peaks measured in the same run",
    "speed": "Times as fast as the eager reference",
    "memory": "Peak memory beside the inputs",
}


@dataclass(frozen=True)
class ReportCommand:
    """Markdown tables and SVG plots from result files: report.md, roofline.svg, speed.svg, memory.svg."""

    results: Positional[tuple[Path, ...]]
    """JSON files that benchmarks wrote."""
    output: Path = Path("runs/bench-report")
    """Folder to write to."""

    def main(self) -> None:
        if not self.results:
            raise InputError("report: name one or more JSON results")
        print(f"wrote {write_report(self.output, [read_result(path) for path in self.results])}")


def write_report(folder: Path, results: Sequence[Result]) -> Path:
    """Writes report.md and the pictures there is something to draw for; returns the path of report.md.

    Without matplotlib there are none, and a line on the standard error says so. A picture of an earlier report that
    this one does not have is removed: it would show other numbers.
    """
    parts = []
    can_draw = find_spec("matplotlib") is not None
    if not can_draw:
        print(MISSING, file=sys.stderr)
    for name, draw in PICTURES.items():
        path, picture = folder / f"{name}.svg", draw(results) if can_draw else None
        if picture is None:
            path.unlink(missing_ok=True)
            continue
        with replacing(path) as temporary:
            save(picture, temporary)
        parts.append(f"![{CAPTIONS[name]}]({name}.svg)\n")
    if not any(result["roofs"] for result in results):
        parts.append("No roofline: no roof was measured, since no GPU was there.\n")
    with replacing(folder / "report.md") as temporary:
        temporary.write_text("# Benchmarks\n\n" + "\n".join([*parts, join_tables(results)]), encoding="utf-8")
    return folder / "report.md"
