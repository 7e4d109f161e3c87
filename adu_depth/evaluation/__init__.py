"""How good a depth map, a disparity map and a predicted uncertainty are."""

from adu_depth.evaluation.metrics import depth_metrics, stereo_metrics

__all__ = ["depth_metrics", "stereo_metrics"]
