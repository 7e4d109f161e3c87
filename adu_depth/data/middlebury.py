"""Middlebury's stereo pairs (version 3 and the 2014 scenes) and ETH3D's two-view pairs, which share one format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.calibration import read_middlebury_calibration
from adu_depth.data.dataset import FileDataset, maps_from_disparity, no_maps, read_pair, require_size
from adu_depth.data.image_files import read_mask, read_pfm
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError

DISPARITY_NAMES = ("disp0GT.pfm", "disp0.pfm")
MASK_NAME = "mask0nocc.png"  # 255 seen by both cameras, 128 hidden from the right one, 0 unknown
MASK_OCCLUDED = 128


class MiddleburyStereo(FileDataset):
    """Scenes of im0.png (left), im1.png (right), calib.txt, disp0GT.pfm or disp0.pfm and, where known, mask0nocc.png.

    root: one scene's folder, or a folder of scenes, or the folder that holds ETH3D's `two_view_training`. Ground truth
    stands beside the images or, as ETH3D's zips unpack, under the same scene name in `<folder of scenes>_gt`.
    `doffs` of calib.txt is the camera's disparity_offset, its baseline goes from mm to m; inf disparity means unknown.
    No LiDAR: sparse_depth is None. Raises InputError if there is no pair.
    """

    def __init__(self, root: str | Path) -> None:
        self.scenes = find_scenes(Path(root))
        if not self.scenes:
            raise InputError(f"{root}: no stereo pairs, expected im0.png, */im0.png or two_view_training/*/im0.png")
        super().__init__(root, list(self.scenes))

    def files(self, name: str) -> dict[str, Path]:
        scene = self.scenes[name]
        found = {"left": scene / "im0.png", "right": scene / "im1.png", "calibration": scene / "calib.txt"}
        candidates = _disparity_files(scene)
        return found | {"disparity": next((path for path in candidates if self.file_index.holds(path)), candidates[0])}

    def load_stored(self, name: str) -> StereoSample:
        scene = self.scenes[name]
        left, right = read_pair(scene / "im0.png", scene / "im1.png")
        camera, size = read_middlebury_calibration(scene / "calib.txt")
        require_size(size, left, scene / "calib.txt")
        if not self.truth:
            return StereoSample(left=left, right=right, **no_maps(left), camera=camera, name=name)
        path = _disparity_file(scene)
        disparity = read_pfm(path)
        require_size(disparity.shape, left, path)
        return StereoSample(
            left=left,
            right=right,
            **maps_from_disparity(disparity, camera),
            camera=camera,
            occluded=_occluded(path.with_name(MASK_NAME), left),
            name=name,
        )


def find_scenes(root: Path) -> dict[str, Path]:
    """Scene name → folder of its images; empty if there is none."""
    if (root / "two_view_training").is_dir():
        root = root / "two_view_training"
    images = [*root.glob("im0.png"), *sorted(root.glob("*/im0.png"))]
    return {image.parent.resolve().name: image.parent for image in images}


def _disparity_files(scene: Path) -> list[Path]:
    """Where a scene's ground truth may stand."""
    scene = scene.absolute()
    apart = scene.parent.with_name(f"{scene.parent.name}_gt") / scene.name
    return [folder / name for folder in (scene, apart) for name in DISPARITY_NAMES]


def _disparity_file(scene: Path) -> Path:
    candidates = _disparity_files(scene)
    for path in candidates:
        if path.is_file():
            return path
    raise InputError(f"no disparity of scene {scene.name}: looked for {', '.join(map(str, candidates))}")


def _occluded(path: Path, image: Tensor) -> Tensor | None:
    if not path.is_file():
        return None
    mask = read_mask(path)
    require_size(mask.shape, image, path)
    return torch.from_numpy(np.asarray(mask == MASK_OCCLUDED))[None]
