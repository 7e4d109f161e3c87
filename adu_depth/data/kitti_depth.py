"""KITTI's depth benchmark as its `data_depth_selection` unpacks: single images, each with intrinsics of its own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from adu_depth.data.calibration import read_numbers, usable_camera
from adu_depth.data.dataset import FileDataset, find_names, maps_from_depth, no_maps, require_size
from adu_depth.data.image_files import read_png16, read_view
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.geometry import Camera

PARTS = ("val_selection_cropped", "test_depth_prediction_anonymous")
DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_\d+_sync")


class KittiDepth(FileDataset):
    """`val_selection_cropped` (1,000 images with ground truth) or `test_depth_prediction_anonymous` (500 without).

    root: the folder that holds `image` and `intrinsics`, and `groundtruth_depth` in the validation part; or the folder
    above it if that holds only one of the two parts. The benchmark has no right images: a sample's `right` is None and
    its camera's baseline 0. Raises InputError if there is no image.
    """

    def __init__(self, root: str | Path) -> None:
        parts = find_parts(Path(root))
        if len(parts) > 1:
            raise InputError(f"{root}: holds {' and '.join(p.name for p in parts)}; name the one meant")
        self.folder = parts[0] if parts else Path(root)
        super().__init__(root, find_names(self.folder / "image", "*.png"))
        self.has_truth = (self.folder / "groundtruth_depth").is_dir()

    def files(self, name: str) -> dict[str, Path]:
        found = {
            "left": self.folder / "image" / f"{name}.png",
            "calibration": self.folder / "intrinsics" / f"{name}.txt",
        }
        if self.has_truth:
            truth = name.replace("_sync_image_", "_sync_groundtruth_depth_")
            found["depth"] = self.folder / "groundtruth_depth" / f"{truth}.png"
        return found

    def sequence(self, name: str) -> str:
        drive = DRIVE.match(name)
        return drive[0] if drive else ""

    def load_stored(self, name: str) -> StereoSample:
        files = self.read_files(name)
        image, camera = read_view(files["left"]), read_intrinsics(files["calibration"])
        if "depth" in files:
            depth = read_png16(files["depth"])
            require_size(depth.shape, image, files["depth"])
            maps = maps_from_depth(depth, camera)
        else:
            maps = no_maps(image)
        return StereoSample(left=image, right=None, **maps, camera=camera, name=name)


def find_parts(root: Path) -> list[Path]:
    """The benchmark's parts below `root`, or `root` itself if it is one."""
    if (root / "image").is_dir() and any((root / other).is_dir() for other in ("intrinsics", "groundtruth_depth")):
        return [root]
    above = (root, root / "depth_selection")
    return [folder / part for folder in above for part in PARTS if (folder / part / "image").is_dir()]


def read_intrinsics(path: Path) -> Camera:
    """A camera without baseline from a file of the nine numbers of its 3×3 matrix, row by row."""
    numbers = read_numbers(path)
    if numbers.size != 9:
        raise InputError(f"{path}: expected the 9 numbers of a 3×3 camera matrix, got {numbers.size}")
    matrix: np.ndarray = numbers.reshape(3, 3)
    fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return usable_camera(Camera(fx=fx, fy=fy, cx=cx, cy=cy, baseline=0.0), path, pair=False)
