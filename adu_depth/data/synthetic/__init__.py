"""Built-in scenes: a procedural stereo renderer of streets, with exact ground truth."""

from adu_depth.data.synthetic.config import LidarConfig, PhotometryConfig, RigConfig, SceneryConfig
from adu_depth.data.synthetic.dataset import SyntheticStereo
from adu_depth.data.synthetic.sceneries import built_in_scenes

__all__ = ["SyntheticStereo", "built_in_scenes", "RigConfig", "PhotometryConfig", "SceneryConfig", "LidarConfig"]
