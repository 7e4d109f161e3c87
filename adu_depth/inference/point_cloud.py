"""A depth map as coloured points with normals, without what is too far, too unsure, or between two surfaces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from adu_depth.errors import InputError
from adu_depth.files import replacing
from adu_depth.geometry import Camera
from adu_depth.schema import Range, check_ranges

PLY_COMMENTS = (
    "metres in the axes of the left camera as OpenCV has them: x right, y down, z ahead",
    "a pixel's centre is at whole numbers: column = fx * x / z + cx, row = fy * y / z + cy",
)
UNCERTAINTY_COMMENT = "uncertainty: natural logarithm of b, the expected error of ln depth (b = 0.1: 10 percent)"


@dataclass(frozen=True)
class PointCloudConfig:
    """Which pixels become points."""

    max_depth: Annotated[float, Range(0, math.inf, above=True)] = 80.0
    """Metres along the camera's axis: what lies farther is left out. inf keeps all."""
    max_uncertainty: Annotated[float, Range(-50, 50)] | None = None
    """The largest log scale of ln depth, ln b, of a network that predicts it: -3 leaves out where an error of more than
    5 % is expected, -2.3 of 10 %, -1.6 of 20 %. None keeps all."""
    min_angle: Annotated[float, Range(0, 90)] = 1.5
    """Degrees: a point is left out where the line of sight and the line to a neighbour's point are nearer than that, as
    where depth jumps from one surface to another. 0 keeps all."""

    def __post_init__(self) -> None:
        check_ranges(self, "points.")


class PointCloud(NamedTuple):
    """N points in the axes of the left camera: x right, y down, z ahead, in metres.

    positions: N×3 float32. normals: N×3 float32, of unit length, towards the camera. colours: N×3 uint8 RGB.
    uncertainty: N float32, the log scale of ln depth, or None of a network that predicts none. pixels: N int64, row ·
    width + column, ascending.
    """

    positions: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    uncertainty: np.ndarray | None
    pixels: np.ndarray


class PointFrame(NamedTuple):
    """An image with its points: H×W×3 uint8 RGB, its camera, H×W metres, and what was kept of them."""

    picture: np.ndarray
    camera: Camera
    depth: np.ndarray
    cloud: PointCloud


def point_cloud(
    depth: np.ndarray,
    picture: np.ndarray,
    camera: Camera,
    log_scale: np.ndarray | None = None,
    config: PointCloudConfig | None = None,
    name: str | Path = "image",
) -> PointCloud:
    """The points of a depth map, those that `config` keeps (None: its defaults).

    depth: H×W metres along the camera's axis; not finite or ≤ 0 is none. picture: H×W×3 uint8 RGB. camera: of this
    picture, pixel centres at whole numbers; fx, fy, cx and cy are used. log_scale: H×W, ln b of ln depth.
    Raises InputError, with `name`, where no point is left, for max_uncertainty without a log scale, for arrays of other
    shapes or types, and for a camera whose numbers are not finite, or whose focal lengths are not above 0.

    Example:
        >>> wall = np.full((4, 6), 2.0, np.float32)
        >>> cloud = point_cloud(wall, np.zeros((4, 6, 3), np.uint8), Camera(10.0, 10.0, 2.5, 1.5, 0.0))
        >>> cloud.positions[0].tolist(), cloud.normals[0].tolist()
        ([-0.5, -0.30000001192092896, 2.0], [0.0, 0.0, -1.0])
    """
    config = PointCloudConfig() if config is None else config
    _require(depth, picture, camera, log_scale, name)
    if config.max_uncertainty is not None and log_scale is None:
        raise InputError(f"points.max_uncertainty: {name}: the network predicts no uncertainty")
    known = np.isfinite(depth) & (depth > 0)
    metres = np.where(known, depth, 0.0).astype(np.float64)
    positions = back_projected(metres, camera)
    kept = known & (metres <= config.max_depth)
    if log_scale is not None and config.max_uncertainty is not None:
        kept &= log_scale <= config.max_uncertainty
    if config.min_angle > 0:
        kept &= ~between_surfaces(positions, known, config.min_angle)
    if not kept.any():
        raise InputError(f"{name}: no point is left: {_told(metres[known], config)}")
    return PointCloud(
        positions=positions[kept].astype(np.float32),
        normals=surface_normals(metres, known, camera)[kept].astype(np.float32),
        colours=picture[kept],
        uncertainty=None if log_scale is None else log_scale[kept].astype(np.float32),
        pixels=np.flatnonzero(kept),
    )


def _require(
    depth: np.ndarray, picture: np.ndarray, camera: Camera, log_scale: np.ndarray | None, name: str | Path
) -> None:
    if depth.ndim != 2 or picture.shape != (*depth.shape, 3):
        shapes = f"{depth.shape} and {picture.shape}"
        raise InputError(f"{name}: expected depth H×W and a picture H×W×3 of its size, got {shapes}")
    if picture.dtype != np.uint8:
        raise InputError(f"{name}: picture: expected uint8 RGB, 0 to 255, got {picture.dtype}")
    if log_scale is not None and log_scale.shape != depth.shape:
        size = "×".join(map(str, depth.shape))
        raise InputError(f"{name}: log_scale: expected {size} as depth, got shape {log_scale.shape}")
    for number in ("fx", "fy", "cx", "cy"):
        value, focal = float(getattr(camera, number)), number in ("fx", "fy")
        if not math.isfinite(value) or (focal and value <= 0):
            wanted = "a finite number above 0" if focal else "a finite number"
            raise InputError(f"{name}: camera.{number}: expected {wanted}, got {value:g}")


