"""KITTI's object benchmark: street pairs with the Velodyne scan taken with them, projected to a sparse depth map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adu_depth.data.calibration import calibration_matrix, camera_from_projections, read_kitti_calibration
from adu_depth.data.dataset import FileDataset, find_names, maps_from_depth, no_maps, read_pair
from adu_depth.data.kitti import training_folder
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.files import read_bytes


@dataclass(frozen=True)
class ObjectFrame:
    """The four files of one frame."""

    left: Path
    right: Path
    scan: Path
    calibration: Path


class KittiObject(FileDataset):
    """KITTI object frames as the official zips unpack, or each in a folder of its own.

    root: the folder that holds `training` (or that folder) with image_2, image_3, velodyne and calib; or one frame's
    folder, or a folder of such folders, with left.png, right.png, lidar.bin and calib.txt.
    The scan is the only ground truth: depth, disparity, valid and sparse_depth all come from it. Seen from the camera,
    a few of its points lie behind nearer surfaces (the scanner stands higher); they are not filtered out.
    Raises InputError if there is no pair.
    """

    def __init__(self, root: str | Path) -> None:
        self.frames = _official_frames(training_folder(root)) or _single_frames(Path(root))
        if not self.frames:
            raise InputError(f"{root}: no stereo pairs, expected image_2/*.png, left.png or */left.png")
        super().__init__(root, list(self.frames))

    def files(self, name: str) -> dict[str, Path]:
        return vars(self.frames[name])

    def load_stored(self, name: str) -> StereoSample:
        frame = self.frames[name]
        left, right = read_pair(frame.left, frame.right)
        values = read_kitti_calibration(frame.calibration)
        p2, p3 = (calibration_matrix(values, key, (3, 4), frame.calibration) for key in ("P2", "P3"))
        rotation = _homogeneous(calibration_matrix(values, "R0_rect", (3, 3), frame.calibration))
        to_camera = _homogeneous(calibration_matrix(values, "Tr_velo_to_cam", (3, 4), frame.calibration))
        camera = camera_from_projections(p2, p3, frame.calibration)
        if not self.truth:
            return StereoSample(left=left, right=right, **no_maps(left), camera=camera, name=name)
        height, width = left.shape[-2:]
        depth = project_points(read_velodyne(frame.scan), p2 @ rotation @ to_camera, height, width)
        maps = maps_from_depth(depth, camera)
        return StereoSample(left=left, right=right, **maps, camera=camera, sparse_depth=maps["depth"], name=name)


def read_velodyne(path: str | Path) -> np.ndarray:
    """A scan as N×3 float64: x forward, y left, z up, metres. The file holds float32 N×4, reflectance the fourth."""
    data = read_bytes(path, share=10)  # as float64, with its projection, it takes as many times the room
    if not data or len(data) % 16:
        raise InputError(f"{path}: expected points of 4 float32 (16 bytes), got {len(data)} bytes")
    return np.frombuffer(data, dtype="<f4").reshape(-1, 4)[:, :3].astype(np.float64)


def project_points(points: np.ndarray, projection: np.ndarray, height: int, width: int) -> np.ndarray:
    """Depth map H×W float32, metres along the camera's axis, 0 = none, of N×3 points under a 3×4 projection.

    A point falls on the pixel whose centre is nearest (centres at whole numbers); the nearest point wins a pixel.
    """
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ projection.T
    u, v, depth = homogeneous[homogeneous[:, 2] > 0].T
    column, row = np.rint(u / depth), np.rint(v / depth)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    nearest = np.full((height, width), np.inf)
    np.minimum.at(nearest, (row[inside].astype(int), column[inside].astype(int)), depth[inside])
    return np.where(np.isfinite(nearest), nearest, 0.0).astype(np.float32)


def _homogeneous(matrix: np.ndarray) -> np.ndarray:
    full = np.eye(4)
    full[: matrix.shape[0], : matrix.shape[1]] = matrix
    return full


def _official_frames(training: Path) -> dict[str, ObjectFrame]:
    if not (training / "image_2").is_dir():
        return {}
    return {
        name: ObjectFrame(
            left=training / "image_2" / f"{name}.png",
            right=training / "image_3" / f"{name}.png",
            scan=training / "velodyne" / f"{name}.bin",
            calibration=training / "calib" / f"{name}.txt",
        )
        for name in find_names(training / "image_2", "*.png")
    }


def _single_frames(root: Path) -> dict[str, ObjectFrame]:
    folders = [path.parent for path in [*root.glob("left.png"), *sorted(root.glob("*/left.png"))]]
    return {
        folder.resolve().name: ObjectFrame(*(folder / n for n in ("left.png", "right.png", "lidar.bin", "calib.txt")))
        for folder in folders
    }
