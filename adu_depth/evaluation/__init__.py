"""How good a depth map, a disparity map and a predicted uncertainty are."""

from adu_depth.evaluation.baselines import ConstantDisparity, SemiGlobalMatching
from adu_depth.evaluation.evaluator import EvaluationResult, evaluate, evaluate_protocols
from adu_depth.evaluation.metrics import depth_metrics, hu_metrics, kitti_depth_metrics, stereo_metrics
from adu_depth.evaluation.protocols import PROTOCOLS
from adu_depth.evaluation.scoring import Scorer
from adu_depth.evaluation.table import comparison_table, markdown_table
from adu_depth.evaluation.uncertainty import uncertainty_metrics

__all__ = [
    "depth_metrics",
    "stereo_metrics",
    "kitti_depth_metrics",
    "hu_metrics",
    "uncertainty_metrics",
    "evaluate",
    "evaluate_protocols",
    "Scorer",
    "EvaluationResult",
    "PROTOCOLS",
    "SemiGlobalMatching",
    "ConstantDisparity",
    "comparison_table",
    "markdown_table",
]