def back_projected(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """H×W metres to H×W×3: each pixel's centre along its ray, as far as its depth along the camera's axis."""
    across, down = _rays(depth.shape, camera)
    return np.stack([across * depth, down * depth, depth], axis=-1)


def between_surfaces(positions: np.ndarray, known: np.ndarray, min_angle: float) -> np.ndarray:
    """H×W bool: where the line to the point of one of the four neighbours runs within `min_angle` degrees of the line
    of sight. Both points of such a pair count: which of the two is real cannot be seen. known: where there are points.

    A network draws the edge of an object as a steep ramp from it to what lies behind, in mid-air. Seen from the camera
    such a ramp is nearly edge-on, however many pixels it takes, while a surface is so at a grazing angle alone. A
    threshold on the jump between neighbours would depend on the picture's size. Scans of lasers are cleaned of their
    veiling points by the same rule (`ScanShadowsFilter` of ROS's laser_filters).
    """
    least = math.sin(math.radians(min_angle))
    ranges = np.linalg.norm(positions, axis=-1)
    found = np.zeros(known.shape, bool)
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        one, other = positions[first], positions[second]
        apart = np.linalg.norm(np.cross(one, other), axis=-1)  # the sine, by both lengths
        length = np.linalg.norm(other - one, axis=-1) * np.maximum(ranges[first], ranges[second])
        steep = known[first] & known[second] & (apart < least * length)
        found[first] |= steep
        found[second] |= steep
    return found


def surface_normals(depth: np.ndarray, known: np.ndarray, camera: Camera) -> np.ndarray:
    """H×W×3 unit normals of the surface, towards the camera, by the slopes of 1 / depth at each pixel.

    On a plane n·P = 1 the inverse depth is n · (x/z, y/z, 1), linear in the pixel's place, so its slopes are n_x / fx
    and n_y / fy: exact for planes, and −n points to the camera. (`depth_gradient_normal_loss` compares slopes of depth
    per pixel; those are no directions in space.) A slope is the mean of those to the two neighbours, or the one to that
    which is there; with none, 0.
    """
    inverse = np.divide(1.0, depth, out=np.zeros_like(depth), where=known)
    right, down = _slope(inverse, known, 1) * float(camera.fx), _slope(inverse, known, 0) * float(camera.fy)
    across, below = _rays(depth.shape, camera)
    normals = -np.stack([right, down, inverse - across * right - below * down], axis=-1)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)


def _slope(values: np.ndarray, known: np.ndarray, axis: int) -> np.ndarray:
    first, second = (np.s_[:-1], np.s_[1:]) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
    both = known[first] & known[second]
    steps = np.where(both, values[second] - values[first], 0.0)
    total, count = np.zeros_like(values), np.zeros_like(values)
    for side in (first, second):
        total[side] += steps
        count[side] += both
    return np.asarray(total / np.maximum(count, 1.0))


def _rays(shape: tuple[int, ...], camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """x / z of each column, 1×W, and y / z of each row, H×1."""
    columns, rows = np.arange(shape[1], dtype=np.float64), np.arange(shape[0], dtype=np.float64)
    across = (columns - float(camera.cx)) / float(camera.fx)
    down = (rows - float(camera.cy)) / float(camera.fy)
    return across[None], down[:, None]


def _told(depths: np.ndarray, config: PointCloudConfig) -> str:
    """What was there, and what it was cut by."""
    if not depths.size:
        return "no depth is finite and positive"
    cuts = [f"max_depth {config.max_depth:g} m"]
    cuts += [] if config.max_uncertainty is None else [f"max_uncertainty {config.max_uncertainty:g}"]
    cuts += [f"min_angle {config.min_angle:g}°"] if config.min_angle else []
    return f"depths from {depths.min():.3g} to {depths.max():.3g} m, cut by points.{', '.join(cuts)}"


def write_ply(path: str | Path, frame: PointFrame) -> None:
    """Writes the points as a binary little-endian PLY 1.0, whole or not at all.

    Of a vertex: x, y, z, nx, ny, nz (float32), red, green, blue (uint8) and, where the network predicts it, uncertainty
    (float32). Comments hold the axes, the camera and the picture's size, so that the points can be brought back to its
    pixels. Raises InputError where it cannot be written.
    """
    cloud = frame.cloud
    columns = [(name, "<f4", "float") for name in ("x", "y", "z", "nx", "ny", "nz")]
    columns += [(name, "u1", "uchar") for name in ("red", "green", "blue")]
    values = [*cloud.positions.T, *cloud.normals.T, *cloud.colours.T]
    numbers = {name: float(getattr(frame.camera, name)) for name in ("fx", "fy", "cx", "cy")}
    comments = [*PLY_COMMENTS, " ".join(["camera", *(f"{name} {value!r}" for name, value in numbers.items())])]
    comments.append(f"image height {frame.depth.shape[0]} width {frame.depth.shape[1]}")
    if cloud.uncertainty is not None:
        columns.append(("uncertainty", "<f4", "float"))
        values.append(cloud.uncertainty)
        comments.append(UNCERTAINTY_COMMENT)
    vertices = np.empty(len(cloud.positions), np.dtype([(name, kind) for name, kind, _ in columns]))
    for (name, _, _), column in zip(columns, values, strict=True):
        vertices[name] = column
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {text}" for text in comments)]
    header += [f"element vertex {len(vertices)}", *(f"property {kind} {name}" for name, _, kind in columns)]
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join([*header, "end_header", ""]).encode("ascii"))
        file.write(vertices.tobytes())
