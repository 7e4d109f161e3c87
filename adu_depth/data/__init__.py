"""Stereo pairs with ground truth, from whatever source, as StereoSample."""

from adu_depth.data.dataset import Dataset, FileDataset
from adu_depth.data.driving_stereo import DrivingStereo
from adu_depth.data.kitti import KITTI_2012, KITTI_2015, KittiStereo
from adu_depth.data.kitti_depth import KittiDepth
from adu_depth.data.kitti_object import KittiObject
from adu_depth.data.kitti_raw import KittiRaw
from adu_depth.data.layouts import LAYOUTS, Layout, open_dataset
from adu_depth.data.middlebury import MiddleburyStereo
from adu_depth.data.rgbd import Rgbd
from adu_depth.data.rig import Rig
from adu_depth.data.sample import StereoSample, collate
from adu_depth.data.synthetic import (
    LidarConfig,
    PhotometryConfig,
    RigConfig,
    SceneryConfig,
    SyntheticStereo,
    built_in_scenes,
)

__all__ = [
    "StereoSample",
    "collate",
    "SyntheticStereo",
    "built_in_scenes",
    "RigConfig",
    "PhotometryConfig",
    "SceneryConfig",
    "LidarConfig",
    "Dataset",
    "FileDataset",
    "KittiStereo",
    "KITTI_2015",
    "KITTI_2012",
    "KittiObject",
    "MiddleburyStereo",
    "KittiRaw",
    "KittiDepth",
    "DrivingStereo",
    "Rig",
    "Rgbd",
    "LAYOUTS",
    "Layout",
    "open_dataset",
]
