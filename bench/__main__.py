"""`python -m bench NAME [options]`: the benchmarks by name. Each is a dataclass of options with a `main` method."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import tyro

from adu_depth.entry import run
from adu_depth.errors import InputError
from bench.attention_adaptation import AttentionAdaptationBenchmark
from bench.concat_free_conv import ConcatFreeConvBenchmark
from bench.correlation_disparity import CorrelationDisparityBenchmark
from bench.cost_volume import CostVolumeBenchmark
from bench.depth_objective import DepthObjectiveBenchmark
from bench.disparity_regression import DisparityRegressionBenchmark
from bench.everything import AllBenchmarks
from bench.feature_distillation import FeatureDistillationBenchmark
from bench.kernel_counts.command import KernelCounts
from bench.machine_code import MachineCodeReport
from bench.pack import PackBenchmark
from bench.render import RenderBenchmark
from bench.report import ReportCommand
from bench.step_model.command import StepModelReport
from bench.whole_steps import (
    DistillationStepBenchmark,
    StudentInferenceBenchmark,
    TeacherInferenceBenchmark,
    TeacherStepBenchmark,
)

BENCHMARKS: dict[str, Any] = {
    "cost-volume": CostVolumeBenchmark,
    "correlation-disparity": CorrelationDisparityBenchmark,
    "concat-free-conv": ConcatFreeConvBenchmark,
    "disparity-regression": DisparityRegressionBenchmark,
    "attention-adaptation": AttentionAdaptationBenchmark,
    "feature-distillation": FeatureDistillationBenchmark,
    "depth-objective": DepthObjectiveBenchmark,
    "teacher-step": TeacherStepBenchmark,
    "distillation-step": DistillationStepBenchmark,
    "teacher-inference": TeacherInferenceBenchmark,
    "student-inference": StudentInferenceBenchmark,
    "all": AllBenchmarks,
    "report": ReportCommand,
    "render": RenderBenchmark,
    "pack": PackBenchmark,
    "machine-code": MachineCodeReport,
    "step-model": StepModelReport,
    "kernel-counts": KernelCounts,
}


def parse(arguments: list[str] | None = None) -> Any:
    """The benchmark that a command line asks for."""
    return tyro.extras.subcommand_cli_from_dict(
        BENCHMARKS, prog="python -m bench", description=__doc__, args=arguments, config=(tyro.conf.UseAppendAction,)
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
