"""report.md and the plots of a check's benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.harness.result import read_result
from bench.report import write_report

if __name__ == "__main__":
    write_report(Path(sys.argv[1]), [read_result(Path(name)) for name in sys.argv[2:]])
