"""The stages, the most valuable first, and what each answers."""

from __future__ import annotations

import sys
from dataclasses import dataclass

OPERATIONS = {
    "cost-volume": "bench.cost_volume:CostVolumeBenchmark",
    "disparity-regression": "bench.disparity_regression:DisparityRegressionBenchmark",
    "attention-adaptation": "bench.attention_adaptation:AttentionAdaptationBenchmark",
    "depth-objective": "bench.depth_objective:DepthObjectiveBenchmark",
    "feature-distillation": "bench.feature_distillation:FeatureDistillationBenchmark",
    "teacher-step": "bench.whole_steps:TeacherStepBenchmark",
    "distillation-step": "bench.whole_steps:DistillationStepBenchmark",
    "correlation-disparity": "bench.correlation_disparity:CorrelationDisparityBenchmark",
    "teacher-inference": "bench.whole_steps:TeacherInferenceBenchmark",
    "concat-free-conv": "bench.concat_free_conv:ConcatFreeConvBenchmark",
    "student-inference": "bench.whole_steps:StudentInferenceBenchmark",
}


@dataclass(frozen=True)
class Stage:
    """A process of its own that writes one JSON file."""

    name: str
    module: str
    minutes: float
    """The most it may take of the whole budget."""
    answers: str
    arguments: tuple[str, ...] = ()
    goes_on: bool = False
    """Whether it keeps what a run of it that was cut short has finished."""

    def command(self, out: str, rehearse: bool) -> list[str]:
        more = ["--rehearse"] if rehearse else []
        return [sys.executable, "-m", self.module, *self.arguments, "--output", f"{out}/{self.name}.json", *more]


def _benchmark(name: str, minutes: float) -> Stage:
    answers = f"`python -m bench {name}`: times, memory, share of the roof, errors"
    return Stage(name, "bench.gpu_check.benchmark", minutes, answers, (name,), goes_on=True)


STAGES = (
    Stage("doctor", "bench.gpu_check.doctor", 2, "whether this machine can run the rest"),
    Stage("parity", "bench.gpu_check.parity", 8, "the kernel tests on the card itself", goes_on=True),
    _benchmark("cost-volume", 8),
    _benchmark("disparity-regression", 5),
    _benchmark("attention-adaptation", 5),
    _benchmark("depth-objective", 4),
    _benchmark("feature-distillation", 3),
    _benchmark("teacher-step", 5),
    _benchmark("distillation-step", 5),
    Stage("facts", "bench.gpu_check.facts", 3, "roofs over sizes, launch costs, a profiled step: host waits, shares"),
    Stage(
        "training",
        "bench.gpu_check.training",
        8,
        "real training, kernels and references: images/s, peak memory",
        goes_on=True,
    ),
    Stage("convergence", "bench.gpu_check.convergence", 6, "whether both learn alike, against the spread of seeds"),
    _benchmark("correlation-disparity", 4),
    _benchmark("teacher-inference", 3),
    _benchmark("concat-free-conv", 3),
    _benchmark("student-inference", 2),
)
BY_NAME = {stage.name: stage for stage in STAGES}
