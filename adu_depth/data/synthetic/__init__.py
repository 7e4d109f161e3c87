"""Built-in scenes: a procedural stereo renderer of streets, with exact ground truth."""

from adu_depth.data.synthetic.config import LidarConfig, PhotometryConfig, RigConfig
from adu_depth.data.synthetic.dataset import SyntheticStereo

__all__ = ["SyntheticStereo", "RigConfig", "PhotometryConfig", "LidarConfig"]
