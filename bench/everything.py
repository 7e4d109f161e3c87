"""Every benchmark after the other, each in a process of its own: a crash or a spoilt CUDA context ends one, not all."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adu_depth.errors import InputError
from adu_depth.folder_lock import locked
from bench.harness.result import read_result
from bench.harness.suite import Size
from bench.operations import EVERY
from bench.report import write_report


@dataclass(frozen=True)
class AllBenchmarks:
    """Every operation and whole step, a JSON file for each, then report.md and the plots."""

    output: Path = Path("runs/bench")
    """Folder to write to. Cases it holds from the same code, machine and size are not measured again."""
    size: Size = "auto"
    device: Literal["auto", "cuda", "cpu"] = "auto"
    compile: tuple[Literal["default", "max-autotune", "none"], ...] = ()
    repeats: int = 50
    seconds: float = 4.0

    def main(self) -> None:
        with locked(self.output, "bench all"):
            self._main()

    def _main(self) -> None:
        common = ["--size", self.size, "--device", self.device]
        common += ["--repeats", str(self.repeats), "--seconds", str(self.seconds)]
        for mode in self.compile:
            common += ["--compile", mode]
        codes = {}
        for name in EVERY:
            command = [sys.executable, "-m", "bench", name, *common, "--output", str(self.output / f"{name}.json")]
            codes[name] = subprocess.run(command).returncode
        paths = [self.output / f"{name}.json" for name in EVERY if (self.output / f"{name}.json").exists()]
        if not paths:
            raise InputError(f"no benchmark wrote a result to {self.output}: see its messages above")
        print(f"wrote {write_report(self.output, [read_result(path) for path in paths])}")
        failed = [f"{name} ({code})" for name, code in codes.items() if code]
        if failed:
            print(f"not all is well: {', '.join(failed)}", file=sys.stderr)
            sys.exit(1)
