"""`python -m bench NAME [options]`: the benchmarks by name. Each is a dataclass of options with a `main` method."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import tyro

from adu_depth.entry import run
from adu_depth.errors import InputError
from adu_depth.parsing import settings_registry
from bench.data import DataBenchmark
from bench.everything import AllBenchmarks
from bench.inference import InferenceBenchmark
from bench.kernel_counts.command import KernelCounts
from bench.machine_code import MachineCodeReport
from bench.operations import EVERY, suite_class
from bench.point_cloud import PointCloudBenchmark
from bench.render import RenderBenchmark
from bench.report import ReportCommand
from bench.step_model.command import StepModelReport

BENCHMARKS: dict[str, Any] = {
    **{name: suite_class(name) for name in EVERY},
    "all": AllBenchmarks,
    "report": ReportCommand,
    "render": RenderBenchmark,
    "data": DataBenchmark,
    "point-cloud": PointCloudBenchmark,
    "inference": InferenceBenchmark,
    "machine-code": MachineCodeReport,
    "step-model": StepModelReport,
    "kernel-counts": KernelCounts,
}


def parse(arguments: list[str] | None = None) -> Any:
    """The benchmark that a command line asks for."""
    return tyro.extras.subcommand_cli_from_dict(
        BENCHMARKS,
        prog="python -m bench",
        description=__doc__,
        args=arguments,
        config=(tyro.conf.UseAppendAction,),
        registry=settings_registry(),
    )


def main() -> None:
    """Runs one of them; bad input ends with its message and exit code 2, signals and streams as in `adu-depth`."""
    sys.exit(run(_run, last=True))


def _run(started: Callable[[], None]) -> int:
    started()
    try:
        parse().main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    main()
