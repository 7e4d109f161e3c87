"""The benchmarks of operations and steps, by the name they have on every command line: the one list.

A new operation is a file beside this one and a line here. Where each lies is text, so that the list can be read without
torch; `suite_class` imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.harness.suite import Suite

OPERATIONS = {
    "group-norm": "group_norm:GroupNormBenchmark",
    "attention-adaptation": "attention_adaptation:AttentionAdaptationBenchmark",
    "cost-volume": "cost_volume:CostVolumeBenchmark",
    "disparity-regression": "disparity_regression:DisparityRegressionBenchmark",
    "depth-objective": "depth_objective:DepthObjectiveBenchmark",
    "depth-gradient-normal": "depth_gradient_normal:DepthGradientNormalBenchmark",
    "feature-distillation": "feature_distillation:FeatureDistillationBenchmark",
    "correlation-disparity": "correlation_disparity:CorrelationDisparityBenchmark",
    "single-output-conv3d": "single_output_conv3d:SingleOutputConv3dBenchmark",
    "concat-free-conv": "concat_free_conv:ConcatFreeConvBenchmark",
}
"""Module of this package and class, the most telling first."""
STEPS = {
    "teacher-step": "training_steps:TeacherStepBenchmark",
    "distillation-step": "training_steps:DistillationStepBenchmark",
}
INFERENCE = {
    "teacher-inference": "training_steps:TeacherInferenceBenchmark",
    "student-inference": "training_steps:StudentInferenceBenchmark",
}
EVERY = OPERATIONS | STEPS | INFERENCE


def suite_class(name: str) -> type[Suite]:
    """The benchmark of that name."""
    module, _, of = EVERY[name].partition(":")
    return getattr(importlib.import_module(f"bench.{module}"), of)  # type: ignore[no-any-return]
