"""A network's points against a LiDAR's: how near they lie, and what each rule leaves out. Numbers and a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from adu_depth.charts import drawing
from adu_depth.data.calibration import calibration_matrix, read_kitti_calibration
from adu_depth.data.kitti_object import KittiObject, read_velodyne
from adu_depth.environment import describe_environment
from adu_depth.errors import InputError
from adu_depth.files import replacing, write_json
from adu_depth.geometry import Camera
from adu_depth.inference.point_cloud import PointCloud, PointCloudConfig, point_cloud
from adu_depth.inference.predictor import Predictor
from adu_depth.inference.render import to_map, to_uint8

ANGLES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
ACROSS, HIGH = 18.0, (-2.2, 3.2)  # metres that the pictures show, to either side, and below and above the camera
RED = "#e00020"


class Scan(NamedTuple):
    """A scan's points that fall onto the picture: N×3 metres in the axes of the left camera, and their pixels."""

    positions: np.ndarray
    pixels: np.ndarray


@dataclass(frozen=True)
class PointCloudBenchmark:
    """Points of a network on a KITTI object frame beside its LiDAR scan: distances, depth errors, a picture."""

    checkpoint: Path
    """A run, a checkpoint, or an exported file; a stereo teacher or a student."""
    data: Path
    """KITTI object frames: the official folder, or left.png, right.png, lidar.bin and calib.txt."""
    output: Path = Path("runs/point_cloud.json")
    """The picture gets the same name, ending in .jpg."""
    frame: int = 0
    size: str = "trained"
    """As of `adu-depth predict`."""
    label: str = ""
    """What the network is, for the result."""
    max_depth: float = 80.0

    def main(self) -> None:
        """Measure, write, print."""
        frames = KittiObject(self.data)
        if not 0 <= self.frame < len(frames):
            raise InputError(f"frame: expected from 0 to {len(frames) - 1}, got {self.frame}")
        sample = frames[self.frame]
        predictor = Predictor.from_checkpoint(self.checkpoint, "cpu", self.size)
        right = sample.right if predictor.stereo else None
        prediction = predictor.predict_image(sample.left, right, sample.camera)
        depth = to_map(prediction.depth)
        log_scale = None if prediction.log_scale is None else to_map(prediction.log_scale)
        scan = scan_in_view(self.data, self.frame, sample.camera, (depth.shape[0], depth.shape[1]), self.max_depth)
        picture = to_uint8(sample.left)
        config = PointCloudConfig(max_depth=self.max_depth)
        clouds = {
            angle: point_cloud(depth, picture, sample.camera, log_scale, replace(config, min_angle=angle))
            for angle in ANGLES
        }
        rows = [{"min_angle": angle, **compare(cloud, depth, scan)} for angle, cloud in clouds.items()]
        result = {
            "network": self.label or ("teacher" if predictor.stereo else "student"),
            "seen_at": predictor.about_size,
            "image": list(depth.shape),
            "scan_points": len(scan.positions),
            "max_depth": self.max_depth,
            "rows": rows,
            "environment": describe_environment(predictor.device),
        }
        write_json(self.output, result)
        draw(clouds[config.min_angle], scan, self.output.with_suffix(".jpg"), self.max_depth)
        for row in rows:
            print(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        print(f"wrote {self.output} and {self.output.with_suffix('.jpg')}")


def scan_points(root: Path, frame: int = 0) -> np.ndarray:
    """A frame's scan as N×3 metres in the axes of its left camera, those before the camera alone.

    By the calibration: P2 · R0 · Tr is K · (X + t) with K the first three columns of P2, so K⁻¹ · P2 · … is the point.
    """
    file = list(KittiObject(root).frames.values())[frame]
    values = read_kitti_calibration(file.calibration)
    p2 = calibration_matrix(values, "P2", (3, 4), file.calibration)
    rotation, to_camera = np.eye(4), np.eye(4)
    rotation[:3, :3] = calibration_matrix(values, "R0_rect", (3, 3), file.calibration)
    to_camera[:3] = calibration_matrix(values, "Tr_velo_to_cam", (3, 4), file.calibration)
    points = read_velodyne(file.scan)
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    seen = homogeneous @ (np.linalg.inv(p2[:, :3]) @ p2 @ rotation @ to_camera).T
    return np.asarray(seen[seen[:, 2] > 0])


def scan_in_view(root: Path, frame: int, camera: Camera, size: tuple[int, int], max_depth: float) -> Scan:
    """The scan's points that fall onto a picture of this (height, width), at most `max_depth` metres away."""
    points = scan_points(root, frame)
    points = points[points[:, 2] <= max_depth]
    columns = np.rint(float(camera.fx) * points[:, 0] / points[:, 2] + float(camera.cx)).astype(int)
    rows = np.rint(float(camera.fy) * points[:, 1] / points[:, 2] + float(camera.cy)).astype(int)
    inside = (columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0])
    return Scan(points[inside].astype(np.float32), (rows * size[1] + columns)[inside])


def compare(cloud: PointCloud, depth: np.ndarray, scan: Scan) -> dict[str, Any]:
    """Distances in metres both ways, and errors of depth at the scan's pixels, those that are points.

    The scanner stands above the camera: some of its points lie behind what the camera sees, and count all the same.
    """
    to_cloud = nearest(cloud.positions, scan.positions)
    on_scan = np.isin(cloud.pixels, scan.pixels)
    to_scan = nearest(scan.positions, cloud.positions[on_scan])
    kept = np.isin(scan.pixels, cloud.pixels)
    errors = np.abs(depth.ravel()[scan.pixels] - scan.positions[:, 2])[kept]
    far = to_scan > 1 + 0.05 * cloud.positions[on_scan, 2]
    return {
        "share_kept": round(len(cloud.pixels) / depth.size, 4),
        "scan_pixels_kept": round(float(kept.mean()), 4),
        "scan_to_points_median": round(float(np.median(to_cloud)), 4),
        "scan_to_points_mean": round(float(to_cloud.mean()), 4),
        "scan_to_points_p90": round(float(np.quantile(to_cloud, 0.9)), 4),
        "depth_error_median": round(float(np.median(errors)), 4),
        "points_to_scan_median": round(float(np.median(to_scan)), 4),
        "points_to_scan_p99": round(float(np.quantile(to_scan, 0.99)), 4),
        "points_off_by_1m_and_5_percent": round(float(far.mean()), 4),
    }


def nearest(points: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Distance from each of the queries to the nearest of the points, both N×3 float32; exact (all leaves are looked
    at that may hold a nearer one)."""
    flann: Any = cv2
    index = flann.flann_Index(points, {"algorithm": 4, "trees": 1})  # one k-d tree
    _, squares = index.knnSearch(queries, 1, params={"checks": -1})
    return np.sqrt(np.asarray(squares)[:, 0])


def draw(cloud: PointCloud, scan: Scan, path: Path, max_depth: float) -> None:
    """The points in their colours and the scan's in red, from above and from the side."""
    low_first = np.argsort(-cloud.positions[:, 1])  # seen from above, what is higher hides what is lower
    with drawing({"axes.grid": False}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13, 11), layout="constrained")
        above, side = figure.subplots(2, 1, height_ratios=[2, 1])
        for axes, up, limits in ((above, 0, (-ACROSS, ACROSS)), (side, 1, HIGH)):
            for points, colours in (
                (cloud.positions[low_first], cloud.colours[low_first] / 255),
                (scan.positions, RED),
            ):
                axes.scatter(points[:, 2], -points[:, up], c=colours, s=0.6, linewidths=0)
            axes.set(xlim=(0, max_depth), ylim=limits, xlabel="ahead, metres")
        above.set_ylabel("left, metres")
        side.set_ylabel("up, metres")
        above.set_title("From above: the network's points in their colours, the LiDAR's in red")
        side.set_title("From the side")
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=75, format="jpeg", pil_kwargs={"quality": 80})
